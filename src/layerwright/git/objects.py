"""Objects of one repository by id, read through a few running `git cat-file --batch-command` processes.

A question costs 20 µs on a running process, and starting one 1 to 2 ms. Each thread that reads gets a process of its own for as long as it reads, so
none waits for another, and a nested read cannot wait for itself. Contents are streamed: neither git nor we hold a large blob whole.
Source: git-cat-file(1), "BATCH OUTPUT".
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import BinaryIO, NamedTuple, TypeVar, cast

from layerwright.errors import Cancelled
from layerwright.git.program import Git, GitFailed, failed

_IDLE = 4  # processes kept for the next reader
_AHEAD = 128  # questions asked ahead: at most 128 * 74 bytes, which a pipe (64 KiB) takes even while git is busy writing
_DRAIN_BYTES = 1 << 20  # what is left of an answer up to here is read away, beyond that the process is given up
T = TypeVar("T")


class ObjectMissing(GitFailed):
    """An object that a commit names is not in the repository."""


class Header(NamedTuple):
    oid: str
    type: str
    size_bytes: int


class Reader:
    """One running cat-file process. Questions are answered in order; who asks must read all of the answer."""

    def __init__(self, git: Git, where: str) -> None:
        self._where = where
        self._process = git.start("cat-file", "--batch-command", "--buffer", stdin="pipe")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to_git = self._process.stdin
        self.answers: BinaryIO = self._process.stdout

    def ask(self, command: bytes, names: Sequence[bytes]) -> None:
        """`command` is b"contents" or b"info"; at most _AHEAD names may be on their way at once."""
        try:
            self._to_git.write(b"".join([b"%s %s\n" % (command, name) for name in names]) + b"flush\n")
            self._to_git.flush()
        except OSError:
            raise self.lost() from None

    def header(self) -> Header | None:
        """The answer's first line; None if there is no such object."""
        line = self.answers.readline()
        if not line.endswith(b"\n"):
            raise self.lost()
        words = line.rsplit(b" ", 2)
        if len(words) < 3 or not words[2][:-1].isdigit():
            return None  # "<name> missing", "<name> ambiguous"
        return Header(words[0].decode(), words[1].decode(), int(words[2]))

    def content(self, header: Header) -> bytes:
        content = self.answers.read(header.size_bytes + 1)  # git ends it with a newline
        if len(content) <= header.size_bytes:
            raise self.lost()
        return content[:-1]

    def end_content(self) -> None:
        self.answers.read(1)

    def lost(self) -> GitFailed | Cancelled:
        """git ended in the middle of an answer."""
        return failed(self._process.failure(), what="cannot read from git", where=self._where, mend=f"look at what git -C {self._where} fsck says")

    def close(self) -> None:
        self._process.close()


class _Content(io.RawIOBase):
    """The content in one answer, as a stream that ends where the content does."""

    def __init__(self, reader: Reader, size_bytes: int) -> None:
        self._reader = reader
        self.left_bytes = size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed: WriteableBuffer
        wanted = min(len(buffer), self.left_bytes)
        if not wanted:
            return 0
        count = cast(io.BufferedReader, self._reader.answers).readinto(memoryview(buffer)[:wanted])
        if not count:
            raise self._reader.lost()
        self.left_bytes -= count
        return count


class Objects:
    """Every object of one repository. `where` names the repository in errors. Safe to use from several threads."""

    def __init__(self, git: Git, where: str) -> None:
        self.git = git
        self.where = where
        self._lock = threading.Lock()
        self._idle: list[Reader] = []

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        """A process for one reader. If an answer was not read to its end, the rest would be taken for the next answer: then it is ended."""
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        if reader is None:
            reader = Reader(self.git, self.where)
        try:
            yield reader
        except _Unread:
            reader.close()
            return
        except BaseException:
            reader.close()
            raise
        self._keep(reader)

    def _keep(self, reader: Reader) -> None:
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(reader)
                return
        reader.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()

    def info(self, name: str) -> Header | None:
        """Type and size of what `name` (an id, or an expression without newline) names; None if there is nothing."""
        with self._reader() as reader:
            reader.ask(b"info", [name.encode("utf-8", "surrogateescape")])
            return reader.header()

    def read(self, name: str) -> tuple[Header, bytes] | None:
        with self._reader() as reader:
            reader.ask(b"contents", [name.encode("utf-8", "surrogateescape")])
            header = reader.header()
            return None if header is None else (header, reader.content(header))

    def contents(self, oids: Iterable[str]) -> Iterator[bytes]:
        """The contents in the order of `oids`, asked ahead. Raises ObjectMissing."""
        return self._answers(b"contents", oids, lambda reader, header: reader.content(header))

    def sizes(self, oids: Iterable[str]) -> Iterator[int]:
        """The sizes in bytes in the order of `oids`. Raises ObjectMissing."""
        return self._answers(b"info", oids, lambda reader, header: header.size_bytes)

    def _answers(self, command: bytes, oids: Iterable[str], read: Callable[[Reader, Header], T]) -> Iterator[T]:
        """Two portions are on their way: git works on the second while the first is read.

        The process is free again before the last answer is handed out: a caller who counts never asks for the end.
        """
        portions = _portions(oids, _AHEAD // 2)
        portion = next(portions, None)
        if portion is None:
            return
        with self._reader() as reader:
            reader.ask(command, portion)
            while portion is not None:
                following = next(portions, None)
                if following is not None:
                    reader.ask(command, following)
                for oid in portion[:-1] if following is None else portion:
                    yield self._answer(reader, oid, read)
                if following is None:
                    last = self._answer(reader, portion[-1], read)
                portion = following
        yield last

    def _answer(self, reader: Reader, oid: bytes, read: Callable[[Reader, Header], T]) -> T:
        header = reader.header()
        if header is None:
            raise self.missing(oid.decode())
        return read(reader, header)

    @contextmanager
    def open(self, oid: str) -> Iterator[tuple[int, BinaryIO]]:
        """Size and content of one object, streamed. What is not read is thrown away. Raises ObjectMissing."""
        with self._reader() as reader:
            reader.ask(b"contents", [oid.encode()])
            header = reader.header()
            if header is None:
                raise self.missing(oid)
            content = _Content(reader, header.size_bytes)
            yield header.size_bytes, cast(BinaryIO, content)
            if content.left_bytes > _DRAIN_BYTES:
                raise _Unread
            content.read()
            reader.end_content()

    def missing(self, oid: str) -> ObjectMissing:
        return ObjectMissing(
            f"git object {oid} is missing",
            where=self.where,
            mend=f"fetch it again (git -C {self.where} fetch --refetch), or look at what git -C {self.where} fsck says",
        )


class _Unread(Exception):
    """More is left of an answer than is worth reading."""


def _portions(oids: Iterable[str], size: int) -> Iterator[list[bytes]]:
    source = iter(oids)
    while portion := [oid.encode() for oid in islice(source, size)]:
        yield portion
