"""The one door to other programs: a list of arguments, a whole environment, and an error that says what the program said.

Nothing here can deadlock on a full pipe: what a program reads at once and what it says on stderr go through memory files, never through pipes
that somebody would have to read at the same time.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Literal

from layerwright.errors import LayerwrightError, MachineLacks

_PACKAGES = {  # Debian's package where it is named otherwise than the program
    "newuidmap": "uidmap",
    "newgidmap": "uidmap",
    "ansible-playbook": "ansible-core",
}
_TAIL_BYTES = 4096
_TAIL_LINES = 8
_END_WITHIN_S = 0.5  # between asking a group to end and killing it

Stdin = bytes | Literal["pipe"] | None
Stdout = Literal["pipe", "memory"]


class CommandFailed(LayerwrightError):
    """A program of the host failed. `code`: exit code, or minus the signal's number; `stderr`: its last lines."""

    def __init__(self, argv: Sequence[str], code: int, stderr: str, *, mend: str = "") -> None:
        self.argv = tuple(argv)
        self.code = code
        self.stderr = stderr
        said = f": {stderr}" if stderr else ""
        super().__init__(f"{_shown(argv)} {_ended(code)}{said}", mend=mend)


class Process:
    """A started program. As a context manager it is killed and waited for on leaving, if it has not ended by itself.

    `stdin` is a pipe if that was asked for, else None; `stdout` a pipe, or None when it is kept in memory (`output()` then has it).
    `group`: it and what it starts are a process group, and are ended together; first asked to, then killed.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None, stdin: Stdin = None, stdout: Stdout = "pipe", group: bool = False
    ) -> None:
        self.argv = tuple(argv)
        self._group = group
        self._stderr = os.memfd_create("stderr")
        self._kept = os.memfd_create("stdout") if stdout == "memory" else -1
        given = _memory_of(stdin) if isinstance(stdin, bytes) else -1
        try:
            self._popen = subprocess.Popen(
                self.argv,
                env=env,
                cwd=cwd,
                stdin=given if given >= 0 else subprocess.PIPE if stdin == "pipe" else subprocess.DEVNULL,
                stdout=self._kept if self._kept >= 0 else subprocess.PIPE,
                stderr=self._stderr,
                process_group=0 if group else None,
            )
        except OSError as error:
            self._close_memory()
            raise _cannot_start(argv, cwd, error) from error
        except BaseException:
            self._close_memory()
            raise
        finally:
            if given >= 0:
                os.close(given)
        self.stdin: BinaryIO | None = self._popen.stdin  # type: ignore[assignment]  # typeshed: IO[bytes], and it is a BufferedWriter
        self.stdout: BinaryIO | None = self._popen.stdout  # type: ignore[assignment]

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit code, or minus the signal's number; None if it still runs after `timeout_s`."""
        if timeout_s is not None and self._popen.poll() is None and not self._ends_within(timeout_s):
            return None
        return self._popen.wait()

    def _ends_within(self, timeout_s: float) -> bool:
        """subprocess would sleep and look again, up to 50 ms too long; a process descriptor wakes at once."""
        try:
            descriptor = os.pidfd_open(self._popen.pid)
        except OSError:  # kernel before 5.3, or a sandbox
            return self._sleep_until_end(timeout_s)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(max(0.0, timeout_s) * 1000))
        finally:
            os.close(descriptor)

    def _sleep_until_end(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while self._popen.poll() is None:
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def output(self) -> bytes:
        """What it wrote so far to a stdout kept in memory."""
        size = os.fstat(self._kept).st_size
        pieces = []
        offset = 0
        while offset < size and (piece := os.pread(self._kept, size - offset, offset)):  # one call gives 2 GiB at most
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def last_words(self) -> str:
        """The last lines of its stderr."""
        size = os.fstat(self._stderr).st_size
        start = max(0, size - _TAIL_BYTES)
        text = os.pread(self._stderr, _TAIL_BYTES, start).decode("utf-8", "backslashreplace")
        return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])

    def failure(self) -> CommandFailed:
        """The error for a program that ended too early or with another code than 0; waits for its end."""
        return CommandFailed(self.argv, self._popen.wait(), self.last_words())

    def kill(self) -> None:
        if self._group:
            self._end_group()
        else:
            self._popen.kill()

    @property
    def has_ended(self) -> bool:
        """Whether its end has been seen."""
        return self._popen.returncode is not None

    def terminate(self) -> None:
        """Ask it to end, with what it started itself. Waits for nothing, so a signal handler may call it."""
        self._popen.terminate()

    def _end_group(self) -> None:
        """A tool may have started itself again in a user namespace: what it started is in its group, and hears SIGTERM as it does."""
        for number, wait_s in ((signal.SIGTERM, _END_WITHIN_S), (signal.SIGKILL, 0.0)):
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)
            if self._popen.poll() is not None or self._ends_within(wait_s):
                break

    def close(self) -> None:
        """Kill it if it still runs, wait for it, close everything. May be called twice."""
        if self._stderr < 0:
            return
        if self._popen.poll() is None:
            self.kill()
        for stream in (self.stdin, self.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # bytes not yet written to a program that is gone
                    pass
        self._popen.wait()
        self._close_memory()

    def _close_memory(self) -> None:
        for descriptor in (self._stderr, self._kept):
            if descriptor >= 0:
                os.close(descriptor)
        self._stderr = self._kept = -1

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None, stdin: bytes | None = None) -> bytes:
    """Run a program to its end and return its stdout.

    `env` is the whole environment; stdin is empty unless given. Raises CommandFailed; MachineLacks when there is no such program.
    """
    with Process(argv, env=env, cwd=cwd, stdin=stdin) as process:
        return output_of(process)


def output_of(process: Process) -> bytes:
    """What a started program writes to its stdout until it ends. Raises CommandFailed."""
    assert process.stdout is not None
    output = process.stdout.read()
    if process.wait() != 0:
        raise process.failure()
    return output


def _memory_of(content: bytes) -> int:
    """A descriptor to read `content` from."""
    descriptor = os.memfd_create("stdin")
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _cannot_start(argv: Sequence[str], cwd: str | None, error: OSError) -> LayerwrightError:
    program = argv[0]
    if cwd is not None and not os.path.isdir(cwd):
        return CommandFailed(argv, 127, f"its working directory {cwd} does not exist")
    if not isinstance(error, (FileNotFoundError, PermissionError)):
        return MachineLacks(f"cannot start {program}: {error.strerror}", mend="free memory or processes, or raise the limits (ulimit -u, ulimit -n)")
    if "/" in program:
        return MachineLacks(f"cannot start {program}: {error.strerror}", mend="correct the path, or make the file executable")
    return MachineLacks(f"the program {program} is not on PATH", mend=f"sudo apt-get install {_PACKAGES.get(program, program)}")


def _ended(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was ended by signal {-code}"


def _shown(argv: Sequence[str]) -> str:
    words = [word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for word in argv[:12]]
    return " ".join(words) + (" ..." if len(argv) > 12 else "")
