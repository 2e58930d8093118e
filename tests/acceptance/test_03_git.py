"""The commit as the only source: what is read from it, and in which repositories. Seen from outside."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commandline import CommandLine, Ran
from tests.support.exported import Exported, read_layout
from tests.support.machine import find_program
from tests.support.project import Project

ALL = "image: app\nfrom: scratch\ngit: [{add: /, to: /app, excludePaths: [werf.yaml, .gitmodules, .gitattributes]}]\n"
MOST_MEMORY_KIB = 256 * 1024


def export(lw: CommandLine, *arguments: str, directory: Path | None = None) -> Exported:
    """Build and export the image "app", and read it."""
    layout = lw.home.parent / f"exported-{len(list(lw.home.parent.iterdir()))}"
    lw("export", "app", "--to", f"oci:{layout}", *arguments, directory=directory)
    return read_layout(layout)


def warnings(ran: Ran) -> list[str]:
    return [line for line in ran.stderr.splitlines() if line.startswith("Warning: ")]


# What is not committed.


def test_uncommitted_changes_do_not_enter_and_a_warning_names_those_that_are_matched(project: Project, lw: CommandLine) -> None:
    for path in ("src/kept", "src/changed", "src/staged", "src/deleted", "src/mode", "docs/changed"):
        project.write(path, "committed")
    project.write(".gitignore", "ignored\n")
    project.werf("image: app\nfrom: scratch\ngit: [{add: /src, to: /app, excludePaths: secret}]\n")
    project.commit()
    committed = dict.fromkeys(("kept", "changed", "staged", "deleted", "mode"), b"committed")
    assert warnings(lw("build")) == []
    for path in ("src/changed", "src/staged", "src/new", "src/secret", "src/ignored", "docs/changed", "docs/new"):
        project.write(path, "not committed")
    project.git("add", "src/staged")
    (project.path / "src/deleted").unlink()
    (project.path / "src/mode").chmod(0o755)
    ran = lw("build")
    (warning,) = warnings(ran)
    for path in ("src/changed", "src/staged", "src/new", "src/deleted", "src/mode"):
        assert path in warning
    for word in ("kept", "docs", "secret", "ignored", "werf.yaml"):
        assert word not in warning
    other_machine = export(lw.with_home(lw.home / "other"))
    assert other_machine.below("app") == committed
    assert other_machine.files["app/mode"].mode == 0o644


def test_werf_yaml_is_that_of_head_and_a_warning_says_that_it_differs(project: Project, lw: CommandLine) -> None:
    project.write("a", "a")
    project.werf("image: app\nfrom: scratch\n")
    project.commit()
    lw("build")
    project.werf("image: other\nfrom: scratch\n")
    assert lw("config", "list").stdout == "app\n"
    (warning,) = warnings(lw("build"))
    assert "werf.yaml" in warning


def test_a_fault_that_is_mended_but_not_committed_is_told_with_a_warning(project: Project, lw: CommandLine) -> None:
    project.werf("image: app\nform: scratch\n")
    project.commit()
    project.werf("image: app\nfrom: scratch\n")
    ran = lw("build", code=2)
    assert "werf.yaml:5:1" in ran.stderr
    assert "uncommitted" in ran.stderr
    assert "commit them" in ran.stderr


def test_a_werf_yaml_that_is_not_committed_is_not_read(project: Project, lw: CommandLine) -> None:
    project.commit()
    project.werf(ALL)
    error = lw("build", code=2).stderr
    assert "werf.yaml is not in the commit" in error
    assert "git add werf.yaml" in error


def test_werf_yml_and_a_symlink_to_another_file_are_read(project: Project, lw: CommandLine) -> None:
    project.write("conf/real.yaml", "configVersion: 1\nproject: test\n---\nimage: linked\nfrom: scratch\n")
    project.link("werf.yml", "conf/real.yaml")
    project.commit()
    assert lw("config", "list").stdout == "linked\n"
    project.werf("image: first\nfrom: scratch\n")
    project.commit()
    assert lw("config", "list").stdout == "first\n"


# Which repository, which commit.


def test_a_detached_head_is_the_commit_that_is_built(project: Project, lw: CommandLine) -> None:
    project.werf(ALL)
    project.write("a", "old")
    first = project.commit()
    project.write("a", "new")
    project.commit()
    assert export(lw).below("app") == {"a": b"new"}
    project.git("checkout", "--quiet", "--detach", first)
    assert export(lw).below("app") == {"a": b"old"}


def test_a_repository_without_commits_and_a_directory_without_repository_are_errors(project: Project, lw: CommandLine, tmp_path: Path) -> None:
    project.werf(ALL)
    error = lw("build", code=2).stderr
    assert "no commit yet" in error
    assert "git commit" in error
    bare = tmp_path / "bare"
    bare.mkdir()
    error = lw("build", code=2, directory=bare).stderr
    assert "no git work tree" in error
    assert str(bare) in error
    assert "git init" in error
    assert "does not exist" in lw("build", "--dir", str(tmp_path / "nothing"), code=2).stderr


def test_a_project_in_a_subdirectory_has_its_own_files_and_adds_from_the_root(project: Project, lw: CommandLine, tmp_path: Path) -> None:
    project.werf("image: root\nfrom: scratch\n")
    project.write("shared/a", "a")
    project.write("sub/own/b", "b")
    project.write(
        "sub/werf.yaml",
        "configVersion: 1\nproject: sub\n---\nimage: app\nfrom: scratch\nfromLatest: true\ngit: [{add: /, to: /w, includePaths: [shared, sub/own]}]\n",
    )
    project.commit()
    sub = project.path / "sub"
    assert lw("build", "--dir", str(sub), code=2).stderr.startswith("Error: werf.yaml:6:1: fromLatest")
    project.write("sub/werf-giterminism.yaml", "giterminismConfigVersion: 1\nconfig: {stapel: {allowFromLatest: true}}\n")
    project.commit()
    expected = {"shared/a": b"a", "sub/own/b": b"b"}
    assert export(lw, "--dir", str(sub), directory=tmp_path).below("w") == expected
    assert export(lw, "--dir", "sub").below("w") == expected
    assert export(lw, directory=sub).below("w") == expected
    assert lw("config", "list", directory=sub).stdout == "app\n"
    assert lw("config", "list").stdout == "root\n"
    assert lw("config", "list", env={"WERF_DIR": "sub"}).stdout == "app\n"
    project.write("shared/a", "changed")
    (warning,) = warnings(lw("build", directory=sub))
    assert "shared/a" in warning


def test_the_work_tree_may_be_named(project: Project, lw: CommandLine, tmp_path: Path, new_project: Callable[[str], Project]) -> None:
    project.werf("image: outer\nfrom: scratch\n")
    project.write("sub/werf.yaml", "configVersion: 1\nproject: a\n---\nimage: committed-outside\nfrom: scratch\n")
    project.commit()
    inner = new_project("project/sub")
    inner.werf("image: committed-inside\nfrom: scratch\n")
    inner.commit()
    assert lw("config", "list", directory=inner.path).stdout == "committed-inside\n"
    assert lw("config", "list", "--git-work-tree", str(project.path), directory=inner.path).stdout == "committed-outside\n"
    outside = lw("config", "list", "--git-work-tree", str(inner.path), code=2).stderr
    assert "outside of the git work tree" in outside
    not_one = lw("config", "list", "--dir", str(tmp_path), "--git-work-tree", str(tmp_path), code=2).stderr
    assert "not a git work tree" in not_one


def test_another_configuration_file_is_named_relative_to_the_current_directory(project: Project, lw: CommandLine, tmp_path: Path) -> None:
    meta = "configVersion: 1\nproject: a\n---\nfrom: scratch\n"
    project.write("conf/ci.yaml", meta + "image: ci\n")
    project.write("sub/own.yaml", meta + "image: own\n")
    project.write("sub/broken.yaml", meta + "imgae: own\n")
    project.commit()
    conf, sub = project.path / "conf", project.path / "sub"
    assert lw("config", "list", "--config", "conf/ci.yaml").stdout == "ci\n"
    assert lw("config", "list", "--config", "ci.yaml", "--dir", "..", directory=conf).stdout == "ci\n"
    assert lw("config", "list", "--config", "../conf/ci.yaml", directory=sub).stdout == "ci\n"
    assert lw("config", "list", "--config", "sub/own.yaml", "--dir", "sub").stdout == "own\n"
    assert lw("config", "list", "--config", str(sub / "own.yaml"), "--dir", str(project.path), directory=tmp_path).stdout == "own\n"
    assert lw("config", "list", env={"WERF_CONFIG": "conf/ci.yaml"}).stdout == "ci\n"
    assert "Error: broken.yaml:5:1: " in lw("config", "list", "--config", "broken.yaml", directory=sub, code=2).stderr
    project.write("conf/new.yaml", meta + "image: new\n")
    assert "conf/new.yaml is not in the commit" in lw("config", "list", "--config", "conf/new.yaml", code=2).stderr
    assert "outside of the git work tree" in lw("config", "list", "--config", "../x.yaml", code=2).stderr


def test_gits_own_environment_does_not_lead_to_another_repository(project: Project, lw: CommandLine, new_project: Callable[[str], Project]) -> None:
    project.werf(ALL)
    project.write("a", "right")
    project.commit()
    other = new_project("other")
    other.werf(ALL)
    other.commit()
    git_dir = str(other.path / ".git")
    lw("build", env={"GIT_DIR": git_dir, "GIT_WORK_TREE": str(other.path), "GIT_INDEX_FILE": f"{git_dir}/index", "GIT_PREFIX": "x/"})
    assert export(lw).below("app") == {"a": b"right"}


def test_a_linked_work_tree_has_its_own_head(project: Project, lw: CommandLine, tmp_path: Path) -> None:
    project.werf(ALL)
    project.write("a", "main")
    project.commit()
    linked = tmp_path / "linked"
    project.git("worktree", "add", "--quiet", "-b", "feature", str(linked))
    (linked / "a").write_text("feature")
    project.git("-C", str(linked), "commit", "--quiet", "--all", "--message", "feature")
    (linked / "a").write_text("not committed")
    assert export(lw, directory=linked).below("app") == {"a": b"feature"}
    (warning,) = warnings(lw("build", directory=linked))
    assert ": a;" in warning
    assert export(lw).below("app") == {"a": b"main"}


def test_a_shallow_clone_builds_and_follows_commits_whose_predecessors_are_gone(project: Project, lw: CommandLine, tmp_path: Path) -> None:
    project.werf(ALL)
    for number in range(3):
        project.write("a", str(number))
        project.write(f"gone/{number}", "x")
        project.commit()
    shallow = tmp_path / "shallow"
    project.git("clone", "--quiet", "--depth=1", f"file://{project.path}", str(shallow))
    assert sorted(export(lw, directory=shallow).below("app")) == ["a", "gone/0", "gone/1", "gone/2"]
    project.remove("gone")
    project.write("a", "new")
    project.write("b", "new")
    project.commit()
    old = project.git("-C", str(shallow), "rev-parse", "HEAD")
    for command in (
        ["fetch", "--quiet", "--depth=1"],
        ["reset", "--quiet", "--hard", "origin/main"],
        ["reflog", "expire", "--expire=now", "--all"],
        ["gc", "--quiet", "--prune=now"],
    ):
        project.git("-C", str(shallow), *command)
    with pytest.raises(AssertionError):
        project.git("-C", str(shallow), "cat-file", "-e", old)
    image = export(lw, directory=shallow)
    assert image.below("app") == {"a": b"new", "b": b"new"}
    assert "app/gone" not in image.files
    assert len(image.layers) == 2


def test_history_that_was_rewritten_is_followed(project: Project, lw: CommandLine) -> None:
    project.werf(ALL)
    project.write("a", "1")
    project.write("b", "1")
    project.commit()
    lw("build")
    project.write("a", "2")
    project.remove("b")
    project.git("checkout", "--quiet", "--orphan", "other")
    project.commit()
    assert export(lw).below("app") == {"a": b"2"}


def test_a_repository_with_sha256_objects_is_read(project: Project, lw: CommandLine) -> None:
    shutil.rmtree(project.path / ".git")
    project.git("init", "--quiet", "--object-format=sha256")
    project.werf(ALL)
    project.write("a", "1")
    assert len(project.commit()) == 64
    lw("build")
    project.write("a", "2")
    project.commit()
    assert export(lw).below("app") == {"a": b"2"}


# Submodules.


@pytest.fixture
def library(new_project: Callable[[str], Project]) -> Project:
    """A repository to be a submodule, with two commits."""
    library = new_project("library")
    library.write("src/code", "1")
    library.write("src/run", "#!", executable=True)
    library.commit()
    library.write("src/code", "2")
    library.commit()
    return library


def with_submodule(project: Project, library: Project) -> None:
    """`project` with `library` at its first commit as deps/lib, and a work tree at its second."""
    project.git("submodule", "--quiet", "add", str(library.path), "deps/lib")
    project.git("-C", "deps/lib", "checkout", "--quiet", "HEAD~1")
    project.commit()
    project.git("-C", "deps/lib", "checkout", "--quiet", "main")


def test_submodules_are_taken_at_the_recorded_commit(project: Project, lw: CommandLine, library: Project) -> None:
    project.werf(
        "image: app\nfrom: scratch\ngit:\n"
        "- {add: /, to: /all, excludePaths: [werf.yaml, .gitmodules]}\n- {add: /deps/lib/src, to: /part}\n- {add: /deps/lib/src/code, to: /one}\n"
    )
    project.write("own", "own")
    with_submodule(project, library)
    image = export(lw)
    assert image.below("all") == {"own": b"own", "deps/lib/src/code": b"1", "deps/lib/src/run": b"#!"}
    assert image.below("part") == {"code": b"1", "run": b"#!"}
    assert image.contents["one"] == b"1"
    assert image.files["part/run"].mode == 0o755
    (warning,) = warnings(lw("build"))
    assert "deps/lib" in warning
    project.commit()  # now the second one is recorded
    assert export(lw).below("part")["code"] == b"2"


def test_a_submodule_that_is_not_here_is_an_error_only_if_a_mapping_needs_it(project: Project, lw: CommandLine, library: Project, tmp_path: Path) -> None:
    project.werf(ALL)
    project.write("own/a", "a")
    with_submodule(project, library)
    clone = tmp_path / "clone"
    project.git("clone", "--quiet", str(project.path), str(clone))
    error = lw("build", directory=clone, code=2).stderr
    assert "submodule 'deps/lib' is not initialised" in error
    command = next(line.strip() for line in error.splitlines() if "git -C" in line)
    assert command == f"git -C {clone} submodule update --init --recursive -- deps/lib"
    for mapping in ("{add: /own, to: /app}", "{add: /, to: /app, excludePaths: [deps, werf.yaml, .gitmodules]}"):
        (clone / "werf.yaml").write_text(f"configVersion: 1\nproject: test\n---\nimage: app\nfrom: scratch\ngit: [{mapping}]\n")
        project.git("-C", str(clone), "commit", "--quiet", "--all", "--message", "without")
        assert [path.rpartition("/")[2] for path in export(lw, directory=clone).below("app")] == ["a"]
    project.git("-C", str(clone), "reset", "--quiet", "--hard", "origin/main")
    project.git("-c", "protocol.file.allow=always", *command.split()[1:])
    assert export(lw, directory=clone).below("app")["deps/lib/src/code"] == b"1"


def test_a_submodule_commit_that_was_never_pushed_is_an_error(project: Project, lw: CommandLine, library: Project, tmp_path: Path) -> None:
    project.werf(ALL)
    with_submodule(project, library)
    missing = "1" * 40
    project.git("update-index", "--cacheinfo", f"160000,{missing},deps/lib")
    project.git("commit", "--quiet", "--message", "a commit that is nowhere")
    error = lw("build", code=2).stderr
    assert f"does not have the recorded commit {missing}" in error
    assert "submodule update --init" in error


def test_submodules_in_a_linked_work_tree_and_inside_one_another_are_read(
    project: Project, lw: CommandLine, library: Project, tmp_path: Path, new_project: Callable[[str], Project]
) -> None:
    middle = new_project("middle")
    middle.git("submodule", "--quiet", "add", str(library.path), "inner")
    middle.commit()
    project.werf(ALL)
    project.git("submodule", "--quiet", "add", str(middle.path), "middle")
    project.git("submodule", "--quiet", "update", "--init", "--recursive")
    project.commit()
    assert export(lw).contents["app/middle/inner/src/code"] == b"2"
    linked = tmp_path / "linked"
    project.git("worktree", "add", "--quiet", "--detach", str(linked))
    assert export(lw.with_home(lw.home / "other"), directory=linked).contents["app/middle/inner/src/code"] == b"2"


# Files.

NAMES = [
    b"with blank",
    b"new\nline",
    b"tab\tq\"uote'",
    b"back\\slash",
    b"caf\xe9 \xff",
    "größe ☃".encode(),
    b"-dash",
    b".wh_not",
    b"$HOME `x`",
    b"*?[a]",
    b"n" * 200,
    b"dir\n\xfe/ \xe9",
]


def write_strange_names(project: Project) -> None:
    for number, name in enumerate(NAMES):
        project.write(os.fsdecode(name), str(number))
    project.link("link\n\udcff", "caf\udce9 \udcff")


def test_names_with_any_bytes_enter_as_they_are(project: Project, lw: CommandLine) -> None:
    project.werf(ALL)
    write_strange_names(project)
    project.commit()
    image = export(lw)
    assert {os.fsencode(path): content for path, content in image.below("app").items()} == {name: str(number).encode() for number, name in enumerate(NAMES)}
    assert os.fsencode(image.files["app/link\n\udcff"].link) == b"caf\xe9 \xff"
    project.write("caf\udce9 \udcff", "changed")
    project.remove("new\nline")
    project.commit()
    image = export(lw)
    assert image.contents["app/caf\udce9 \udcff"] == b"changed"
    assert "app/new\nline" not in image.files
    assert set(image.layers[1]) == {"app", "app/caf\udce9 \udcff", "app/.wh.new\nline"}


@pytest.mark.needs_root
def test_other_tools_unpack_the_same_names_modes_and_links(project: Project, lw: CommandLine, tmp_path: Path) -> None:
    project.werf(ALL)
    write_strange_names(project)
    project.write("run", "#!", executable=True)
    project.commit()
    lw("build")
    project.remove("with blank")
    project.commit()
    lw("export", "app", "--to", f"oci:{tmp_path / 'layout'}:latest")
    command = (find_program("umoci"), "unpack", "--image", f"{tmp_path / 'layout'}:latest", str(tmp_path / "bundle"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    app = os.fsencode(tmp_path / "bundle/rootfs/app")
    for number, name in list(enumerate(NAMES))[1:]:
        assert Path(os.fsdecode(app + b"/" + name)).read_bytes() == str(number).encode()
        assert os.stat(app + b"/" + name).st_mode == 0o100644
    assert not os.path.lexists(app + b"/with blank")
    assert os.stat(app + b"/run").st_mode == 0o100755
    assert os.readlink(app + b"/link\n\xff") == b"caf\xe9 \xff"


def test_links_and_executable_bits_are_those_of_the_commit(project: Project, lw: CommandLine) -> None:
    project.werf(ALL)
    project.write("run", "#!", executable=True)
    project.write("plain", "x")
    for name, target in (("relative", "plain"), ("absolute", "/etc/passwd"), ("dangling", "no/where"), ("upwards", "../../x"), ("to-dir", ".")):
        project.link(f"links/{name}", target)
    project.commit()
    image = export(lw)
    assert (image.files["app/run"].mode, image.files["app/plain"].mode, image.files["app/links"].mode) == (0o755, 0o644, 0o755)
    assert {path: file.link for path, file in image.files.items() if file.kind == "symlink"} == {
        "app/links/relative": "plain",
        "app/links/absolute": "/etc/passwd",
        "app/links/dangling": "no/where",
        "app/links/upwards": "../../x",
        "app/links/to-dir": ".",
    }
    (project.path / "run").chmod(0o644)
    (project.path / "plain").chmod(0o755)
    project.link("links/relative", "../run")
    project.commit()
    image = export(lw)
    assert (image.files["app/run"].mode, image.files["app/plain"].mode) == (0o644, 0o755)
    assert image.files["app/links/relative"].link == "../run"


def test_a_path_may_become_a_directory_a_file_and_a_link(project: Project, lw: CommandLine, tmp_path: Path) -> None:
    def state(number: int) -> None:
        shutil.rmtree(project.path / "x") if (project.path / "x").is_dir() and not (project.path / "x").is_symlink() else (project.path / "x").unlink(
            missing_ok=True
        )
        if number in (0, 3):
            project.write("x", f"file {number}")
        elif number in (1, 5):
            project.write(f"x/{number}", "below")
        else:
            project.link("x", f"target{number}")
        project.commit()

    project.werf(ALL)
    for number in range(6):
        state(number)
        followed, fresh = export(lw), export(lw.with_home(tmp_path / f"home-{number}"))
        assert {path: file._replace(time_s=0) for path, file in followed.files.items()} == {path: file._replace(time_s=0) for path, file in fresh.files.items()}


def test_attributes_other_than_lfs_change_no_byte(project: Project, lw: CommandLine) -> None:
    project.werf(ALL)
    project.write(".gitattributes", "*.txt text eol=crlf\n*.id ident\n*.f filter=rot13\nhidden export-ignore\n")
    for path, content in (("a.txt", "one\ntwo\n"), ("b.id", "$Id$\n"), ("c.f", "abc"), ("hidden", "x")):
        project.write(path, content)
    project.commit()
    assert export(lw).below("app") == {"a.txt": b"one\ntwo\n", "b.id": b"$Id$\n", "c.f": b"abc", "hidden": b"x"}


def test_files_kept_in_lfs_are_refused_unless_they_are_left_out(project: Project, lw: CommandLine) -> None:
    project.werf(ALL)
    project.write("assets/.gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    project.write("assets/big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    project.write("assets/plain", "x")
    project.write("other.bin", "not matched: the attributes are of another directory")
    project.commit()
    error = lw("build", code=2).stderr
    assert "assets/big.bin: kept by Git LFS" in error
    assert "other.bin" not in error
    assert "werf.yaml:6:7" in error
    project.werf(ALL.replace("excludePaths: [", 'excludePaths: ["**/*.bin", '))
    project.commit()
    assert sorted(export(lw).below("app")) == ["assets/.gitattributes", "assets/plain"]


# Size.


def commit_many_files(project: Project, count: int) -> None:
    """Commit `count` small files, a hundred to a directory, and check them out."""
    stream = [b"commit refs/heads/main\ncommitter test <test@example.com> 1700000000 +0000\ndata 1\nx\n"]
    for number in range(count):
        content = b"file %d\n" % number
        stream.append(b"M 100644 inline tree/%03d/%05d.txt\ndata %d\n%s\n" % (number // 100, number, len(content), content))
    done = subprocess.run(("git", "fast-import", "--quiet"), cwd=project.path, input=b"".join(stream), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    project.git("reset", "--quiet", "--hard")


@pytest.mark.slow
def test_fifty_thousand_files_are_built_and_followed(project: Project, lw: CommandLine, record_property: Callable[[str, object], None]) -> None:
    commit_many_files(project, 50_000)
    project.werf("image: app\nfrom: scratch\ngit: [{add: /tree, to: /app, excludePaths: '**/*9.txt'}]\n")
    project.git("add", "werf.yaml")
    project.git("commit", "--quiet", "--message", "werf.yaml")

    def timed(what: str) -> None:
        begin = time.monotonic()
        lw("build")
        record_property(what, f"{time.monotonic() - begin:.2f} s")

    timed("50,000 files, first build")
    project.write("tree/123/12345.txt", "changed\n")
    project.remove("tree/499/49990.txt")
    project.git("commit", "--quiet", "--message", "small", "--all")
    timed("50,000 files, two changed")
    timed("50,000 files, nothing changed")
    image = export(lw)
    contents = image.below("app")
    assert len(contents) == 45_000 - 1
    assert contents["123/12345.txt"] == b"changed\n"
    assert contents["000/00000.txt"] == b"file 0\n"
    assert set(image.layers[-1]) == {"app", "app/123", "app/123/12345.txt", "app/499", "app/499/.wh.49990.txt"}


# Prints the KiB of the largest process that the command started or was; from a process of its own, since a child begins with the size of its parent.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["as committed", "as cloned"])
def test_a_file_of_300_mb_passes_through_bounded_memory(project: Project, lw: CommandLine, tmp_path: Path, packed: bool) -> None:
    block = bytearray(os.urandom(1_000_000))
    total = hashlib.sha256()
    with (project.path / "huge").open("wb") as out:
        for number in range(300):
            block[:4] = number.to_bytes(4, "big")
            out.write(block)
            total.update(block)
    project.werf(ALL)
    quick = ("-c", "core.compression=0", "-c", "core.bigFileThreshold=1m" if packed else "core.bigFileThreshold=1g")
    project.git(*quick, "add", "--all")
    project.git("commit", "--quiet", "--message", "huge")
    assert any((project.path / ".git/objects/pack").glob("*.pack")) == packed
    argv = (sys.executable, "-c", MEASURE, sys.executable, "-m", "layerwright", "export", "app", "--to", f"oci:{tmp_path / 'layout'}")
    done = subprocess.run(argv, cwd=project.path, env=lw.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= MOST_MEMORY_KIB
    assert hashlib.sha256(read_layout(tmp_path / "layout").contents["app/huge"]).digest() == total.digest()
