from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from layerwright.errors import UsageError
from layerwright.git.repo import Repo, open_repo
from layerwright.git.submodules import SubmoduleAbsent
from layerwright.git.values import CommitId
from tests.git.repositories import ENV, Repositories
from tests.support.project import Project

FILES = {
    b".gitmodules": None,
    b"lib-x/file": b"beside",
    b"lib.txt": b"beside",
    b"lib/.gitmodules": None,
    b"lib/deep/file.txt": b"nested one",
    b"lib/file.txt": b"library one",
}


def contents(repo: Repo, commit: CommitId | None = None) -> dict[bytes, bytes]:
    return {entry.path: content for entry, content in repo.read_blobs(repo.list_tree(commit or repo.head().id))}


def assert_whole(path: Path) -> None:
    with open_repo(str(path), env=ENV) as repo:
        read = contents(repo)
        assert list(read) == sorted(FILES)
        assert all(content is None or read[name] == content for name, content in FILES.items())
        assert repo.read_file(repo.head().id, b"lib/deep/file.txt") == b"nested one"


def test_the_files_of_submodules_are_listed_and_read_nested_ones_too(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    assert_whole(project.path)
    with open_repo(str(project.path), env=ENV) as repo:
        repositories_of = {entry.path: entry.repository for entry in repo.list_tree(repo.head().id)}
        assert repositories_of[b"lib.txt"] == b""
        assert repositories_of[b"lib/file.txt"] == b"lib"
        assert repositories_of[b"lib/deep/file.txt"] == b"lib/deep"


def test_the_recorded_commit_counts_and_not_what_is_checked_out(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    inside = Project(project.path / "lib", commits=5)
    inside.write("file.txt", "newer")
    inside.commit()
    (project.path / "lib" / "deep" / "file.txt").write_text("changed")
    assert_whole(project.path)


@pytest.mark.parametrize(
    ("scope", "paths"),
    [
        (b"lib", [b"lib/.gitmodules", b"lib/deep/file.txt", b"lib/file.txt"]),
        (b"lib/deep", [b"lib/deep/file.txt"]),
        (b"lib/deep/file.txt", [b"lib/deep/file.txt"]),
        (b"lib/none", []),
        (b"lib-x", [b"lib-x/file"]),
    ],
)
def test_a_scope_may_lie_in_a_submodule(repositories: Repositories, scope: bytes, paths: list[bytes]) -> None:
    project, _, _ = repositories.with_nested_submodule()
    with open_repo(str(project.path), env=ENV) as repo:
        entries = repo.list_tree(repo.head().id, scope)
        assert [entry.path for entry in entries] == paths
        assert len(repo.blob_sizes(entries)) == len(paths)
        assert repo.is_directory(repo.head().id, b"lib") is True


def test_entries_kept_from_elsewhere_are_read_without_a_listing(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    with open_repo(str(project.path), env=ENV) as repo:
        entries = repo.list_tree(repo.head().id, b"lib/deep")
    with open_repo(str(project.path), env=ENV) as repo:
        assert [content for _, content in repo.read_blobs(entries)] == [b"nested one"]


def test_a_name_other_than_the_path_and_a_path_with_spaces(repositories: Repositories) -> None:
    library = repositories.new("library")
    library.write("file", "x")
    library.commit()
    project = repositories.new()
    project.git("submodule", "--quiet", "add", "--name", "group/na me", f"file://{library.path}", "some dir/lïb")
    project.commit()
    shutil.rmtree(project.path / "some dir")
    with open_repo(str(project.path), env=ENV) as repo:
        assert contents(repo)["some dir/lïb/file".encode()] == b"x"


def test_a_submodule_not_checked_out_is_read_from_the_git_directory(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    shutil.rmtree(project.path / "lib")
    assert_whole(project.path)


def test_a_submodule_with_a_git_directory_of_its_own(repositories: Repositories) -> None:
    """As old versions of git left them, and as `git submodule add` of a repository that is already there does."""
    project, _, _ = repositories.with_nested_submodule()
    dot_git = project.path / "lib" / ".git"
    kept = project.path / ".git" / "modules" / "lib"
    dot_git.unlink()
    shutil.move(kept, dot_git)
    shutil.rmtree(project.path / "lib" / "deep")
    repositories.run("config", "--file", str(dot_git / "config"), "--unset", "core.worktree")
    assert_whole(project.path)


@pytest.mark.parametrize("initialise", [True, False])
def test_a_linked_work_tree_reads_its_submodules_or_those_of_the_main_one(repositories: Repositories, tmp_path: Path, initialise: bool) -> None:
    project, _, _ = repositories.with_nested_submodule()
    project.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    if initialise:
        linked = Project(tmp_path / "linked")
        linked.git("submodule", "--quiet", "update", "--init", "--recursive")
        shutil.rmtree(project.path / "lib")
        shutil.rmtree(project.path / ".git" / "modules")
    assert_whole(tmp_path / "linked")


def test_the_main_work_tree_reads_submodules_initialised_in_a_linked_one(repositories: Repositories, tmp_path: Path) -> None:
    project, _, _ = repositories.with_nested_submodule()
    plain = repositories.clone(project, "plain")
    plain.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    Project(tmp_path / "linked").git("submodule", "--quiet", "update", "--init", "--recursive")
    assert_whole(plain.path)


def test_a_submodule_not_initialised_is_an_error_with_the_command(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    plain = repositories.clone(project, "plain")
    with open_repo(str(plain.path), env=ENV) as repo:
        with pytest.raises(SubmoduleAbsent, match="'lib' is not initialised") as caught:
            repo.list_tree(repo.head().id)
        assert isinstance(caught.value, UsageError)
        assert f"git -C {plain.path} submodule update --init --recursive -- lib" in caught.value.mend
        assert repo.read_file(repo.head().id, b"lib.txt") == b"beside"
        assert [entry.path for entry in repo.list_tree(repo.head().id, b"lib-x")] == [b"lib-x/file"]
    plain.git("submodule", "--quiet", "update", "--init")
    with open_repo(str(plain.path), env=ENV) as repo, pytest.raises(SubmoduleAbsent, match="'lib/deep'") as caught:
        repo.list_tree(repo.head().id)
    assert f"git -C {plain.path}/lib submodule update --init --recursive -- deep" in caught.value.mend
    plain.git("submodule", "--quiet", "update", "--init", "--recursive")
    assert_whole(plain.path)


def test_a_submodule_that_is_left_out_need_not_be_there(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    plain = repositories.clone(project, "plain")
    with open_repo(str(plain.path), env=ENV) as repo:
        listed = repo.list_tree(repo.head().id, skip=lambda path: path == b"lib")
        assert [entry.path for entry in listed] == [b".gitmodules", b"lib-x/file", b"lib.txt"]
        assert repo.lfs_paths(repo.head().id, listed) == ()


def test_a_recorded_commit_that_is_not_there_is_an_error_with_the_command(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    project.git("update-index", "--cacheinfo", f"160000,{'1' * 40},lib")
    project.git("commit", "--quiet", "-m", "x")
    with open_repo(str(project.path), env=ENV) as repo, pytest.raises(SubmoduleAbsent, match="does not have the recorded commit 1111") as caught:
        repo.list_tree(repo.head().id)
    assert "submodule update --init" in caught.value.mend
    assert "push" in caught.value.mend
    assert (caught.value.path, caught.value.commit) == (b"lib", "1" * 40)


def test_a_repository_added_without_gitmodules_is_an_error(repositories: Repositories) -> None:
    project = repositories.new()
    inner = Project(project.path / "inner")
    inner.write("a", "1")
    inner.commit()
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo, pytest.raises(SubmoduleAbsent, match=r"\.gitmodules does not name it") as caught:
        repo.list_tree(repo.head().id)
    assert "git rm --cached inner" in caught.value.mend


def test_a_name_in_gitmodules_does_not_lead_out_of_the_git_directory(repositories: Repositories) -> None:
    outside = repositories.new("outside")
    outside.write("secret", "x")
    commit = outside.commit()
    project = repositories.new()
    project.write(".gitmodules", '[submodule "../../../outside/.git"]\n\tpath = sub\n\turl = x\n')
    project.git("add", ".gitmodules")
    project.git("update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    project.git("commit", "--quiet", "-m", "x")
    (project.path / ".git" / "modules").mkdir()
    with open_repo(str(project.path), env=ENV) as repo, pytest.raises(SubmoduleAbsent):
        repo.list_tree(repo.head().id)


def test_changes_inside_submodules_are_paths(repositories: Repositories) -> None:
    project, library, nested = repositories.with_nested_submodule()
    old = CommitId(project.head())
    nested.write("file.txt", "nested two")
    nested.write("added", "x")
    nested.commit()
    Project(library.path / "deep").git("pull", "--quiet")
    library.write("other", "x")
    library.commit()
    project.git("submodule", "--quiet", "update", "--remote", "--recursive", "lib")
    project.git("-C", "lib", "submodule", "--quiet", "update")
    project.git("config", "-f", ".gitmodules", "submodule.lib.ignore", "all")
    project.git("config", "submodule.lib.ignore", "none")
    new = CommitId(project.commit())
    project.git("config", "submodule.lib.ignore", "all")
    with open_repo(str(project.path), env=ENV) as repo:
        changes = repo.changed_paths(old, new)
        assert [path for path, _, _ in changes] == [b".gitmodules", b"lib/deep/added", b"lib/deep/file.txt", b"lib/other"]
        before, after = contents(repo, old), contents(repo, new)
        assert (before[b"lib/deep/file.txt"], after[b"lib/deep/file.txt"]) == (b"nested one", b"nested two")
        for path, one, other in changes:
            assert [content for _, content in repo.read_blobs([one] if one else [])] == ([before[path]] if path in before else [])
            assert [content for _, content in repo.read_blobs([other] if other else [])] == ([after[path]] if path in after else [])


def test_a_directory_that_becomes_a_submodule_differs_only_where_its_files_do(repositories: Repositories) -> None:
    library = repositories.new("library")
    for name in ("same", "changed", "only-there"):
        library.write(name, f"{name} 2" if name == "changed" else name)
    library.commit()
    project = repositories.new()
    for name in ("same", "changed", "only-here"):
        project.write(f"lib/{name}", name)
    project.write("file", "x")
    old = CommitId(project.commit())
    project.remove("lib")
    project.remove("file")
    project.git("submodule", "--quiet", "add", f"file://{library.path}", "lib")
    project.git("submodule", "--quiet", "add", f"file://{library.path}", "file")
    new = CommitId(project.commit())
    with open_repo(str(project.path), env=ENV) as repo:
        changes = {path: (one is not None, other is not None) for path, one, other in repo.changed_paths(old, new)}
    assert changes == {
        b".gitmodules": (False, True),
        b"file": (True, False),
        b"file/changed": (False, True),
        b"file/only-there": (False, True),
        b"file/same": (False, True),
        b"lib/changed": (True, True),
        b"lib/only-here": (True, False),
        b"lib/only-there": (False, True),
    }


def test_two_submodules_in_turn_at_one_path_are_both_read(repositories: Repositories) -> None:
    libraries = [repositories.new("one"), repositories.new("two")]
    for library in libraries:
        library.write("file", library.path.name)
        library.write("same", "same")
        library.commit()
    project = repositories.new()
    commits: list[CommitId] = []
    for library in libraries:
        if commits:
            project.remove("lib")
        project.git("submodule", "--quiet", "add", "--name", library.path.name, f"file://{library.path}", "lib")
        commits.append(CommitId(project.commit()))
    with open_repo(str(project.path), env=ENV) as repo:
        assert [path for path, _, _ in repo.changed_paths(*commits)] == [b".gitmodules", b"lib/file"]
        assert [contents(repo, commit)[b"lib/file"] for commit in commits] == [b"one", b"two"]
        assert repo.read_file(commits[0], b"lib/file") == b"one"


def test_a_symlink_may_lead_into_a_submodule_and_out_of_it_into_the_project(repositories: Repositories) -> None:
    project, library, _ = repositories.with_nested_submodule()
    project.link("into", "lib/deep/file.txt")
    library.link("up", "../lib.txt")
    library.commit()
    project.git("submodule", "--quiet", "update", "--remote", "lib")
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo:
        assert repo.read_file(repo.head().id, b"into") == b"nested one"
        assert repo.read_file(repo.head().id, b"lib/up") == b"beside"
