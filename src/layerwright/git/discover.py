"""Which repository a project directory belongs to. One git process, which stays to answer what comes next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from layerwright.errors import UsageError
from layerwright.git.program import Git, GitFailed
from layerwright.git.source import Source, git_directory, work_trees_of
from layerwright.host.run import CommandFailed

_NAME_THEM = "name the project with --dir, or the work tree with --git-work-tree"


class NoGitWorkTree(UsageError):
    """No git work tree was found where one was looked for."""


class ProjectOutsideWorkTree(UsageError):
    """The project directory is not in the work tree that was named."""


class NoCommit(UsageError):
    """HEAD names no commit that is here."""


class Found(NamedTuple):
    """`prefix`: the project directory relative to the work tree. `head`: id and raw content of the commit HEAD names."""

    source: Source
    prefix: bytes
    head: str
    content: bytes


def discover(directory: str, work_tree: str | None, env: Mapping[str, str]) -> Found:
    """The named work tree, or the first directory upwards with a .git that git itself accepts.

    Raises NoGitWorkTree, ProjectOutsideWorkTree, NoCommit, MachineLacks, GitFailed.
    """
    project = os.path.realpath(directory)
    if not os.path.isdir(project):
        raise UsageError("the project directory does not exist", where=directory, mend="name the project with --dir")
    refusals: list[str] = []
    for candidate in [_named(work_tree, project)] if work_tree is not None else _upwards(project):
        found = _accepted(candidate, env, refusals)
        if found is not None:
            source, head, content = found
            prefix = os.path.relpath(project, candidate)
            return Found(source, b"" if prefix == "." else os.fsencode(prefix), head, content)
    said = f" ({refusals[0]})" if refusals else ""
    if work_tree is not None:
        raise NoGitWorkTree(f"not a git work tree{said}", where=work_tree, mend=f"{_NAME_THEM}, or begin one: git init {work_tree}")
    raise NoGitWorkTree(f"no git work tree here or above{said}", where=project, mend=f"{_NAME_THEM}, or begin one: git init")


def _named(work_tree: str, project: str) -> str:
    real = os.path.realpath(work_tree)
    if not os.path.isdir(real):
        raise NoGitWorkTree("the git work tree does not exist", where=work_tree, mend="correct --git-work-tree")
    if os.path.commonpath([real, project]) != real:
        raise ProjectOutsideWorkTree(
            f"the project directory is outside of the git work tree {work_tree}", where=project, mend="correct --dir or --git-work-tree"
        )
    return real


def _upwards(project: str) -> Iterator[str]:
    directory = project
    while True:
        if os.path.lexists(os.path.join(directory, ".git")):
            yield directory
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent


def _accepted(work_tree: str, env: Mapping[str, str], refusals: list[str]) -> tuple[Source, str, bytes] | None:
    """The repository with HEAD's id and content, or None and git's words among the refusals."""
    dot_git = os.path.join(work_tree, ".git")
    if not os.path.lexists(dot_git):
        return None
    git = Git(dot_git, work_tree, env)
    source = Source(b"", git, work_tree, work_trees_of(git_directory(dot_git)))
    try:
        answer = source.objects.read("HEAD")
    except GitFailed as error:
        if "not a git repository" not in error.what:
            git.refuse_old()
            raise NoGitWorkTree(error.what, where=work_tree, mend=f"mend what git says, or {_NAME_THEM}") from error
        refusals.append(error.what.rpartition("fatal: ")[2])
        return None
    if answer is None or answer[0].type != "commit":
        source.close()
        raise _no_commit(git)
    return source, answer[0].oid, answer[1]


def _no_commit(git: Git) -> NoCommit:
    try:
        named = git.run("rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    except CommandFailed:
        return NoCommit(
            "the repository has no commit yet", where=git.work_tree, mend="commit the project: git add -A && git commit; uncommitted files are not read"
        )
    return NoCommit(
        f"HEAD names {named}, which is not in the repository", where=git.work_tree, mend=f"git -C {git.work_tree} fetch, then check out a commit that is there"
    )
