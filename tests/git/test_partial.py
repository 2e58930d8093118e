from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from layerwright.git.objects import ObjectMissing
from layerwright.git.program import GitFailed
from layerwright.git.repo import open_repo
from layerwright.git.values import CommitId
from tests.git.repositories import ENV, Repositories
from tests.support.project import Project


@pytest.fixture
def clone(repositories: Repositories) -> Project:
    """A clone without blobs, nothing checked out."""
    project = repositories.new("origin")
    project.git("config", "uploadpack.allowFilter", "true")
    project.git("config", "uploadpack.allowAnySHA1InWant", "true")
    for number in range(30):
        project.write(f"dir/{number}", f"content {number}")
    project.write("werf.yaml", "x")
    project.write(".gitattributes", "*.bin filter=lfs\n")
    project.commit()
    return repositories.clone(project, "partial", "--filter=blob:none", "--no-checkout")


def counting(directory: Path) -> dict[str, str]:
    """An environment whose git writes down each `fetch` that it or we start."""
    program = directory / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncase " $* " in *" fetch "*) echo x >> {directory}/fetches;; esac\nexec {shutil.which("git")} "$@"\n')
    program.chmod(0o755)
    return {**ENV, "PATH": f"{program.parent}:{ENV['PATH']}"}


def test_listing_needs_no_blob_and_one_file_is_fetched_when_read(clone: Project) -> None:
    with open_repo(str(clone.path), env=ENV) as repo:
        assert len(repo.list_tree(repo.head().id)) == 32
        assert repo.read_file(repo.head().id, b"werf.yaml") == b"x"


def test_many_blobs_come_with_one_request(clone: Project, tmp_path: Path) -> None:
    with open_repo(str(clone.path), env=counting(tmp_path)) as repo:
        entries = repo.list_tree(repo.head().id, b"dir")
        assert len(repo.blob_sizes(entries)) == 30
        assert (tmp_path / "fetches").read_text() == "x\n"
        read = {entry.path: content for entry, content in repo.read_blobs(entries)}
    assert all(read[b"dir/%d" % number] == b"content %d" % number for number in range(30))
    assert (tmp_path / "fetches").read_text() == "x\n"


def test_attributes_are_read_in_a_partial_clone(clone: Project) -> None:
    with open_repo(str(clone.path), env=ENV) as repo:
        assert repo.lfs_paths(repo.head().id, repo.list_tree(repo.head().id)) == ()


def test_a_remote_that_is_gone_is_an_error_that_says_so(clone: Project) -> None:
    shutil.rmtree(clone.path.parent / "origin")
    with open_repo(str(clone.path), env=ENV) as repo:
        entries = repo.list_tree(repo.head().id)
        with pytest.raises((GitFailed, ObjectMissing)):
            list(repo.read_blobs(entries))
        assert not repo.has_commit(CommitId("1" * 40))
        assert len(repo.list_tree(repo.head().id, b"dir")) == 30
