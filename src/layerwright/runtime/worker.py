"""The main process's side of the worker: the one process that touches trees, mounts and containers (`runtime.serve` is the other side).

Each call has a socket of its own, given to the worker with the call. So threads share nothing but the start, and ending a call is
closing its socket: the worker sees that at once and kills what the call had started, down to the last process of its containers.
"""

from __future__ import annotations

import os
import select
import socket
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Protocol, Self

from layerwright.errors import Cancelled, LayerwrightError
from layerwright.runtime import wire
from layerwright.runtime.faults import from_fault
from layerwright.runtime.signals import TO_DEFAULT

_LOOK_AT_CANCEL_MS = 50
_END_WITHIN_S = 10.0


class Cancel(Protocol):
    """What says that a call is no longer wanted; `threading.Event` is one."""

    def is_set(self) -> bool: ...


class WorkerEnded(LayerwrightError):
    """The worker, or the process of one request in it, ended without an answer."""


class Worker:
    """A worker that starts at its first call, or with `start`. Many threads may have calls under way at once.

    `argv` is a Python program that calls `runtime.serve.serve`; `env` is its whole environment. It runs in a session of its own, so Ctrl-C in the
    terminal reaches only this process, which decides. It ends with `close`, and at once when this process ends, however it ends.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._argv = tuple(argv)
        self._env = dict(env)
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._pid = 0
        self._closed = False

    def start(self) -> None:
        """Start the worker, if it is not, without waiting for it: what else there is to do goes on while its program loads."""
        with self._lock:
            self._started()

    def call(
        self,
        task: str,
        arguments: object,
        *,
        on_event: Callable[[Any], None] | None = None,
        cancel: Cancel | None = None,
        fds: Sequence[int] = (),
    ) -> Any:
        """Run `task` in the worker and give what it returns; events come through `on_event`, in this thread, in order.

        `fds` are open files the task gets too. Raises what the task raised (a LayerwrightError with its class, fields and exit code; anything else
        as BugError), Cancelled once `cancel` is set, WorkerEnded. Whatever way it is left, nothing of the call runs on and no mount of it is left.
        """
        if cancel is not None and cancel.is_set():
            raise Cancelled("cancelled")
        with ExitStack() as stack:
            for fd in fds:
                stack.enter_context(_terminal_restored(fd))
            ours = stack.enter_context(self._hand_over(fds))
            try:
                with suppress(BrokenPipeError):  # a worker that refuses every call answers without waiting for it; where there is no answer, that is told
                    wire.send(ours, "call", (task, arguments))
                return _answer(ours, on_event, cancel)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise _ended("") from error
            finally:
                _end_call(ours)

    def close(self) -> None:
        """End the worker and all it has started. Calls under way in other threads raise WorkerEnded."""
        with self._lock:
            self._closed = True
            control, self._control = self._control, None
        if control is not None:
            control.close()
            os.waitpid(self._pid, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _hand_over(self, fds: Sequence[int]) -> Iterator[socket.socket]:
        """Give the worker one end of a new socket, and yield the other."""
        ours, theirs = wire.socket_pair()
        with ours:
            with theirs:
                self._send_control([theirs.fileno(), *fds])
            yield ours

    def _send_control(self, fds: Sequence[int]) -> None:
        assert len(fds) <= wire.MOST_FDS
        with self._lock:
            control = self._started()
            try:
                socket.send_fds(control, [b"call"], fds)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise _ended("") from error

    def _started(self) -> socket.socket:
        """Called with the lock held."""
        if self._closed:
            raise _ended("it was closed")
        if self._control is None:
            self._control, self._pid = _start(self._argv, self._env)
        return self._control


def _start(argv: Sequence[str], env: Mapping[str, str]) -> tuple[socket.socket, int]:
    """Start the worker's program with the control socket as its standard input, with no signal blocked or ignored that Python or a shell ignored here."""
    ours, theirs = wire.socket_pair()
    with theirs:
        pid = os.posix_spawnp(
            argv[0],
            list(argv),
            dict(env),
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
            setsid=True,
            setsigmask=(),
            setsigdef=TO_DEFAULT,
        )
    return ours, pid


def _answer(ours: socket.socket, on_event: Callable[[Any], None] | None, cancel: Cancel | None) -> Any:
    inbox = wire.Inbox(ours)
    while True:
        _wait_for_packet(ours, cancel)
        match inbox.receive():
            case "more":
                continue
            case ("event", event):
                if on_event is not None:
                    on_event(event)
            case ("result", result):
                return result
            case ("error", fault):
                raise from_fault(fault)
            case ("died", reason):
                raise _ended(reason)
            case _:
                raise _ended("")


def _wait_for_packet(ours: socket.socket, cancel: Cancel | None) -> None:
    # Looking up now and then also lets a signal through that came just before the wait: Python runs its handlers only between two calls.
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    while True:
        if cancel is not None and cancel.is_set():
            raise Cancelled("cancelled")
        if poll.poll(_LOOK_AT_CANCEL_MS):
            return


def _end_call(ours: socket.socket) -> None:
    """Say that no more is wanted, and wait until the worker has seen the last process of the call end: its mounts are gone with it."""
    try:
        ours.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _END_WITHIN_S
        while (left := deadline - time.monotonic()) > 0:
            ours.settimeout(left)
            if not ours.recv(1 << 17):
                return
    except OSError:
        return  # the worker is gone, or a process hangs in the kernel: waiting longer helps nobody


@contextmanager
def _terminal_restored(fd: int) -> Iterator[None]:
    """A runtime sets the terminal it is given to raw mode; killed, it cannot set it back."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _ended(reason: str) -> WorkerEnded:
    return WorkerEnded(
        "the worker process ended before it answered" + (f": {reason}" if reason else ""),
        mend="if there is no message of it above, look for the out-of-memory killer: `dmesg | grep -i kill`, and try again",
    )
