from __future__ import annotations

import pytest

from layerwright.errors import MachineLacks
from layerwright.git.repo import open_repo
from tests.git.repositories import ENV, Repositories
from tests.support.project import Project


def lfs(project: Project, *, env: dict[str, str] | None = None) -> tuple[bytes, ...]:
    with open_repo(str(project.path), env=env or ENV) as repo:
        return repo.lfs_paths(repo.head().id, repo.list_tree(repo.head().id))


def test_paths_of_lfs_are_found_by_the_committed_attributes(repositories: Repositories) -> None:
    project = repositories.new()
    project.write(".gitattributes", "[attr]large filter=lfs diff=lfs -text\n*.bin large\n/docs/** filter=other\nsmall.bin !filter\n")
    project.write("sub/.gitattributes", "*.txt filter=lfs\nno.bin -filter\n")
    for name in ("a.bin", "deep/er/new\nline.bin", "small.bin", "sub/a.txt", "sub/no.bin", "a.txt", "docs/x.bin", "docs/y"):
        project.write(name, "x")
    project.commit()
    assert lfs(project) == (b"a.bin", b"deep/er/new\nline.bin", b"sub/a.txt")


def test_the_commit_counts_and_not_the_work_tree_the_clone_or_the_user(repositories: Repositories) -> None:
    project = repositories.new()
    project.write(".gitattributes", "*.bin filter=lfs\n")
    project.write("a.bin", "x")
    project.write("b.txt", "x")
    project.commit()
    project.write(".gitattributes", "*.txt filter=lfs\n")
    project.git("add", ".gitattributes")
    project.write(".git/info/attributes", "*.bin -filter\n*.txt filter=lfs\n")
    project.write("../user-attributes", "* filter=lfs\n")
    project.write("../user-config", f"[core]\n\tattributesFile = {project.path.parent}/user-attributes\n")
    assert lfs(project, env={**ENV, "GIT_CONFIG_GLOBAL": str(project.path.parent / "user-config")}) == (b"a.bin",)


def test_only_the_entries_asked_about_are_answered(repositories: Repositories) -> None:
    project = repositories.new()
    project.write(".gitattributes", "*.bin filter=lfs\n")
    project.write("a/x.bin", "x")
    project.write("b/x.bin", "x")
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo:
        assert repo.lfs_paths(repo.head().id, repo.list_tree(repo.head().id, b"b")) == (b"b/x.bin",)


def test_a_repository_without_filters_starts_no_git_for_it(repositories: Repositories) -> None:
    project = repositories.new()
    project.write(".gitattributes", "*.bin binary\n")
    project.write("x.bin", "x")
    project.commit()
    with open_repo(str(project.path), env={**ENV, "TMPDIR": "/nowhere"}) as repo:
        assert repo.lfs_paths(repo.head().id, repo.list_tree(repo.head().id)) == ()


def test_a_submodule_has_attributes_of_its_own(repositories: Repositories) -> None:
    library = repositories.new("library")
    library.write(".gitattributes", "/top.bin filter=lfs\n")
    library.write("top.bin", "x")
    library.write("sub/top.bin", "x")
    library.commit()
    project = repositories.new()
    project.write(".gitattributes", "*.txt filter=lfs\n")
    project.write("a.txt", "x")
    project.write("top.bin", "x")
    project.git("submodule", "--quiet", "add", f"file://{library.path}", "lib")
    project.commit()
    assert lfs(project) == (b"a.txt", b"lib/top.bin")


def test_nothing_temporary_is_left(repositories: Repositories) -> None:
    project = repositories.new()
    project.write(".gitattributes", "*.bin filter=lfs\n")
    project.write("x.bin", "x")
    project.commit()
    temporary = project.path.parent / "tmp"
    temporary.mkdir()
    assert lfs(project, env={**ENV, "TMPDIR": str(temporary)}) == (b"x.bin",)
    assert list(temporary.iterdir()) == []


def test_a_temporary_directory_that_cannot_be_made_names_the_variable(repositories: Repositories) -> None:
    project = repositories.new()
    project.write(".gitattributes", "*.bin filter=lfs\n")
    project.commit()
    with pytest.raises(MachineLacks) as caught:
        lfs(project, env={**ENV, "TMPDIR": "/nowhere"})
    assert "TMPDIR" in caught.value.mend
