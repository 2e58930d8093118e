"""Runs one container through an OCI runtime: its output line by line, or its own files; gives its exit status.

Used in worker processes only, where the end of the process ends the container too: so there is no way to cancel here, and nothing to clean up after a
kill but the state directory. Source: runc(8), OCI runtime-spec 1.0.2 runtime.md.
"""

from __future__ import annotations

import os
import select
import stat
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import FileIO

from layerwright.errors import LayerwrightError
from layerwright.host.files import telling_full
from layerwright.runtime import script, syscalls
from layerwright.runtime.bundle import Bind, Container, write_bundle
from layerwright.runtime.lines import Lines
from layerwright.runtime.mount_points import made_mount_points
from layerwright.runtime.runtimes import Refusal, Runtime, none_works
from layerwright.runtime.signals import TO_DEFAULT
from layerwright.runtime.terminal_size import SizeKeeper, size_of

OnLines = Callable[[Sequence[bytes]], None]
Files = tuple[int, int, int]

_READ_BYTES = 1 << 16
_LONGEST_LEFT_BYTES = 1 << 20
_LOOK_AT_SIZE_MS = 250
# What runc, crun and runsc say when the program itself is what cannot be started.
_NO_PROGRAM = ("executable file", "no such file or directory: exec", "exec format error", "exec: ")


class ProgramNotStarted(LayerwrightError):
    """The container's program is not in its root file system or cannot be executed there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a container ended: its exit status (128 and the signal's number if a signal ended it), the runtime, and what runtimes tried before it said.

    `failed` is the command of a script that was running, None if none failed; `left` what a failed script that `remembers` left.
    """

    status: int
    runtime: Runtime
    refusals: tuple[Refusal, ...] = ()
    failed: script.Failed | None = None
    left: script.Left = script.NOTHING_LEFT
    mount_points: tuple[bytes, ...] = ()  # made for the run; those left empty are gone again


def run_script(
    container: Container,
    commands: Sequence[str],
    shell: str,
    *,
    runtimes: Sequence[Runtime],
    state_dir: str,
    on_lines: OnLines,
    files: Files | None = None,
    remembers: bool = False,
) -> Ended:
    """Run `commands` as one script (`runtime.script`) under `shell`, a path in the container; `container.args` is not used. Otherwise as `run`."""
    place = os.path.join(state_dir, "script")
    os.mkdir(place, 0o755)
    with open(os.path.join(place, script.SCRIPT), "xb") as out:
        out.write(script.script(commands, shell, remembers=remembers))
    binds = (*container.binds, Bind(source=place, to=script.PLACE))
    ended = run(replace(container, args=script.arguments(shell), binds=binds), runtimes=runtimes, state_dir=state_dir, on_lines=on_lines, files=files)
    if ended.status == 0:
        return ended
    left = script.Left(cwd=_text_left(place, script.CWD).rstrip("\n"), exports=_text_left(place, script.EXPORTS))
    return replace(ended, failed=script.failed(_read_left(place, script.MARK, _READ_BYTES), commands), left=left)


def run(container: Container, *, runtimes: Sequence[Runtime], state_dir: str, on_lines: OnLines, files: Files | None = None) -> Ended:
    """Run `container` to its end with the first of `runtimes` that can start it.

    What it prints, standard output and error in the order written, goes to `on_lines` as it comes, several lines at once when it comes fast, and its
    standard input is empty; with `files` it has those instead (a terminal, if `container.terminal`). `state_dir` is an empty directory of this run.
    Raises MachineLacks with what each runtime said when none can start it; ProgramNotStarted; LayerwrightError when the source of a bind is not there.
    """
    for bind in container.binds:
        if not os.path.lexists(bind.source):
            raise LayerwrightError(f"there is nothing at {bind.source} to mount at {bind.to}", mend="make it first")
    refusals: list[Refusal] = []
    with made_mount_points(container) as made:
        for number, runtime in enumerate(runtimes):
            directory = os.path.join(state_dir, f"run{number}")
            with telling_full(directory):
                os.mkdir(directory, 0o700)
                write_bundle(sized(container, files), directory)
            outcome = _Run(runtime, directory, container, on_lines, files).to_end()
            if isinstance(outcome, int):
                return Ended(status=outcome, runtime=runtime, refusals=tuple(refusals), mount_points=made)
            refusals.append(Refusal(runtime=runtime, said=outcome))
            if any(sign in outcome for sign in _NO_PROGRAM):
                raise ProgramNotStarted(
                    f"{container.args[0]} cannot be started: {outcome}", where=container.root, mend="give a program that the image has, with its path"
                )
    raise none_works(refusals)


def sized(container: Container, files: Files | None) -> Container:
    """With the size of the terminal in `files`, for a container that has one."""
    size = size_of(files[0]) if container.terminal and files else b""
    return replace(container, terminal_size=struct.unpack("4H", size)[:2]) if size else container


class _Run:
    """One try with one runtime."""

    def __init__(self, runtime: Runtime, directory: str, container: Container, on_lines: OnLines, files: Files | None) -> None:
        self._runtime = runtime
        self._directory = directory
        self._terminal = container.terminal
        self._hands_over = runtime.hands_over and not container.terminal
        self._on_lines = on_lines
        self._files = files
        self._lines = Lines()
        self._held: list[bytes] | None = [] if self._hands_over else None  # what comes before the runtime ended may be its own last words

    def to_end(self) -> int | str:
        """The container's exit status, or what the runtime said when it could not start it."""
        syscalls.become_subreaper()  # the container's process is left to us
        with ExitStack() as stack:
            output = None if self._files else _pipe(stack)
            files = self._files or _quiet_files(stack, output)
            try:
                pid = self._start(files)
            except OSError as error:
                return f"it cannot be executed: {error.strerror}"
            if output:
                output.writer.close()
            ended = os.pidfd_open(pid)
            stack.callback(os.close, ended)
            return self._follow(pid, ended, output.reader.fileno() if output else None, files[0])

    def _start(self, files: Files) -> int:
        """Start the runtime with nothing of this process but `files`: no environment beyond PATH, no ignored signal."""
        inherited = [(os.POSIX_SPAWN_DUP2, fd, number + 10) for number, fd in enumerate(files)]
        moved = [(os.POSIX_SPAWN_DUP2, number + 10, number) for number in range(3)]
        closed = [(os.POSIX_SPAWN_CLOSE, number + 10) for number in range(3)]
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        return os.posix_spawn(self._runtime.path, self._argv(), env, file_actions=[*inherited, *moved, *closed], setsigmask=(), setsigdef=TO_DEFAULT)

    def _argv(self) -> list[str]:
        under = self._directory
        hand_over = ["--detach"] if self._hands_over else []
        hand_over += ["--pid-file", os.path.join(under, "pid")] if self._runtime.hands_over else []
        options = [*self._runtime.global_options, "--root", os.path.join(under, "state"), "--log", os.path.join(under, "log")]
        return [self._runtime.path, *options, "run", *hand_over, "--bundle", under, f"layerwright-{os.urandom(6).hex()}"]

    def _follow(self, pid: int, ended: int, output: int | None, standard_input: int) -> int | str:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if output is not None:
            poll.register(output, select.POLLIN)
        status: int | None = None
        sizes = SizeKeeper(standard_input, pid, os.path.join(self._directory, "pid"))
        while status is None or output is not None:
            ready = [fd for fd, _ in poll.poll(_LOOK_AT_SIZE_MS if self._terminal and status is None else None)]
            if self._terminal and status is None:
                sizes.look()
            if output in ready and output is not None and not self._read(output):
                poll.unregister(output)
                output = None
            if ended in ready and status is None:
                poll.unregister(ended)
                status = _wait(pid)
                if self._hands_over and status != 0:
                    return self._refusal(output)
                self._release()
        self._tell(self._lines.finish())
        return self._container_status() if self._hands_over else status

    def _read(self, output: int) -> bool:
        piece = os.read(output, _READ_BYTES)
        if piece and self._held is not None:
            self._held.append(piece)
        elif piece:
            self._tell(self._lines.feed(piece))
        return bool(piece)

    def _release(self) -> None:
        held, self._held = self._held, None
        for piece in held or ():
            self._tell(self._lines.feed(piece))

    def _tell(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._on_lines(lines)

    def _container_status(self) -> int:
        with open(os.path.join(self._directory, "pid"), encoding="ascii") as source:
            return _wait_for_adopted(int(source.read()))

    def _refusal(self, output: int | None) -> str:
        """What the runtime said: its log, or else what came from it."""
        if output is not None:
            os.set_blocking(output, False)
            try:
                while self._read(output):
                    pass
            except BlockingIOError:
                pass  # something of it lives on and holds the pipe
        said = _read_text(os.path.join(self._directory, "log")) or b"".join(self._held or ()).decode("utf-8", "replace")
        return _shorten(said) or "it ended without a message"


@dataclass(frozen=True, slots=True)
class _Pipe:
    reader: FileIO
    writer: FileIO


def _pipe(stack: ExitStack) -> _Pipe:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    return _Pipe(stack.enter_context(FileIO(reader, "rb")), stack.enter_context(FileIO(writer, "wb")))


def _quiet_files(stack: ExitStack, output: _Pipe | None) -> Files:
    """Nothing to read, and one pipe for both kinds of output: it keeps their order."""
    assert output is not None
    null = stack.enter_context(FileIO(os.devnull, "rb"))
    return null.fileno(), output.writer.fileno(), output.writer.fileno()


def _wait(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _wait_for_adopted(pid: int) -> int:
    """The exit status of a process that the runtime left to us. crun starts it from a process that may outlive crun by a moment: that one is our child
    by then, and the container's process becomes ours when it ends."""
    while True:
        try:
            return _wait(pid)
        except ChildProcessError:
            os.waitpid(-1, 0)


def _text_left(place: str, name: str) -> str:
    """Nothing where it is longer than it may be: half of a quoted text would make the rest of a shell's start a part of it."""
    content = _read_left(place, name, _LONGEST_LEFT_BYTES + 1)
    return content.decode("utf-8", "surrogateescape") if len(content) <= _LONGEST_LEFT_BYTES else ""


def _read_left(place: str, name: str, most_bytes: int) -> bytes:
    """Read what a script left with care: the container could put anything in its place. Nothing where it is not there, or is no file."""
    try:
        fd = os.open(os.path.join(place, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(fd, "rb", buffering=0) as source:
        return (source.read(most_bytes) or b"") if stat.S_ISREG(os.fstat(fd).st_mode) else b""


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read(_READ_BYTES)
    except FileNotFoundError:
        return ""


def _shorten(said: str) -> str:
    """The last line that says something; runc writes `time=… level=error msg="…"`."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return ""
    _, found, message = lines[-1].partition(' msg="')
    return message.removesuffix('"').replace('\\"', '"') if found else lines[-1]
