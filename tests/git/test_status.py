from __future__ import annotations

import os
import time

import pytest

from layerwright.git.repo import open_repo
from layerwright.git.status import Difference, parse_status
from tests.git.repositories import ENV, Repositories
from tests.support.project import Project

HASHES = b"100644 100644 100644 " + b"1" * 40 + b" " + b"2" * 40 + b" "


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"", []),
        (b"# branch.oid abc\0! ignored\0", []),
        (b"? new file\0", [Difference(b"new file")]),
        (b"1 .M N... " + HASHES + b"a b\nc \xff\0", [Difference(b"a b\nc \xff")]),
        (b"2 R. N... " + HASHES + b"R100 now here\0was there\0? x\0", [Difference(b"now here"), Difference(b"was there"), Difference(b"x")]),
        (b"u UU N... 100644 " + HASHES + b"3" * 40 + b" both sides\0", [Difference(b"both sides")]),
        (b"1 .M SC.. " + HASHES + b"sub\0", [Difference(b"sub")]),
        (b"1 .M S.M. " + HASHES + b"sub\0", [Difference(b"sub", inside=True)]),
        (b"1 .M SCMU " + HASHES + b"sub\0", [Difference(b"sub", inside=True), Difference(b"sub")]),
        (b"1 A. S... " + HASHES + b"sub\0", [Difference(b"sub")]),
    ],
)
def test_what_git_status_says_is_read(output: bytes, expected: list[Difference]) -> None:
    assert list(parse_status(output)) == expected


def paths(project: Project) -> tuple[bytes, ...] | None:
    with open_repo(str(project.path), env=ENV) as repo, repo.start_status() as status:
        found = status.paths(60)
        assert status.failure is None
        return found


def test_a_clean_work_tree_has_no_differences(repositories: Repositories) -> None:
    project = repositories.new()
    project.write("a", "1")
    project.commit()
    assert paths(project) == ()


def test_changed_deleted_staged_and_untracked_paths_differ_and_ignored_ones_do_not(repositories: Repositories) -> None:
    project = repositories.new()
    for name in ("changed", "deleted", "same", "mode", "moved"):
        project.write(name, name)
    project.write(".gitignore", "*.log\n")
    project.commit()
    project.write("changed", "other")
    (project.path / "deleted").unlink()
    project.write("staged", "x")
    project.git("add", "staged")
    project.git("mv", "moved", "elsewhere")
    project.write("mode", "mode", executable=True)
    project.write("new/dir/file name", "x")
    project.write("new/dir/other\nname", "x")
    project.write("noise.log", "x")
    assert paths(project) == (b"changed", b"deleted", b"elsewhere", b"mode", b"moved", b"new/dir/file name", b"new/dir/other\nname", b"staged")


def test_users_settings_do_not_change_the_answer(repositories: Repositories) -> None:
    project = repositories.new()
    project.write("sub/a", "1")
    project.commit()
    for setting in ("status.showUntrackedFiles=no", "status.relativePaths=true", "status.branch=true", "status.showStash=true", "core.quotePath=true"):
        project.git("config", *setting.split("="))
    project.write("sub/ü", "2")
    with open_repo(str(project.path / "sub"), env=ENV) as repo, repo.start_status() as status:
        assert status.paths(60) == ("sub/ü".encode(),)


def test_thirty_thousand_untracked_files_neither_block_nor_deadlock(repositories: Repositories) -> None:
    project = repositories.new()
    project.commit()
    directory = project.path / ("long-directory-name-" * 4)
    directory.mkdir()
    for number in range(30_000):
        os.close(os.open(directory / f"{number:06d}", os.O_CREAT | os.O_WRONLY))
    with open_repo(str(project.path), env=ENV) as repo, repo.start_status() as status:
        found = status.paths(120)
        assert found is not None
        assert len(found) == 30_000


def test_it_says_none_when_time_is_up_and_the_answer_can_be_asked_for_again(repositories: Repositories, tmp_path_factory: pytest.TempPathFactory) -> None:
    project = repositories.new()
    project.commit()
    project.write("new", "x")
    slow = tmp_path_factory.mktemp("slow") / "git"
    slow.write_text(f'#!/bin/sh\ncase " $* " in *" status "*) sleep 0.5;; esac\nexec {repositories.git_program} "$@"\n')
    slow.chmod(0o755)
    with open_repo(str(project.path), env={**ENV, "PATH": f"{slow.parent}:{ENV['PATH']}"}) as repo, repo.start_status() as status:
        began = time.monotonic()
        assert status.paths(0.01) is None
        assert time.monotonic() - began < 0.4
        assert status.paths(60) == (b"new",)
        assert status.paths(0) == (b"new",)


def test_closing_ends_a_status_that_still_runs(repositories: Repositories, tmp_path_factory: pytest.TempPathFactory) -> None:
    project = repositories.new()
    project.commit()
    slow = tmp_path_factory.mktemp("slow") / "git"
    slow.write_text(f'#!/bin/sh\ncase " $* " in *" status "*) exec sleep 600;; esac\nexec {repositories.git_program} "$@"\n')
    slow.chmod(0o755)
    with open_repo(str(project.path), env={**ENV, "PATH": f"{slow.parent}:{ENV['PATH']}"}) as repo:
        status = repo.start_status()
        began = time.monotonic()
        status.close()
        assert time.monotonic() - began < 30


def test_a_status_that_fails_says_why(repositories: Repositories) -> None:
    project = repositories.new()
    project.write("a", "1")
    project.commit()
    (project.path / ".git" / "index").write_bytes(b"not an index")
    with open_repo(str(project.path), env=ENV) as repo, repo.start_status() as status:
        assert status.paths(60) is None
        assert status.failure is not None
        assert "index" in status.failure.what


def test_the_index_is_not_written(repositories: Repositories) -> None:
    project = repositories.new()
    project.write("a", "1")
    project.commit()
    index = project.path / ".git" / "index"
    os.utime(project.path / "a", (1, 1))
    before = index.read_bytes()
    assert paths(project) == ()
    assert index.read_bytes() == before


def test_submodules_are_looked_into_nested_ones_too(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    assert paths(project) == ()
    (project.path / "lib" / "changed.txt").write_text("new")
    (project.path / "lib" / "deep" / "file.txt").write_text("other")
    assert paths(project) == (b"lib/changed.txt", b"lib/deep/file.txt")


def test_a_submodule_at_another_commit_than_recorded_is_one_path(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    inside = Project(project.path / "lib", commits=9)
    inside.write("more", "x")
    inside.commit()
    assert paths(project) == (b"lib",)


def test_ignore_settings_of_submodules_hide_nothing(repositories: Repositories) -> None:
    project, _, _ = repositories.with_nested_submodule()
    project.git("config", "submodule.lib.ignore", "all")
    project.git("config", "diff.ignoreSubmodules", "all")
    (project.path / "lib" / "file.txt").write_text("other")
    assert paths(project) == (b"lib/file.txt",)
