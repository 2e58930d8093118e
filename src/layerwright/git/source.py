"""A repository whose objects a commit of ours is read from: the project's own, or a submodule's."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property

from layerwright.git.objects import Objects
from layerwright.git.partial import fetch_missing, is_partial
from layerwright.git.program import Git, failed
from layerwright.git.trees import Node, parse_tree, tree_of
from layerwright.git.values import EXECUTABLE, FILE
from layerwright.host.run import CommandFailed

_TREES = 1024  # parsed trees kept
_FETCH_AT_ONCE = 2  # of fewer objects, git fetches each by itself


class Source:
    """`path`: where it stands in the work tree, b"" for the project's own; `directories`: git directories that may hold its submodules."""

    def __init__(self, path: bytes, git: Git, work_tree: str, directories: tuple[str, ...]) -> None:
        self.path = path
        self.git = git
        self.work_tree = work_tree  # where it would be checked out, whether it is or not
        self.directories = directories
        self.objects = Objects(git, work_tree if os.path.isdir(work_tree) else git.git_dir)
        self._trees: dict[str, dict[bytes, Node]] = {}
        self._roots: dict[str, str] = {}
        self._modules: dict[str, dict[bytes, str]] = {}

    @cached_property
    def objects_directory(self) -> str:
        return os.path.join(common_directory(git_directory(self.git.git_dir)), "objects")

    @cached_property
    def _partial(self) -> bool:
        return is_partial(self.objects_directory)

    def prepare(self, oids: Iterable[str]) -> None:
        """Called before many objects are read: in a partial clone they come with one request."""
        if self._partial and len(wanted := set(oids)) >= _FETCH_AT_ONCE:
            fetch_missing(self.git, self.objects_directory, wanted)

    def root(self, commit: str) -> str:
        """The commit's tree. Raises ObjectMissing."""
        found = self._roots.get(commit)
        if found is None:
            answer = self.objects.read(commit)
            if answer is None or answer[0].type != "commit":
                raise self.objects.missing(commit)
            found = self._roots[commit] = tree_of(answer[1], where=self.objects.where)
        return found

    def tree(self, oid: str) -> dict[bytes, Node]:
        """The names in a tree. Raises ObjectMissing."""
        found = self._trees.get(oid)
        if found is None:
            answer = self.objects.read(oid)
            if answer is None or answer[0].type != "tree":
                raise self.objects.missing(oid)
            if len(self._trees) >= _TREES:
                self._trees.clear()
            found = self._trees[oid] = parse_tree(answer[1], len(oid) // 2)
        return found

    def modules(self, root: str) -> dict[bytes, str]:
        """Path and name of each submodule in the .gitmodules of a root tree."""
        node = self.tree(root).get(b".gitmodules")
        if node is None or node.mode not in (FILE, EXECUTABLE):
            return {}
        found = self._modules.get(node.oid)
        if found is None:
            found = self._modules[node.oid] = self._named(node.oid)
        return found

    def _named(self, oid: str) -> dict[bytes, str]:
        try:
            listed = self.git.run("config", "-z", f"--blob={oid}", "--get-regexp", r"^submodule\..*\.path$")
        except CommandFailed as failure:
            if failure.code == 1:  # no such key
                return {}
            raise failed(failure, what=".gitmodules cannot be read", where=self.objects.where, mend="correct .gitmodules and commit it") from failure
        pairs = [record.partition(b"\n") for record in listed.split(b"\0") if record]
        return {path.rstrip(b"/"): os.fsdecode(key.removeprefix(b"submodule.").removesuffix(b".path")) for key, _, path in pairs}

    def close(self) -> None:
        self.objects.close()


def git_directory(dot_git: str) -> str:
    """The git directory that `.git` is, or names if it is a file. Source: gitrepository-layout(5)."""
    if os.path.isdir(dot_git):
        return dot_git
    named = _first_line(dot_git)
    if not named.startswith("gitdir: "):
        return dot_git
    return os.path.normpath(os.path.join(os.path.dirname(dot_git), named[8:]))


def common_directory(git_dir: str) -> str:
    """The git directory that a linked work tree shares with the main one; `git_dir` itself if it is the main one."""
    named = _first_line(os.path.join(git_dir, "commondir"))
    return os.path.normpath(os.path.join(git_dir, named)) if named else git_dir


def _first_line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.readline(65536).rstrip(b"\r\n"))
    except OSError:
        return ""


def work_trees_of(git_dir: str) -> tuple[str, ...]:
    """`git_dir`, the main one it shares, and those of the linked work trees: a submodule may have been initialised in any of them."""
    common = common_directory(git_dir)
    linked = os.path.join(common, "worktrees")
    try:
        names = sorted(os.listdir(linked))
    except OSError:
        names = []
    return tuple(dict.fromkeys([git_dir, common, *(os.path.join(linked, name) for name in names)]))
