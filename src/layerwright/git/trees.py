"""Trees: what git ls-tree, git diff-tree and a raw tree object say, as values. Source: git-ls-tree(1), git-diff-tree(1) "RAW OUTPUT FORMAT"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from layerwright.git.program import Git, GitFailed, failed
from layerwright.git.values import EXECUTABLE, FILE, GITLINK, SYMLINK, BlobId, TreeEntry
from layerwright.host.run import CommandFailed, Process

DIRECTORY = 0o040000
_KIND = 0o170000
_CHUNK_BYTES = 1 << 18
_MODES = {b"100644": FILE, b"100755": EXECUTABLE, b"120000": SYMLINK, b"160000": GITLINK}  # git prints modes in canonical form
_RAW = {20: re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL), 32: re.compile(rb"([0-7]+) ([^\0]+)\0(.{32})", re.DOTALL)}


class Node(NamedTuple):
    """One name in a tree. `mode` is canonical: DIRECTORY, FILE, EXECUTABLE, SYMLINK or GITLINK."""

    mode: int
    oid: str


class RawChange(NamedTuple):
    """One line of diff-tree; None where the path is absent. A submodule is an entry with mode GITLINK."""

    path: bytes
    old: TreeEntry | None
    new: TreeEntry | None


def parse_tree(content: bytes, oid_bytes: int) -> dict[bytes, Node]:
    """A raw tree object. `oid_bytes`: 20 or, in a sha256 repository, 32."""
    return {name: Node(_canonical(int(mode, 8)), oid.hex()) for mode, name, oid in _RAW[oid_bytes].findall(content)}


def _canonical(mode: int) -> int:
    """Old tools wrote 100664 and the like; git reads them so."""
    kind = mode & _KIND
    if kind == FILE & _KIND:
        return EXECUTABLE if mode & 0o100 else FILE
    return kind


def list_files(git: Git, tree: str, *, below: bytes = b"", repository: bytes = b"", where: str) -> list[TreeEntry]:
    """Every file, symlink and submodule (mode GITLINK) below the tree, in the byte order of git, paths put below `below`.

    What git has printed is read while it goes on: 50,000 files in the time that git takes.
    """
    prefix = below + b"/" if below else b""
    found: list[TreeEntry] = []
    with git.start("ls-tree", "-r", "-z", "--full-tree", tree) as process:
        for records in _records(process):
            # `<mode> <type> <oid>\t<path>`; the type is 4 letters for a blob and 6 for a commit
            found += [
                TreeEntry(prefix + path, _MODES[head[:6]], BlobId(head[12:].decode() if head[7] == 98 else head[14:].decode()), repository)
                for head, _, path in [record.partition(b"\t") for record in records]
            ]
        _ensure_done(process, what=f"cannot list the tree {tree}", where=where)
    return found


def _records(process: Process) -> Iterator[list[bytes]]:
    """What ends with a NUL, as it arrives."""
    assert process.stdout is not None
    rest = b""
    while chunk := process.stdout.read(_CHUNK_BYTES):
        *records, rest = (rest + chunk).split(b"\0")
        yield records


def _ensure_done(process: Process, *, what: str, where: str) -> None:
    if process.wait() != 0:
        raise failed(process.failure(), what=what, where=where)


def changed_files(git: Git, old: str, new: str, *, below: bytes = b"", repository: bytes = b"", where: str) -> list[RawChange]:
    """What differs between two trees or commits of one repository, renames told as removal and addition.

    --ignore-submodules=none: otherwise `ignore = all` in .gitmodules hides that another commit is recorded.
    """
    prefix = below + b"/" if below else b""
    words = ("diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", "--ignore-submodules=none", old, new)
    try:
        fields = git.run(*words).split(b"\0")
    except CommandFailed as failure:
        raise failed(failure, what=f"cannot compare {old} and {new}", where=where) from failure
    changes = []
    for head, path in zip(fields[0::2], fields[1::2], strict=False):
        old_mode, new_mode, old_oid, new_oid, _ = head[1:].split(b" ")
        changes.append(RawChange(prefix + path, _side(prefix + path, old_mode, old_oid, repository), _side(prefix + path, new_mode, new_oid, repository)))
    return changes


def _side(path: bytes, mode: bytes, oid: bytes, repository: bytes) -> TreeEntry | None:
    return None if mode == b"000000" else TreeEntry(path, _MODES[mode], BlobId(oid.decode()), repository)


def tree_of(content: bytes, *, where: str) -> str:
    """The tree id that a raw commit object names in its first line."""
    first = content.partition(b"\n")[0]
    if not first.startswith(b"tree "):
        raise GitFailed("a commit object does not name a tree", where=where, mend=f"look at what git -C {where} fsck says")
    return first[5:].decode()
