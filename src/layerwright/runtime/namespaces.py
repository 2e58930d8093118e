"""Where the worker and its requests live: which namespaces they enter, by flavour.

A flavour says what the owners in a tree mean: "root" for real root; a user namespace has its own, named by its map of ids.
"""

from __future__ import annotations

import errno
import os

from layerwright.errors import MachineLacks
from layerwright.runtime import syscalls

ROOT = "root"
_CGROUPS = "/sys/fs/cgroup"


def enter_worker(flavour: str) -> None:
    """Take this single-threaded process into the worker's own mount namespace; its next child is the first process of a PID namespace of its own.

    When that child ends, for whatever reason, the kernel kills all processes below it, and the mounts end with the last of them.
    Raises MachineLacks.
    """
    assert flavour == ROOT, f"flavour {flavour!r} is not known"
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
        # Nothing mounted here reaches the host. What the host unmounts or automounts still reaches us: a private copy would keep its disks busy.
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    except OSError as error:
        raise _may_not(error) from error
    _hide_cgroups()


def enter_request() -> None:
    """Take the first process of a request's PID namespace into a mount namespace of its own, with a /proc that shows that PID namespace."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)


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


def _may_not(error: OSError) -> MachineLacks:
    if error.errno not in (errno.EPERM, errno.EACCES):
        return MachineLacks(f"the kernel refuses namespaces: {error.strerror}", mend="use a kernel with CONFIG_NAMESPACES, CONFIG_PID_NS (Linux 5.15 or newer)")
    if os.geteuid() != 0:
        return MachineLacks(
            "commands of a stage are run as root, and this user is not root",
            mend="run layerwright as root: `sudo layerwright build`. Images without command stages need no root",
        )
    return MachineLacks(
        "root may not mount here (it has no CAP_SYS_ADMIN)",
        mend="in a container, start it with `docker run --privileged` or `--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined`",
    )
