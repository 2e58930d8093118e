"""The worker itself: a small single-threaded process that forks one child for each call, so that a call costs no interpreter start.

Three generations. The *keeper* is what the main process started: it makes the PID namespace and watches the main process. The *server* is the
first process in there: when it ends, the kernel kills all below. Each *request* is again the first process of a PID namespace and has a mount
namespace: killing that one process ends every container and every mount of the call, whatever state they are in.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from layerwright.errors import LayerwrightError
from layerwright.runtime import namespaces, syscalls, wire
from layerwright.runtime.faults import to_fault
from layerwright.runtime.flavours import ROOT, Flavour
from layerwright.runtime.namespace_refusals import masked_proc


class Caller:
    """Who asked: `caller(event)` sends it an event, `caller.fds` are the open files it gave along; `flavour` is the worker's."""

    def __init__(self, channel: socket.socket, fds: Sequence[int], flavour: Flavour = ROOT, no_proc: OSError | None = None) -> None:
        self._channel = channel
        self._no_proc = no_proc
        self.fds = tuple(fds)
        self.flavour = flavour

    def need_proc(self) -> None:
        """Say that the task will start a container. Raises MachineLacks where it could have no /proc."""
        if self._no_proc is not None:
            raise masked_proc(self._no_proc) from self._no_proc

    def __call__(self, event: object) -> None:
        """Send `event` (anything pickle takes), waiting while the caller is slow: output never piles up here."""
        try:
            wire.send(self._channel, "event", event)
        except BrokenPipeError as error:
            raise _CallerGone from error


class _CallerGone(BaseException):
    """Nobody waits for the answer any more; not an error of the task."""


Task = Callable[[Any, Caller], Any]


def serve(tasks: Mapping[str, Task], *, flavour: Flavour = ROOT) -> NoReturn:
    """Answer calls on standard input until the main process closes it or ends. Call it first thing in a program that has no other thread.

    Each call runs `tasks[name](arguments, caller)` in a process of its own; what it changes in memory is seen by no other call.
    Umask 022, no inherited file but standard error: what a command sees does not depend on the shell of who started the build.
    """
    control = _take_over()
    above = os.getppid()
    try:
        namespaces.enter_worker(flavour)
    except LayerwrightError as error:
        _refuse_all(control, error)
    keeper = os.pidfd_open(os.getpid())
    server = os.fork()
    if server:
        control.close()
        _keep(server, above)
    try:
        _die_with(keeper)
        _Server(control, tasks, flavour).run()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _take_over() -> socket.socket:
    """The control socket, off the numbers that programs use; all other inherited files closed."""
    os.umask(0o022)
    os.closerange(3, 1 << 30)
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # children share these pages as long as no collection writes to them
    return control


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    message, fds, _, _ = socket.recv_fds(control, 16, wire.MOST_FDS)
    for fd in fds:
        os.set_inheritable(fd, False)  # recv_fds takes flags and drops them, MSG_CMSG_CLOEXEC too
    return message, fds


def _refuse_all(control: socket.socket, error: LayerwrightError) -> NoReturn:
    """Answer every call with `error`: the caller learns why there is no worker as the error of its call."""
    while True:
        message, fds = _receive(control)
        if not message:
            os._exit(0)
        with socket.socket(fileno=fds[0]) as channel:
            try:
                wire.send(channel, "error", to_fault(error))
            except OSError:
                pass  # it did not wait
        for fd in fds[1:]:
            os.close(fd)


def _keep(server: int, above: int) -> NoReturn:
    """Wait for the server; kill it if the main process ends first.

    The end of file on its control socket tells the server as well. This is the second way, and it cannot be the parent-death signal: that one
    comes when the *thread* ends that started us.
    """
    poll = select.poll()
    ended = os.pidfd_open(server)
    poll.register(ended, select.POLLIN)
    try:
        poll.register(os.pidfd_open(above), select.POLLIN)
    except (OSError, ValueError):
        pass  # it has ended, or lives outside this PID namespace: the control socket remains
    if ended not in [fd for fd, _ in poll.poll()]:
        os.kill(server, signal.SIGKILL)
    _, status = os.waitpid(server, 0)
    os._exit(0 if status == 0 else 1)


def _die_with(keeper: int) -> None:
    syscalls.set_parent_death_signal(signal.SIGKILL)
    poll = select.poll()
    poll.register(keeper, select.POLLIN)
    if poll.poll(0):
        os._exit(1)  # it ended before the line above
    os.close(keeper)


@dataclass(frozen=True, slots=True)
class _Request:
    pid: int
    ended: int  # pidfd: readable once it is
    channel: socket.socket  # open here too, so that the caller sees the end of it only when the process and all below it are gone


class _Server:
    def __init__(self, control: socket.socket, tasks: Mapping[str, Task], flavour: Flavour) -> None:
        self._control = control
        self._flavour = flavour
        self._tasks = tasks
        self._requests: dict[int, _Request] = {}  # by both of its file numbers
        self._pid_namespace = namespaces.open_own_pid_namespace()
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._control.fileno():
                    self._accept()
                elif request := self._requests.get(fd):
                    self._look_at(request, fd)

    def _accept(self) -> None:
        message, fds = _receive(self._control)
        if not message:
            os._exit(0)
        channel = socket.socket(fileno=fds[0])
        try:
            pid = self._fork(channel, fds)
        except OSError as error:
            with channel:
                self._tell(channel, "died", f"no process could be started: {error.strerror}")
        else:
            request = _Request(pid, os.pidfd_open(pid), channel)
            for fd, events in ((request.ended, select.POLLIN), (channel.fileno(), select.POLLRDHUP)):
                self._requests[fd] = request
                self._poll.register(fd, events)
        for fd in fds[1:]:
            os.close(fd)

    def _fork(self, channel: socket.socket, fds: Sequence[int]) -> int:
        namespaces.new_pid_namespace_for_next_child()
        try:
            pid = os.fork()
            if pid == 0:
                self._serve_request(channel, fds)
            return pid
        finally:
            namespaces.same_pid_namespace_for_next_child(self._pid_namespace)

    def _serve_request(self, channel: socket.socket, fds: Sequence[int]) -> NoReturn:
        status = 1
        try:
            # A socket of another call left open here would keep its caller waiting for the end of this one.
            _close_all_but({0, 1, 2, *fds})
            status = _answer(channel, self._tasks, fds[1:], self._flavour)
        finally:
            os._exit(status)

    def _look_at(self, request: _Request, fd: int) -> None:
        if fd == request.ended:
            self._forget(request)
        else:  # the caller wants no more, or has ended
            self._poll.unregister(fd)
            try:
                signal.pidfd_send_signal(request.ended, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended in this moment

    def _forget(self, request: _Request) -> None:
        _, status = os.waitpid(request.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        with request.channel as channel:
            if code != 0:
                self._tell(channel, "died", f"exit status {code}" if code > 0 else f"signal {-code}")
            for fd in (request.ended, channel.fileno()):
                del self._requests[fd]
                try:
                    self._poll.unregister(fd)
                except KeyError:
                    pass  # a call that was cancelled
        os.close(request.ended)

    def _tell(self, channel: socket.socket, kind: wire.Kind, value: object) -> None:
        channel.setblocking(False)
        try:
            wire.send(channel, kind, value)
        except OSError:
            pass  # nobody is there to read


def _answer(channel: socket.socket, tasks: Mapping[str, Task], fds: Sequence[int], flavour: Flavour) -> int:
    """Run the call; give the exit status of its process. A caller that is gone is no failure."""
    try:
        try:
            no_proc = namespaces.enter_request(flavour)
            received = wire.Inbox(channel).message()
            if received is None:
                return 0
            name, arguments = received[1]
            wire.send(channel, "result", tasks[name](arguments, Caller(channel, fds, flavour, no_proc)))
        except _CallerGone:
            return 0
        except BaseException as error:
            wire.send(channel, "error", to_fault(error))
    except BrokenPipeError:
        pass
    return 0


def _close_all_but(kept: set[int]) -> None:
    start = 0
    for fd in sorted(kept):
        if start < fd:  # os.closerange(0, 0) closes everything
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 1 << 30)
