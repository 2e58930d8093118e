"""The conveyor from outside: which stages there are, what builds them anew, and what the finished image holds as other tools read it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.built import Built, build, export
from tests.support.commandline import CommandLine
from tests.support.exported import Exported, read_layout
from tests.support.project import Project
from tests.support.readers import Podman, Seen, inspect, inspect_config, seen_on_disk, unpacked_by_umoci
from tests.support.registry_server import RegistryServer
from tools.base_image import add_entry

MEBIBYTE = 1 << 20
REQUEST = "http.request.method"


def files(lw: CommandLine, image: str = "app") -> dict[str, bytes]:
    return read_layout(export(lw, image)).contents


def change(project: Project, lw: CommandLine, **written: str) -> Built:
    """Commit files, named with __ for /, and build."""
    for path, content in written.items():
        project.write(path.replace("__", "/"), content)
    project.commit()
    return build(lw)


# The facts of a stage conveyor, as issue trackers of such builders repeat them.

DECLARED = """
image: app
from: {base}
git:
- add: /src
  to: /app
imageSpec:
  config:
    labels: {{kind: plain}}
"""


@pytest.fixture
def declared(project: Project, base_images: BaseImages) -> Project:
    """Two stages of sources and configuration on a base image, no commands."""
    project.werf(DECLARED.format(base=base_images.busybox))
    project.write("src/a", "a\n")
    project.write("src/b", "b\n")
    project.commit()
    return project


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_a_second_run_asks_no_registry_and_starts_nothing(project: Project, lw: CommandLine, base_images: BaseImages, registry: RegistryServer) -> None:
    project.werf(f"image: app\nfrom: {base_images.busybox}\nshell: {{install: date > /now}}\n")
    project.commit()
    assert build(lw).new() == ["from", "install"]
    asked = registry.log.count(REQUEST)
    again = build(lw, "--runtime", "/no/such/runtime")
    assert again.new() == []
    assert again.ran.stdout.count("Use previously built image for app/") == 2
    assert "Building" not in again.ran.stdout
    assert registry.log.count(REQUEST) == asked


def test_a_change_that_no_stage_names_builds_one_patch_and_the_configuration_above_it(declared: Project, lw: CommandLine) -> None:
    assert build(lw).new() == ["from", "gitArchive", "imageSpec"]
    assert change(declared, lw, src__a="changed\n").new() == ["gitLatestPatch", "imageSpec"]
    exported = read_layout(export(lw))
    assert exported.below("app") == {"a": b"changed\n", "b": b"b\n"}
    assert exported.layers[-1] == ("app", "app/a")  # and no more than that file with its directory


def test_a_reverted_change_is_the_earlier_image_again(declared: Project, lw: CommandLine) -> None:
    first = build(lw)
    assert change(declared, lw, src__a="changed\n").content() != first.content()
    back = change(declared, lw, src__a="a\n")
    assert back.content() == first.content()
    assert (back.new(), back.stages()) == ([], ["from", "gitArchive", "imageSpec"])


def test_a_rebased_history_builds_nothing(declared: Project, lw: CommandLine) -> None:
    first = build(lw)
    declared.git("checkout", "--quiet", "--orphan", "rebased")
    declared.commit("the same files, no common history")
    declared.git("branch", "--quiet", "-D", "main")
    declared.git("reflog", "expire", "--expire=now", "--all")
    declared.git("gc", "--quiet", "--prune=now")
    rebased = build(lw)
    assert (rebased.new(), rebased.content()) == ([], first.content())
    # The commit that gitArchive was built at is gone, and still its files are what a patch starts from.
    assert change(declared, lw, src__b="changed\n").new() == ["gitLatestPatch", "imageSpec"]
    assert read_layout(export(lw)).below("app") == {"a": b"a\n", "b": b"changed\n"}


def test_a_mebibyte_of_changes_becomes_a_cache_that_later_patches_start_from(declared: Project, lw: CommandLine) -> None:
    build(lw)
    below = change(declared, lw, src__large="x" * (MEBIBYTE - 1))
    assert below.stages() == ["from", "gitArchive", "gitLatestPatch", "imageSpec"]
    reached = change(declared, lw, src__large="x" * MEBIBYTE)
    assert reached.stages() == ["from", "gitArchive", "gitCache", "imageSpec"]
    later = change(declared, lw, src__a="changed\n")
    assert later.new() == ["gitLatestPatch", "imageSpec"]
    assert later.digests()["gitCache"] == reached.digests()["gitCache"]
    more = change(declared, lw, src__more="y" * MEBIBYTE)
    assert more.digests()["gitCache"] not in (reached.digests()["gitCache"], "")
    assert "gitLatestPatch" not in more.stages()
    found = read_layout(export(lw)).below("app")
    assert {name: len(content) for name, content in found.items()} == {"a": 8, "b": 2, "large": MEBIBYTE, "more": MEBIBYTE}


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_another_network_builds_nothing(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    text = f"image: app\nfrom: {base_images.busybox}\nshell: {{install: date > /now}}\n"
    project.werf(text)
    project.commit()
    first = build(lw)
    project.werf(text + "network: none\n")
    project.commit()
    again = build(lw, "--backend-network", "none")
    assert (again.new(), again.content()) == ([], first.content())


def test_an_import_whose_source_is_built_anew_with_equal_files_is_reused(project: Project, lw: CommandLine) -> None:
    text = """
        image: lib
        from: scratch
        git: [{{add: /lib, to: /lib}}, {{add: /other, to: /other}}]
        ---
        image: app
        from: scratch
        git: [{{add: /src, to: /app}}]
        import: [{{image: lib, add: /lib, to: {to}, after: install}}]
        """
    project.werf(text.format(to="/usr/lib"))
    for path in ("lib/file", "other/file", "src/file"):
        project.write(path, "1")
    project.commit()
    first = build(lw)
    changed = change(project, lw, other__file="2")
    assert changed.new("lib") == ["gitLatestPatch"]
    assert changed.new("app") == []  # the image has a new name, and all its stages
    assert changed.content() != first.content()
    assert changed.digests() == first.digests()
    assert change(project, lw, lib__file="2").new("app") == ["dependenciesAfterInstall"]
    project.werf(text.format(to="/usr/share"))
    project.commit()
    assert build(lw).new("app") == ["dependenciesAfterInstall"]


def test_a_moved_tag_is_noticed_only_where_the_latest_is_asked_for(
    project: Project, lw: CommandLine, base_images: BaseImages, registry: RegistryServer
) -> None:
    def tag(content: bytes) -> str:
        return base_images.push("conveyor/moving:1", [small_tar({"version": content})])

    base = tag(b"old")
    project.werf(f"image: app\nfrom: {base}\ngit: [{{add: /src, to: /app}}]\n---\nimage: follows\nfrom: {base}\nfromLatest: true\n")
    project.write("werf-giterminism.yaml", "giterminismConfigVersion: 1\nconfig: {stapel: {allowFromLatest: true}}\n")
    project.write("src/a", "a")
    project.commit()
    first = build(lw)
    tag(b"new")
    second = change(project, lw, src__a="changed")
    assert second.new("app") == ["gitLatestPatch"]
    assert second.new("follows") == ["from"]
    assert second.digests("follows")["from"] != first.digests("follows")["from"]
    assert files(lw)["version"] == b"old"
    assert files(lw, "follows")["version"] == b"new"
    asked = registry.log.count("conveyor/moving")
    assert change(project, lw, src__a="again").new("follows") == []
    assert registry.log.count("conveyor/moving") > asked  # the tag is asked for at each build


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_an_image_without_git_after_patch_never_sees_later_sources(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(f"""
        image: app
        from: {base_images.busybox}
        disableGitAfterPatch: true
        git:
        - add: /src
          to: /app
          stageDependencies: {{install: dep}}
        shell: {{install: cat /app/* > /seen}}
        """)
    change(project, lw, src__dep="1", src__other="1")
    assert change(project, lw, src__other="2").new() == []
    assert files(lw)["seen"] == b"11"
    assert change(project, lw, src__dep="2").new() == ["install"]
    assert files(lw)["seen"] == b"22"


def test_branches_share_their_stages_and_differ_in_the_files(declared: Project, lw: CommandLine) -> None:
    build(lw)
    declared.git("checkout", "--quiet", "-b", "one")
    one = change(declared, lw, src__a="one\n")
    first = read_layout(export(lw)).below("app")
    declared.git("checkout", "--quiet", "-b", "two", "main")
    two = change(declared, lw, src__b="two\n")
    assert (one.new(), two.new()) == (["gitLatestPatch", "imageSpec"], ["gitLatestPatch", "imageSpec"])
    assert first == {"a": b"one\n", "b": b"b\n"}
    assert read_layout(export(lw)).below("app") == {"a": b"a\n", "b": b"two\n"}
    declared.git("checkout", "--quiet", "one")
    assert build(lw).content() == one.content()


# All stages, in their order, and what builds them anew.

WHOLE = """
image: lib
from: {base}
git: [{{add: /lib, to: /lib}}]
---
image: app
from: {base}
git:
- add: /src
  to: /app
  stageDependencies:
    install: deps/*
    beforeSetup: build.sh
    setup: [conf, deps/b]
import:
- {{image: lib, add: /lib/1, to: /import/before-install, before: install}}
- {{image: lib, add: /lib/2, to: /import/after-install, after: install}}
- {{image: lib, add: /lib/3, to: /import/before-setup, before: setup}}
- {{image: lib, add: /lib/4, to: /import/after-setup, after: setup}}
shell:
  beforeInstall: ls / /import > /log-beforeInstall 2>&1 || true
  install: cat /app/deps/* /app/free > /log-install; ls /import > /imports-install
  beforeSetup: cat /app/build.sh /app/free > /log-beforeSetup; ls /import > /imports-beforeSetup
  setup: cat /app/conf /app/free > /log-setup; ls /import > /imports-setup
docker:
  WORKDIR: /app
"""
ORDER = """from beforeInstall dependenciesBeforeInstall gitArchive install dependenciesAfterInstall beforeSetup dependenciesBeforeSetup setup
dependenciesAfterSetup gitCache gitLatestPatch dockerInstructions""".split()


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_every_stage_comes_in_its_place_and_is_built_anew_for_its_own_inputs_only(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(WHOLE.format(base=base_images.busybox))
    for number in "1234":
        project.write(f"lib/{number}", number)
    for path in ("deps/a", "deps/b", "build.sh", "conf", "free"):
        project.write(f"src/{path}", f"{path} 1\n")
    project.commit()
    assert build(lw).new() == [stage for stage in ORDER if stage not in ("from", "gitCache", "gitLatestPatch")]  # `from` is the one of lib
    first = files(lw)
    assert (first["imports-install"], first["imports-beforeSetup"], first["imports-setup"]) == (
        b"before-install\n",
        b"after-install\nbefore-install\n",
        b"after-install\nbefore-install\nbefore-setup\n",
    )
    assert b"app" not in first["log-beforeInstall"]  # no sources yet

    def anew(start: str) -> list[str]:
        return [stage for stage in ORDER[ORDER.index(start) :] if not stage.startswith("git")]

    free = change(project, lw, src__free="free 2\n")
    assert free.new() == ["gitLatestPatch", "dockerInstructions"]
    # The sources are brought up to date before the commands run; what was not built anew still knows the old ones.
    assert change(project, lw, src__conf="conf 2\n").new() == anew("setup")
    third = files(lw)
    assert (third["log-install"], third["log-beforeSetup"], third["log-setup"]) == (
        b"deps/a 1\ndeps/b 1\nfree 1\n",
        b"build.sh 1\nfree 1\n",
        b"conf 2\nfree 2\n",
    )
    assert change(project, lw, **{"src__build.sh": "build.sh 2\n"}).new() == anew("beforeSetup")
    assert files(lw)["log-beforeSetup"] == b"build.sh 2\nfree 2\n"
    assert change(project, lw, src__free="free 3\n", src__deps__a="deps/a 2\n").new() == anew("install")
    assert files(lw)["log-install"] == b"deps/a 2\ndeps/b 1\nfree 3\n"
    large = change(project, lw, src__large="x" * MEBIBYTE)
    assert large.new() == ["gitCache", "dockerInstructions"]
    assert change(project, lw, src__free="free 4\n").stages() == ORDER


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_stage_dependencies_are_compared_by_path_mode_and_content(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(f"""
        image: app
        from: {base_images.busybox}
        git:
        - add: /src
          to: /app
          stageDependencies: {{install: "deps/**/*.txt"}}
        shell: {{install: ls -R /app > /seen}}
        """)
    for path in ("deps/a.txt", "deps/deep/b.txt", "deps/c.md", "d.txt"):
        project.write(f"src/{path}", "1")
    project.commit()
    first = build(lw).digests()["install"]
    cases: dict[str, tuple[bool, Callable[[], object]]] = {
        "content": (True, lambda: project.write("src/deps/deep/b.txt", "2")),
        "mode": (True, lambda: project.write("src/deps/a.txt", "1", executable=True)),
        "path": (True, lambda: project.git("mv", "src/deps/a.txt", "src/deps/e.txt")),
        "new": (True, lambda: project.write("src/deps/new.txt", "1")),
        "gone": (True, lambda: project.remove("src/deps/a.txt")),
        "not matched": (False, lambda: project.write("src/deps/c.md", "2")),
        "outside": (False, lambda: project.write("src/d.txt", "2")),
    }
    start = project.head()
    for name, (counts, do) in cases.items():
        project.git("reset", "--quiet", "--hard", start)
        do()
        project.commit()
        built = build(lw)
        assert (built.digests()["install"] != first) is counts, name
        assert ("install" in built.new()) is counts, name


# Sources that a command changed.


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_a_command_that_wrote_a_tracked_file_runs_again_when_git_changes_it(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(f"""
        image: app
        from: {base_images.busybox}
        git: [{{add: /src, to: /app}}]
        shell:
          install:
          - echo "built from $(cat /app/edited)" > /app/edited
          - rm /app/removed
          - chown -R 33:33 /app/owned
          - chmod 600 /app/owned/file
          setup: echo x > /setup
        """)
    change(project, lw, src__edited="1", src__removed="1", src__owned__file="1", src__free="1")
    assert change(project, lw, src__free="2").new() == ["gitLatestPatch"]

    for path in ("edited", "removed"):
        project.write(f"src/{path}", "2")
        project.commit()
        built = build(lw, "--log-verbose")
        assert built.new() == ["install", "setup"]
        (line,) = [line for line in built.ran.stdout.splitlines() if line.startswith("Building stage app/install")]
        assert f"app/{path}" in line, line
        assert build(lw).new() == []
    found = read_layout(export(lw)).files
    assert found["app/edited"].content == b"built from 2\n"
    assert "app/removed" not in found

    owned = change(project, lw, src__owned__file="2")
    assert owned.new() == ["gitLatestPatch"]
    entry = read_layout(export(lw)).files["app/owned/file"]
    assert (entry.content, entry.uid, entry.gid, entry.mode) == (b"2", 33, 33, 0o600)
    project.write("src/owned/file", "2", executable=True)
    project.commit()
    assert build(lw).new() == ["gitLatestPatch"]
    entry = read_layout(export(lw)).files["app/owned/file"]
    assert (entry.uid, entry.mode & 0o111 != 0) == (33, True)


# Imports.


def small_tar(contents: dict[str, bytes]) -> bytes:
    """A layer of files, with an entry for nothing else."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in contents.items():
            add_entry(tar, path, 0o644, content=content)
    return out.getvalue()


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep


def special_tar() -> bytes:
    """Everything an import must carry over besides contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, mode, owner in (("real", 0o755, 0), ("real/tree", 0o2750, 12), ("real/tree/empty", 0o1777, 0)):
            add_entry(tar, path, mode, kind=tarfile.DIRTYPE, owner=owner)
        add_entry(tar, "link", 0o777, kind=tarfile.SYMTYPE, target="real")
        add_entry(tar, "real/tree/pointer", 0o777, kind=tarfile.SYMTYPE, target="../nowhere")
        add_entry(tar, "real/tree/a", 0o640, content=b"linked", owner=7)
        add_entry(tar, "real/tree/b", 0o640, kind=tarfile.LNKTYPE, target="real/tree/a", owner=7)
        add_entry(tar, "real/tree/suid", 0o4755, content=b"s")
        info = tarfile.TarInfo("real/tree/capable")
        info.size, info.mode = 1, 0o755
        info.pax_headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"), "SCHILY.xattr.user.note": "kept"}
        tar.addfile(info, io.BytesIO(b"c"))
    return out.getvalue()


@pytest.mark.needs_root
def test_imports_carry_links_attributes_modes_and_owners_and_follow_symlinked_parents(
    project: Project, lw: CommandLine, base_images: BaseImages, tmp_path: Path
) -> None:
    source = base_images.push("conveyor/special:1", [special_tar()])
    target = base_images.push("conveyor/target:1", [linked_tar()])
    project.werf(f"""
        image: lib
        from: {source}
        ---
        image: app
        from: {target}
        import:
        - {{image: lib, add: /link/tree, to: /opt/all, before: install}}
        - {{image: lib, add: /real/tree/a, to: /shortcut/one, owner: 5, group: 6, before: setup}}
        - {{image: lib, add: /real/tree, to: /some, includePaths: [suid], after: setup}}
        """)
    project.commit()
    assert build(lw).new() == ["from", "dependenciesBeforeInstall", "dependenciesBeforeSetup", "dependenciesAfterSetup"]
    root = unpacked_by_umoci(export(lw), tmp_path / "bundle")
    seen = seen_on_disk(root)
    assert seen["opt/all"] == Seen("directory", 0o2750, 12, 12)
    assert seen["opt/all/empty"] == Seen("directory", 0o1777, 0, 0)
    assert seen["opt/all/pointer"] == Seen("symlink", 0o777, 0, 0, b"../nowhere")
    assert seen["opt/all/suid"] == Seen("file", 0o4755, 0, 0, b"s")
    assert seen["opt/all/a"] == seen["opt/all/b"] == Seen("file", 0o640, 7, 7, b"linked")
    assert (root / "opt/all/a").samefile(root / "opt/all/b")
    assert os.getxattr(root / "opt/all/capable", "security.capability") == CAPABILITY
    assert os.getxattr(root / "opt/all/capable", "user.note") == b"kept"
    assert seen["shortcut"].kind == "symlink"
    assert seen["deep/down/one"] == Seen("file", 0o640, 5, 6, b"linked")
    assert [path for path in seen if path.startswith("some/")] == ["some/suid"]
    assert seen["deep"] == Seen("directory", 0o700, 9, 9)  # as the base has it, though layers above name it
    with Podman() as podman:
        exported = podman.files(export(lw))
    assert {path: one for path, one in exported.items() if path in seen and path not in ("dev", "proc", "sys", "etc", "run")} == seen


def linked_tar() -> bytes:
    """A base whose /shortcut leads to /deep/down, which belongs to somebody."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_entry(tar, "deep", 0o700, kind=tarfile.DIRTYPE, owner=9)
        add_entry(tar, "deep/down", 0o1777, kind=tarfile.DIRTYPE, owner=9)
        add_entry(tar, "shortcut", 0o777, kind=tarfile.SYMTYPE, target="deep/down")
    return out.getvalue()


@pytest.mark.needs_root
def test_parents_of_a_new_file_keep_the_metadata_they_have_in_the_base(project: Project, lw: CommandLine, base_images: BaseImages, tmp_path: Path) -> None:
    project.werf(f"""
        image: app
        from: {base_images.busybox}
        git:
        - {{add: /src, to: /tmp/new/deep, owner: www-data, group: nogroup}}
        - {{add: /src/a, to: /var/www/html/index}}
        - {{add: /src/a, to: /bin/tool}}
        """)
    project.write("src/a", "a", executable=True)
    project.commit()
    build(lw)
    layout = export(lw)
    with Podman() as podman:
        by_podman = podman.files(layout)
    for seen in (seen_on_disk(unpacked_by_umoci(layout, tmp_path / "bundle")), by_podman):
        assert seen["tmp"] == Seen("directory", 0o1777, 0, 0)
        assert seen["tmp/new"] == Seen("directory", 0o755, 0, 0)
        assert seen["tmp/new/deep"] == Seen("directory", 0o755, 33, 65534)
        assert seen["tmp/new/deep/a"] == Seen("file", 0o755, 33, 65534, b"a")
        assert seen["var/www"] == Seen("directory", 0o755, 33, 33)
        assert seen["var/www/html/index"] == Seen("file", 0o755, 0, 0, b"a")
        assert seen["bin"] == Seen("symlink", 0o777, 0, 0, b"usr/bin")
        assert seen["usr/bin/tool"].what == b"a"
        assert seen["usr/bin/sh"].kind == "symlink"


# The image configuration.

CMD, ENTRYPOINT = "CMD: [cmd]", "ENTRYPOINT: [entry]"
FROM_BASE = {"1": (["sh"], []), "bare": ([], []), "entrypoint": ([], ["/bin/echo", "from the base"]), "both": (["world"], ["/bin/echo", "hello"])}


def test_cmd_and_entrypoint_follow_the_table(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    expected: dict[str, tuple[list[str], list[str]]] = {}
    sections = []
    for tag, kept in FROM_BASE.items():
        cases = {"": kept, CMD: (["cmd"], []), ENTRYPOINT: ([], ["entry"])} | ({f"{CMD}, {ENTRYPOINT}": (["cmd"], ["entry"])} if tag == "both" else {})
        for number, (docker, found) in enumerate(cases.items()):
            name = f"{tag}-{number}"
            expected[name] = found
            sections.append(f"image: {name}\nfrom: {base_images.variant(tag)}\n" + (f"docker: {{{docker}}}\n" if docker else ""))
    sections.append("image: empty\nfrom: scratch\n")
    expected["empty"] = ([], [])
    project.werf("---\n".join(sections))
    project.commit()
    found = {name: read_layout(export(lw, name)).settings for name in expected}
    assert {name: (meaning(one, "Cmd"), meaning(one, "Entrypoint")) for name, one in found.items()} == expected


def meaning(settings: dict[str, object] | object, key: str) -> list[str]:
    """What a container engine takes it for: absent, [] and [""] are nothing."""
    assert isinstance(settings, dict)
    value: list[str] = settings.get(key) or []
    return [] if value == [""] else value


def test_docker_and_image_spec_make_the_configuration_other_tools_read(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    base = base_images.variant("full")
    project.werf(f"""
        image: docker
        from: {base}
        git: [{{add: /src, to: /app}}]
        docker:
          ENV: {{GREETING: 'good "night"', NEW: x y}}
          LABEL: {{maintainer: somebody, own: "1"}}
          EXPOSE: ["9090", 53/udp]
          VOLUME: [/more]
          USER: 33:33
          WORKDIR: sub
          CMD: [serve, 'a "quoted" one']
          HEALTHCHECK: --interval=5s --retries=2 CMD true
        ---
        image: spec
        from: {base}
        git: [{{add: /src, to: /app}}]
        imageSpec:
          author: us
          config:
            env: {{ADDED: "${{GREETING}}!"}}
            removeEnv: [LANG]
            labels: {{own: "%project%/%image%"}}
            removeLabels: ['/org[.].*/']
            expose: ["80"]
            removeVolumes: [/data]
            volumes: [/vol]
            user: "33"
            workingDir: /srv
            stopSignal: SIGINT
            entrypoint: [/bin/start]
        """)
    project.write("src/a", "a")
    project.commit()
    docker, spec = (inspect_config(export(lw, name)) for name in ("docker", "spec"))
    one = docker["config"]
    assert one["Env"] == ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", 'GREETING=good "night"', "NEW=x y"]
    assert one["ExposedPorts"] == {"8080/tcp": {}, "9090/tcp": {}, "53/udp": {}}
    assert one["Volumes"] == {"/data": {}, "/more": {}}
    assert (one["User"], one["WorkingDir"], one["StopSignal"]) == ("33:33", "/home/sub", "SIGQUIT")
    assert (one["Cmd"], meaning(one, "Entrypoint")) == (["serve", 'a "quoted" one'], [])
    raw = read_layout(export(lw, "docker")).settings
    assert raw["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 2}
    assert one["Labels"].items() >= {"maintainer": "somebody", "own": "1", "org.example.base": "busybox"}.items()
    assert not any(name.startswith("werf") for name in one["Labels"])  # an exported image is nobody's stage
    two = spec["config"]
    assert sorted(two["Env"]) == ["ADDED=good day!", "GREETING=good day", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    assert (two["ExposedPorts"], two["Volumes"]) == ({"80/tcp": {}}, {"/vol": {}})
    assert (two["User"], two["WorkingDir"], two["StopSignal"], spec["author"]) == ("33", "/srv", "SIGINT", "us")
    assert (meaning(two, "Cmd"), two["Entrypoint"]) == ([], ["/bin/start"])
    assert two["Labels"]["own"] == "test/spec"
    assert "org.example.base" not in two["Labels"]
    assert two["Labels"]["maintainer"] == "nobody"


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_other_tools_read_a_whole_image_without_complaint(project: Project, lw: CommandLine, base_images: BaseImages, tmp_path: Path) -> None:
    project.werf(f"""
        image: app
        from: {base_images.busybox}
        git: [{{add: /src, to: /app}}]
        shell: {{install: [mkdir -p /made/empty, rm /app/b, rm -r /var/www, ln -s app /alias]}}
        imageSpec: {{config: {{user: "33"}}}}
        """)
    change(project, lw, src__a="1", src__b="1", src__d__e="1")
    project.remove("src/d")
    change(project, lw, src__a="2")
    layout = export(lw)
    whole = inspect_config(layout)
    layers = whole["rootfs"]["diff_ids"]
    assert len(inspect(layout)["Layers"]) == len(layers) == 4
    assert sum(not line.get("empty_layer", False) for line in whole["history"]) == len(layers)
    assert [line["created_by"] for line in whole["history"] if "layerwright" in line.get("created_by", "")]
    by_umoci = seen_on_disk(unpacked_by_umoci(layout, tmp_path / "bundle"))
    with Podman() as podman:
        by_podman = podman.files(layout)
        (listed,) = json.loads(podman("image", "inspect", podman.pull(layout)))
    assert listed["Config"]["User"] == "33"
    assert [f"{one}" for one in listed["RootFS"]["Layers"]] == layers
    for seen in (by_umoci, by_podman):
        assert seen["app/a"].what == b"2"
        assert seen["made/empty"].kind == "directory"
        assert seen["alias"] == Seen("symlink", 0o777, 0, 0, b"app")
        assert not {"app/b", "app/d", "app/d/e", "var/www"} & set(seen)
    mine = {
        path: (one.kind, one.mode if one.kind != "symlink" else 0o777, one.uid, one.gid, one.content or one.link.encode()) for path, one in whole_files(layout)
    }
    assert by_umoci.items() >= {path: Seen(*one) for path, one in mine.items()}.items()


def whole_files(layout: Path) -> list[tuple[str, object]]:
    exported: Exported = read_layout(layout)
    return [(path, one) for path, one in exported.files.items() if one.kind != "other"]


# Several images.


def test_images_are_built_in_the_order_they_need_each_other(project: Project, lw: CommandLine) -> None:
    project.werf("""
        image: top
        from: middle
        git: [{add: /src, to: /top}]
        ---
        image: middle
        from: scratch
        import: [{image: bottom, add: /bottom, to: /middle, after: install}]
        ---
        image: bottom
        from: scratch
        git: [{add: /src, to: /bottom}]
        """)
    project.write("src/a", "1")
    project.commit()
    built = build(lw)
    started = [line.split()[2].partition("/")[0] for line in built.ran.stdout.splitlines() if line.startswith("Building stage")]
    assert list(dict.fromkeys(started)) == ["bottom", "middle", "top"]
    assert files(lw, "top") == {"middle/a": b"1", "top/a": b"1"}
    assert change(project, lw, src__a="2").content("top") != built.content("top")
    assert files(lw, "top") == {"middle/a": b"2", "top/a": b"2"}


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_independent_images_are_built_at_once_and_a_stage_they_share_once(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    wait = "i=0; until [ -e /meet/{other} ]; do i=$((i+1)); [ $i -lt 600 ]; sleep 0.05; done"
    section = """
image: {name}
from: {base}
mount: [{{from: build_dir, to: /meet}}]
shell:
  beforeInstall: echo once >> /meet/shared; sleep 0.3
  install: ["touch /meet/{name}", "{wait}"]
"""
    texts = [section.format(name=name, base=base_images.busybox, wait=wait.format(other=other)) for name, other in (("a", "b"), ("b", "a"))]
    project.werf("---".join(texts))
    project.commit()
    built = build(lw, "--parallel", "2", "--loose-giterminism")
    assert sorted(built.new("a") + built.new("b")) == ["beforeInstall", "from", "install", "install"]
    (shared,) = lw.home.glob("mounts/**/shared")
    assert shared.read_text() == "once\n"
