"""Submodules: where the objects of a recorded commit are on this machine. Nothing is initialised, checked out or fetched here."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator

from layerwright.errors import UsageError
from layerwright.git.objects import Header
from layerwright.git.program import Git, GitFailed, shown
from layerwright.git.source import Source, git_directory, work_trees_of


class SubmoduleAbsent(UsageError):
    """The commit recorded for a submodule is not on this machine. `path`: in the work tree; `commit`: the recorded one."""

    def __init__(self, what: str, *, path: bytes, commit: str, where: str, mend: str) -> None:
        self.path = path
        self.commit = commit
        super().__init__(what, where=where, mend=mend)


class Submodules:
    """Every submodule met so far, nested ones too. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_directory: dict[tuple[bytes, str], Source] = {}
        self._chosen: dict[tuple[bytes, str], Source] = {}  # by path and commit
        self.at: dict[bytes, list[Source]] = {}  # one path may have been several submodules, over time

    def source(self, parent: Source, root: str, path: bytes, commit: str) -> Source:
        """Where the objects of `commit` are, which the tree `root` of `parent` records at `path` (relative to `parent`). Raises SubmoduleAbsent."""
        full = parent.path + b"/" + path if parent.path else path
        with self._lock:
            found = self._chosen.get((full, commit))
            if found is None:
                found = self._chosen[full, commit] = self._find(parent, root, path, full, commit)
            return found

    def _find(self, parent: Source, root: str, path: bytes, full: bytes, commit: str) -> Source:
        name = parent.modules(root).get(path)
        if name is None:
            raise _not_named(parent, full, commit)
        seen = False
        for git_dir in _candidates(parent, path, name):
            source = self._opened(parent, path, full, name, git_dir)
            try:
                header: Header | None = source.objects.info(commit)
            except GitFailed:  # git does not accept the directory
                continue
            seen = True
            if header is not None and header.type == "commit":
                known = self.at.setdefault(full, [])
                if source not in known:
                    known.append(source)
                return source
        raise _absent(parent, path, full, commit, initialised=seen)

    def _opened(self, parent: Source, path: bytes, full: bytes, name: str, git_dir: str) -> Source:
        source = self._by_directory.get((full, git_dir))
        if source is None:
            work_tree = os.path.join(parent.work_tree, os.fsdecode(path))
            inside = [os.path.join(directory, "modules", name) for directory in parent.directories]
            directories = tuple(dict.fromkeys([*work_trees_of(git_directory(git_dir)), *inside]))
            git = Git(git_dir, work_tree if os.path.isdir(work_tree) else git_dir, parent.git.env, parent.git.running)
            source = self._by_directory[full, git_dir] = Source(full, git, work_tree, directories)
        return source

    def close(self) -> None:
        for source in self._by_directory.values():
            source.close()


def _candidates(parent: Source, path: bytes, name: str) -> Iterator[str]:
    """Git directories that may be the submodule's: what is checked out, then what `git submodule` keeps in .git/modules."""
    checked_out = os.path.join(parent.work_tree, os.fsdecode(path), ".git")
    if os.path.lexists(checked_out):
        yield checked_out
    if os.path.isabs(name) or ".." in name.split("/"):
        return  # the name comes from the commit, and must not lead out of the git directory
    for directory in parent.directories:
        kept = os.path.join(directory, "modules", name)
        if os.path.isdir(kept):
            yield kept


def _not_named(parent: Source, full: bytes, commit: str) -> SubmoduleAbsent:
    word = shlex.quote(shown(full))
    return SubmoduleAbsent(
        f"{shown(full)!r} is recorded as a repository of its own, and .gitmodules does not name it",
        path=full,
        commit=commit,
        where=parent.work_tree,
        mend=f"make it a submodule (git submodule add <address> {word}), or take it out (git rm --cached {word}), and commit",
    )


def _absent(parent: Source, path: bytes, full: bytes, commit: str, *, initialised: bool) -> SubmoduleAbsent:
    command = f"git -C {shlex.quote(shown(parent.work_tree))} submodule update --init --recursive -- {shlex.quote(shown(path))}"
    if not initialised:
        return SubmoduleAbsent(f"submodule {shown(full)!r} is not initialised", path=full, commit=commit, where=parent.work_tree, mend=command)
    return SubmoduleAbsent(
        f"submodule {shown(full)!r} does not have the recorded commit {commit}",
        path=full,
        commit=commit,
        where=parent.work_tree,
        mend=f"{command}; if the commit was never pushed, push it from where it was made",
    )
