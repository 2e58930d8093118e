from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from layerwright.errors import MachineLacks, UsageError
from layerwright.git.discover import NoCommit, NoGitWorkTree, ProjectOutsideWorkTree
from layerwright.git.repo import open_repo
from tests.git.repositories import ENV, Repositories
from tests.support.project import FIRST_COMMIT_S, Project


@pytest.fixture
def project(repositories: Repositories) -> Project:
    project = repositories.new()
    project.write("apps/one/werf.yaml", "x")
    project.commit()
    return project


def test_head_is_the_commit_with_its_tree_and_time(project: Project) -> None:
    with open_repo(str(project.path), env=ENV) as repo:
        head = repo.head()
    assert (head.id, head.tree, head.time_s, head.zone_minutes) == (project.head(), project.git("rev-parse", "HEAD^{tree}"), FIRST_COMMIT_S, 0)


@pytest.mark.parametrize(("directory", "prefix"), [(".", b""), ("apps", b"apps"), ("apps/one", b"apps/one")])
def test_the_work_tree_is_found_upwards(project: Project, directory: str, prefix: bytes) -> None:
    with open_repo(str(project.path / directory), env=ENV) as repo:
        assert (repo.work_tree, repo.prefix) == (str(project.path), prefix)


def test_a_relative_directory_and_a_symlink_to_the_project_are_followed(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(project.path / "apps")
    monkeypatch.chdir(tmp_path)
    with open_repo("link/one", env=ENV) as repo:
        assert (repo.work_tree, repo.prefix) == (str(project.path), b"apps/one")


def test_a_directory_name_that_is_not_utf8(repositories: Repositories) -> None:
    name = os.fsdecode(b"caf\xe9 \n x")
    project = repositories.new(name)
    (project.path / name).mkdir()
    project.write(f"{name}/a", "1")
    project.commit()
    with open_repo(str(project.path / name), env=ENV) as repo:
        assert repo.prefix == b"caf\xe9 \n x"
        assert [entry.path for entry in repo.list_tree(repo.head().id)] == [b"caf\xe9 \n x/a"]
        with repo.start_status() as status:
            assert status.paths(60) == ()


def test_a_named_work_tree_is_taken(project: Project) -> None:
    with open_repo(str(project.path / "apps"), work_tree=str(project.path), env=ENV) as repo:
        assert (repo.work_tree, repo.prefix) == (str(project.path), b"apps")


def test_a_git_entry_that_git_does_not_accept_is_passed_over(project: Project) -> None:
    (project.path / "apps" / ".git").mkdir()
    (project.path / "apps" / "one" / ".git").write_text("gitdir: /nowhere\n")
    with open_repo(str(project.path / "apps" / "one"), env=ENV) as repo:
        assert repo.work_tree == str(project.path)


def mended(error: UsageError) -> str:
    assert error.exit_code == 2
    return error.mend


def test_no_repository_is_told_with_both_options(tmp_path: Path) -> None:
    with pytest.raises(NoGitWorkTree) as caught:
        open_repo(str(tmp_path), env=ENV)
    assert "--git-work-tree" in mended(caught.value)
    assert "--dir" in caught.value.mend


def test_a_linked_work_tree_whose_repository_is_gone_says_what_git_looked_for(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /gone/.git/worktrees/x\n")
    with pytest.raises(NoGitWorkTree, match=r"/gone/\.git/worktrees/x"):
        open_repo(str(tmp_path), env=ENV)


def test_a_named_directory_that_is_no_work_tree(project: Project) -> None:
    with pytest.raises(NoGitWorkTree) as caught:
        open_repo(str(project.path / "apps" / "one"), work_tree=str(project.path / "apps"), env=ENV)
    assert "--git-work-tree" in mended(caught.value)


def test_a_named_work_tree_that_does_not_exist(project: Project) -> None:
    with pytest.raises(NoGitWorkTree) as caught:
        open_repo(str(project.path), work_tree=str(project.path / "gone"), env=ENV)
    assert "--git-work-tree" in mended(caught.value)


def test_a_project_outside_of_the_named_work_tree(project: Project, tmp_path: Path) -> None:
    (tmp_path / "project-2").mkdir()
    with pytest.raises(ProjectOutsideWorkTree) as caught:
        open_repo(str(tmp_path / "project-2"), work_tree=str(project.path), env=ENV)
    assert "--git-work-tree" in mended(caught.value)
    assert "--dir" in caught.value.mend


def test_a_project_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        open_repo(str(tmp_path / "gone"), env=ENV)
    assert "--dir" in mended(caught.value)


def test_a_repository_without_commits(repositories: Repositories) -> None:
    with pytest.raises(NoCommit, match="no commit yet") as caught:
        open_repo(str(repositories.new().path), env=ENV)
    assert "git commit" in mended(caught.value)


def test_a_head_whose_commit_is_not_there(project: Project) -> None:
    (project.path / ".git" / "HEAD").write_text("1" * 40 + "\n")
    with pytest.raises(NoCommit, match="1111"):
        open_repo(str(project.path), env=ENV)


def test_a_repository_that_git_cannot_read_says_what_git_says(project: Project) -> None:
    project.git("config", "core.repositoryformatversion", "99")
    with pytest.raises(UsageError, match="99"):
        open_repo(str(project.path), env=ENV)


def test_a_missing_git_names_the_package(project: Project, tmp_path: Path) -> None:
    with pytest.raises(MachineLacks) as caught:
        open_repo(str(project.path), env={"PATH": str(tmp_path)})
    assert caught.value.exit_code == 3
    assert "apt-get install git" in caught.value.mend


def test_a_git_too_old_says_which_is_needed(project: Project, tmp_path: Path) -> None:
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text(
        '#!/bin/sh\ncase " $* " in *" version "*) echo git version 2.30.2; exit 0;; esac\necho "error: unknown option batch-command" >&2; exit 129\n'
    )
    old.chmod(0o755)
    with pytest.raises(MachineLacks, match=r"2\.30\.2") as caught:
        open_repo(str(project.path), env={**ENV, "PATH": f"{old.parent}:{ENV['PATH']}"})
    assert "2.36" in caught.value.mend


def test_variables_that_point_git_elsewhere_are_not_followed(project: Project, repositories: Repositories) -> None:
    other = repositories.new("other")
    other.commit()
    misleading = {
        "GIT_DIR": str(other.path / ".git"),
        "GIT_WORK_TREE": str(other.path),
        "GIT_INDEX_FILE": str(other.path / "none"),
        "GIT_OBJECT_DIRECTORY": str(other.path / ".git/objects"),
        "GIT_CEILING_DIRECTORIES": str(project.path),
        "GIT_NAMESPACE": "x",
        "LC_ALL": "de_DE.UTF-8",
    }
    with open_repo(str(project.path / "apps"), env={**ENV, **misleading}) as repo, repo.start_status() as status:
        assert repo.head().id == project.head()
        assert status.paths(60) == ()


def test_objects_are_what_their_ids_say_even_where_the_clone_replaces_some(project: Project) -> None:
    real = project.head()
    project.write("apps/one/werf.yaml", "other")
    other = project.commit()
    project.git("reset", "--quiet", "--hard", real)
    project.git("replace", real, other)
    with open_repo(str(project.path), env=ENV) as repo:
        assert repo.read_file(repo.head().id, b"apps/one/werf.yaml") == b"x"


def test_head_stays_the_commit_of_the_opening(project: Project) -> None:
    first = project.head()
    with open_repo(str(project.path), env=ENV) as repo:
        project.write("new", "x")
        second = project.commit()
        assert repo.head().id == first
        assert second != first
        found = repo.find_commit(second)
        assert found is not None
        assert found.id == second


@pytest.mark.needs_root
def test_a_repository_of_another_user_is_read(project: Project) -> None:
    for directory, names, files in os.walk(project.path):
        for name in [".", *names, *files]:
            os.chown(os.path.join(directory, name), 12345, 12345)
    with open_repo(str(project.path), env=ENV) as repo, repo.start_status() as status:
        assert len(repo.list_tree(repo.head().id)) == 1
        assert status.paths(60) == ()


def test_a_linked_work_tree_has_its_own_head(project: Project, tmp_path: Path) -> None:
    project.write("new", "x")
    second = project.commit()
    project.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"), "HEAD~1")
    with open_repo(str(tmp_path / "linked" / "apps"), env=ENV) as repo, repo.start_status() as status:
        assert (repo.work_tree, repo.prefix) == (str(tmp_path / "linked"), b"apps")
        assert repo.head().id != second
        assert repo.has_commit(found.id if (found := repo.find_commit(second)) else repo.head().id)
        assert status.paths(60) == ()


def test_a_linked_work_tree_of_a_bare_repository(project: Project, repositories: Repositories, tmp_path: Path) -> None:
    repositories.run("clone", "--quiet", "--bare", str(project.path), str(tmp_path / "bare.git"))
    repositories.run("-C", str(tmp_path / "bare.git"), "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    with open_repo(str(tmp_path / "linked"), env=ENV) as repo, repo.start_status() as status:
        assert repo.head().id == project.head()
        assert status.paths(60) == ()


def test_a_bare_repository_is_no_work_tree(project: Project, repositories: Repositories, tmp_path: Path) -> None:
    repositories.run("clone", "--quiet", "--bare", str(project.path), str(tmp_path / "bare.git"))
    with pytest.raises(NoGitWorkTree):
        open_repo(str(tmp_path / "bare.git"), env=ENV)


def test_a_project_that_is_itself_a_submodule(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    with open_repo(str(project.path / "lib"), env=ENV) as repo, repo.start_status() as status:
        assert repo.work_tree == str(project.path / "lib")
        assert [entry.path for entry in repo.list_tree(repo.head().id)] == [b".gitmodules", b"deep/file.txt", b"file.txt"]
        assert status.paths(60) == ()


def test_opening_and_reading_head_takes_one_git_process(project: Project, tmp_path: Path) -> None:
    counting = tmp_path / "bin" / "git"
    counting.parent.mkdir()
    counting.write_text(f'#!/bin/sh\necho x >> {tmp_path}/count\nexec {shutil.which("git")} "$@"\n')
    counting.chmod(0o755)
    with open_repo(str(project.path), env={**ENV, "PATH": f"{counting.parent}:{ENV['PATH']}"}) as repo:
        repo.head()
        assert repo.read_file(repo.head().id, b"apps/one/werf.yaml") == b"x"
    assert (tmp_path / "count").read_text() == "x\n"
