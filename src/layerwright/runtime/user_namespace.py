"""Makes the worker root of a user namespace: the maps of ids, who writes them, and why the kernel or the machine may refuse.

Source: Linux, user_namespaces(7); newuidmap(1).
"""

from __future__ import annotations

import errno
import os

from layerwright.errors import LayerwrightError, MachineLacks
from layerwright.runtime import syscalls
from layerwright.runtime.flavours import Flavour, Map, find_helpers, map_text
from layerwright.runtime.namespace_refusals import helper_failed, refused

_OK = b"ok"


def enter(flavour: Flavour) -> None:
    """Take this single-threaded process into a new user namespace, as its root, with the maps of `flavour`. Raises MachineLacks."""
    if flavour.way == "single":
        _unshare(flavour)
        _map_alone(flavour)
    else:
        _map_by_helper(flavour)
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _unshare(flavour: Flavour) -> None:
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError as error:
        raise refused(error, flavour) from error


def _map_alone(flavour: Flavour) -> None:
    """One id each, which the process may map itself once it has given up setgroups(2)."""
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", map_text(flavour.uids)), ("gid_map", map_text(flavour.gids))):
            _write_whole(f"/proc/self/{name}", text)
    except OSError as error:
        raise refused(error, flavour) from error


def _map_by_helper(flavour: Flavour) -> None:
    """Have a process that stays outside write the maps: who has entered the namespace has no rights over the ids outside any more."""
    target = os.getpid()
    entered, enter_end = os.pipe()
    answer, answer_end = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(enter_end)
        os.close(answer)
        _help(flavour, target, entered, answer_end)
    os.close(entered)
    os.close(answer_end)
    try:
        _unshare(flavour)
        os.write(enter_end, b"x")
        said = os.read(answer, 1 << 12)
    finally:
        os.close(enter_end)
        os.close(answer)
        os.waitpid(helper, 0)
    if said != _OK:
        raise helper_failed(flavour, said.decode("utf-8", "replace"))


def _help(flavour: Flavour, target: int, entered: int, answer: int) -> None:
    """The helper, until its end."""
    try:
        if os.read(entered, 1):
            os.write(answer, _mapped(flavour, target).encode() or _OK)
    finally:
        os._exit(0)


def _mapped(flavour: Flavour, target: int) -> str:
    """What went wrong; "" if nothing did."""
    if flavour.way == "helpers":
        helpers = find_helpers(os.environ.get("PATH", ""))
        if not helpers:
            return "newuidmap: not found"
        return next((said for program, ids in zip(helpers, (flavour.uids, flavour.gids), strict=True) if (said := _call(program, target, ids))), "")
    try:
        _write_whole(f"/proc/{target}/uid_map", map_text(flavour.uids))
        _write_whole(f"/proc/{target}/gid_map", map_text(flavour.gids))
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def _call(program: str, target: int, ids: Map) -> str:
    """Run newuidmap or newgidmap; its message if it failed."""
    said, end = os.pipe()
    arguments = [program, str(target), *(str(number) for one in ids for number in one)]
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, end, 1), (os.POSIX_SPAWN_DUP2, end, 2)]
    try:
        pid = os.posix_spawn(program, arguments, {"PATH": os.environ.get("PATH", "")}, file_actions=actions)
    except OSError as error:
        return f"{program}: {error.strerror}"
    finally:
        os.close(end)
    with open(said, "rb", buffering=0) as source:
        text = source.readall() or b""
    _, status = os.waitpid(pid, 0)
    return "" if status == 0 else text.decode("utf-8", "replace").strip() or f"{program}: exit status {os.waitstatus_to_exitcode(status)}"


def _write_whole(path: str, text: str) -> None:
    """In one write, as the kernel wants a map."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


def explain_mounts(error: OSError, flavour: Flavour) -> LayerwrightError:
    """Why a mount or PID namespace inside of the new user namespace was refused."""
    if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSPC):
        return refused(error, flavour)
    return MachineLacks(f"the kernel refuses namespaces: {error.strerror}", mend="use a kernel with CONFIG_NAMESPACES, CONFIG_PID_NS (Linux 5.15 or newer)")
