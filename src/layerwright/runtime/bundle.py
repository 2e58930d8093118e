"""What a container is, as a value, and the OCI runtime bundle it becomes.

Source: OCI runtime-spec 1.0.2 config.md, config-linux.md; the defaults are Docker's (moby, oci/defaults.go) where nothing else is said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from layerwright.runtime.seccomp import default_filter

HOSTNAME = "layerwright"
TTY_GROUP = 5  # which terminals belong to
_READ_BYTES = 1 << 20

# Docker's set without MKNOD: no device cgroup guards what a node made in the container would open (`runtime.namespaces`).
CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_KERNEL_MOUNTS = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", f"gid={TTY_GROUP}")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
)
# Files that are the run's, not the image's: private copies, so that a script that writes them changes neither image nor host.
_ETC_FILES = ("/etc/hosts", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A file or directory of the host that the container sees at `to`; what is mounted below it too, unless it is read-only."""

    source: str
    to: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One process tree on the root file system at `root` (absolute), with exactly the environment given.

    `network` "host" shares the host's network, its resolver and its hosts file; "none" has nothing but a loopback device.
    `user_namespace`: who starts it is root of one only, and gave it a host name already, as far as it could (`runtime.namespaces`). `tty_group`: the group TTY_GROUP is there.
    """

    root: str
    args: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    binds: tuple[Bind, ...] = ()
    network: Literal["host", "none"] = "host"
    hostname: str = HOSTNAME
    terminal: bool = False
    terminal_size: tuple[int, int] = (0, 0)  # rows and columns; 0 is not known
    read_only: bool = False
    masked: tuple[str, ...] = ()  # files of the image that are not to be opened: its device nodes. `nodev` is not enough, crun mounts the root without it
    capabilities: tuple[str, ...] = CAPABILITIES
    user_namespace: bool = False
    tty_group: bool = True


def mount_targets(container: Container) -> tuple[tuple[str, bool], ...]:
    """Every path something is mounted on, in the order of mounting, and whether a directory is mounted there."""
    kernel = [(to, True) for to, *_ in _KERNEL_MOUNTS]
    return (*kernel, *((path, False) for path in _ETC_FILES), *((bind.to, os.path.isdir(bind.source)) for bind in container.binds))


def runtime_config(container: Container, etc: str) -> dict[str, Any]:
    """The content of config.json; pure but for looking whether a bind's source is there to tell a directory from a file.

    `etc` is a directory that holds this container's `hosts` and `resolv.conf`.
    """
    return {
        "ociVersion": "1.0.2",
        "process": _process(container),
        "root": {"path": container.root, "readonly": container.read_only},
        **({} if container.user_namespace else {"hostname": container.hostname}),
        "mounts": _mounts(container, etc),
        "linux": {
            "namespaces": [{"type": kind} for kind in _namespaces(container)],
            "maskedPaths": [*_MASKED, *container.masked],
            "readonlyPaths": list(_READ_ONLY),
            "seccomp": default_filter(os.uname().machine),
        },
    }


def write_bundle(container: Container, directory: str) -> None:
    """Make `directory` (there, and empty) the bundle of `container`."""
    texts = {
        "hosts": hosts_text(container, _read_host("/etc/hosts") if container.network == "host" else ""),
        "resolv.conf": _read_host("/etc/resolv.conf") if container.network == "host" else "",
        "config.json": json.dumps(runtime_config(container, directory), ensure_ascii=True),
    }
    for name, text in texts.items():
        with open(os.path.join(directory, name), "x", encoding="utf-8", errors="surrogateescape") as out:
            out.write(text)


def hosts_text(container: Container, of_host: str) -> str:
    """The host's names, if the container shares its network, and the container's own (sudo and Java look it up)."""
    name = os.uname().nodename if container.user_namespace else container.hostname
    own = f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.0.1 {name}\n"
    return own + of_host


def _process(container: Container) -> dict[str, Any]:
    capabilities = list(container.capabilities)
    rows, columns = container.terminal_size
    return {
        "terminal": container.terminal,
        **({"consoleSize": {"height": rows, "width": columns}} if container.terminal and columns else {}),
        "user": {"uid": container.uid, "gid": container.gid, "additionalGids": list(container.groups), "umask": 0o022},
        "args": list(container.args),
        "env": [f"{name}={value}" for name, value in container.env.items()],
        "cwd": container.cwd,
        # A user other than root gets none: the kernel drops them at exec, as nothing is inheritable or ambient.
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
    }


def _mounts(container: Container, etc: str) -> list[dict[str, Any]]:
    mounts = [_kernel_mount(container, *mount) for mount in _KERNEL_MOUNTS]
    own = [Bind(source=os.path.join(etc, os.path.basename(path)), to=path) for path in _ETC_FILES]
    return mounts + [_bind(bind) for bind in (*own, *container.binds)]


def _kernel_mount(container: Container, to: str, kind: str, source: str, options: tuple[str, ...]) -> dict[str, Any]:
    """A sysfs belongs to its network namespace: only who owns that may mount it, so others show the one there is, as it is mounted."""
    if kind == "sysfs" and container.user_namespace:
        return {"destination": to, "type": "bind", "source": to, "options": ["rbind", "ro", "nosuid", "noexec", "nodev", "rprivate"]}
    kept = [one for one in options if container.tty_group or not one.startswith("gid=")]
    return {"destination": to, "type": kind, "source": source, "options": kept}


def _bind(bind: Bind) -> dict[str, Any]:
    options = ["bind", "ro"] if bind.read_only else ["rbind", "rw"]
    return {"destination": bind.to, "type": "bind", "source": bind.source, "options": [*options, "rprivate", "nodev"]}


def _namespaces(container: Container) -> tuple[str, ...]:
    always = ("pid", "mount", "ipc") if container.user_namespace else ("pid", "mount", "ipc", "uts")
    return always if container.network == "host" else (*always, "network")


def _read_host(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as source:
            return source.read(_READ_BYTES)
    except OSError:
        return ""  # a host without the file: the container has an empty one
