"""Where the worker and its requests live: which namespaces they enter, by flavour (`runtime.flavours`)."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from layerwright.errors import LayerwrightError, MachineLacks
from layerwright.runtime import syscalls, user_namespace
from layerwright.runtime.bundle import HOSTNAME
from layerwright.runtime.flavours import Flavour

_CGROUPS = "/sys/fs/cgroup"


def enter_worker(flavour: Flavour) -> None:
    """Take this single-threaded process into the worker's own mount namespace; its next child is the first process of a PID namespace of its own.

    Before that into a user namespace, where the flavour has one. A cgroup namespace makes the mount of cgroups possible there.

    When that child ends, for whatever reason, the kernel kills all processes below it, and the mounts end with the last of them.
    Raises MachineLacks.
    """
    if flavour.way not in ("root", "inside"):
        user_namespace.enter(flavour)
    try:
        of_user = syscalls.CLONE_NEWCGROUP | syscalls.CLONE_NEWUTS if flavour.user_namespace else 0
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | of_user)
        # Nothing mounted here reaches the host. What the host unmounts or automounts still reaches us: a private copy would keep its disks busy.
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    except OSError as error:
        raise _may_not(error, flavour) from error
    if flavour.user_namespace:
        with suppress(OSError):  # podman's filter allows this to the machine's root only; the containers then have the name of this one
            socket.sethostname(HOSTNAME)
    _hide_cgroups()


def enter_request(flavour: Flavour) -> OSError | None:
    """Take the first process of a request's PID namespace into a mount namespace of its own, with a /proc that shows that PID namespace.

    In a user namespace the kernel may refuse that /proc, and no container can start then: gives why. What needs no container goes on with the
    /proc there is, where /proc/self is right.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    try:
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    except OSError as error:
        if not flavour.user_namespace:
            raise
        return error
    return None


def open_own_pid_namespace() -> int:
    return os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)


def new_pid_namespace_for_next_child() -> None:
    syscalls.unshare(syscalls.CLONE_NEWPID)


def same_pid_namespace_for_next_child(own: int) -> None:
    """Undo `new_pid_namespace_for_next_child`: without it a second unshare is refused (EINVAL)."""
    syscalls.set_namespace(own, syscalls.CLONE_NEWPID)


def _hide_cgroups() -> None:
    """Show the runtimes one unified, read-only cgroup tree, whatever the machine has.

    Containers of a build need no limits of their own and stay in the cgroup of who started the build. A read-only tree has three gains: no
    directory of a killed build is ever left there, crun runs on machines that mix cgroup v1 and v2 (it refuses them), and a start costs less.
    """
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    try:
        syscalls.mount("cgroup2", _CGROUPS, "cgroup2", flags)
    except OSError:
        pass  # a kernel or container without cgroup v2: the runtimes see what there is


def _may_not(error: OSError, flavour: Flavour) -> LayerwrightError:
    if flavour.way not in ("root", "inside"):
        return user_namespace.explain_mounts(error, flavour)
    if error.errno not in (errno.EPERM, errno.EACCES):
        return MachineLacks(f"the kernel refuses namespaces: {error.strerror}", mend="use a kernel with CONFIG_NAMESPACES, CONFIG_PID_NS (Linux 5.15 or newer)")
    return MachineLacks(
        "root may not mount here, though it has CAP_SYS_ADMIN",
        mend="in a container, start it with `docker run --privileged` or add `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`",
    )
