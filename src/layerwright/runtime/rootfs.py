"""The root file system of a container: layers' trees stacked by overlayfs, described as a value first and mounted in one place.

Used in worker processes only. Source: Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from layerwright.errors import LayerwrightError, MachineLacks
from layerwright.runtime import syscalls

MOST_LAYERS = 500  # OVL_MAX_STACK of Linux
_OPTION_BYTES = 4095  # mount(2) takes one page with its final NUL

# No renames or metadata kept apart: the upper is to be readable as a layer by itself. `volatile`: nobody needs the upper after a crash, so a sync in
# the container (dpkg does thousands) and the unmount write nothing; who keeps the tree syncs it once.
_OPTIONS = "redirect_dir=off,metacopy=off,index=off,xino=off"
_USER_OPTIONS = "userxattr,redirect_dir=nofollow,metacopy=off,index=off,xino=off"  # "off" may mean "follow", which userxattr excludes
_WRITABLE = "volatile"


_LOCKED = (
    (os.ST_RDONLY, syscalls.MS_RDONLY),
    (os.ST_NOSUID, syscalls.MS_NOSUID),
    (os.ST_NOEXEC, syscalls.MS_NOEXEC),
    (os.ST_NOATIME, syscalls.MS_NOATIME),
    (os.ST_NODIRATIME, syscalls.MS_NODIRATIME),
    (os.ST_RELATIME, syscalls.MS_RELATIME),
)


class UpperRefused(LayerwrightError):
    """The file system of the upper directory cannot be one of an overlay (it is an overlay itself, or a network file system)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A stack of trees to mount at `target`. `lower` is top first; without `upper` the mount is read-only. `work` is empty and lies beside `upper`."""

    lower: tuple[str, ...]
    upper: str = ""
    work: str = ""
    target: str
    user_namespace: bool = False

    def __post_init__(self) -> None:
        assert bool(self.upper) == bool(self.work), "an upper needs a work directory, and only an upper does"

    def __str__(self) -> str:
        writable = f" upper={self.upper} work={self.work}" if self.upper else ""
        return f"overlay {self.target}: lower={':'.join(self.lower) or '(none)'}{writable}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One call of mount(2). `{path}` in `options` stands for a name of a directory that is short and needs no escapes."""

    source: str
    kind: str = ""
    flags: int = 0
    options: str = ""
    paths: tuple[str, ...] = ()  # what the places in `options` stand for, in order
    keeps_flags: bool = False  # what forbids something on the mount stays: in a user namespace the kernel demands it


def refuse_too_many(layers: int) -> None:
    """Raises LayerwrightError where Linux cannot stack so many."""
    if layers > MOST_LAYERS:
        raise LayerwrightError(
            f"{layers} layers; Linux stacks at most {MOST_LAYERS}", mend="put fewer stages or imports on this base, or flatten the base image"
        )


def mount_plan(overlay: Overlay) -> tuple[Mount, ...]:
    """The mounts, one above the other at `overlay.target`, that make `overlay`; pure.

    An overlay needs two trees, one of which may be the upper: fewer are a bind mount, none is an empty one. Device nodes in a tree are not opened
    (nodev): a base image must not bring a node of the host's disk, and no cgroup guards devices here.
    Raises LayerwrightError when there are more layers than Linux can stack.
    """
    refuse_too_many(len(overlay.lower))
    trees = (*overlay.lower, *((overlay.upper,) if overlay.upper else ()))
    if not trees:
        return (Mount(source="tmpfs", kind="tmpfs", flags=syscalls.MS_RDONLY | syscalls.MS_NODEV, options="mode=755"),)
    if len(trees) == 1:
        read_only = 0 if overlay.upper else syscalls.MS_RDONLY
        return (
            Mount(source=trees[0], flags=syscalls.MS_BIND),
            Mount(source="none", flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_NODEV | read_only, keeps_flags=overlay.user_namespace),
        )
    options = [_USER_OPTIONS if overlay.user_namespace else _OPTIONS, "lowerdir=" + ":".join(["{path}"] * len(overlay.lower))]
    if overlay.upper:
        options += [_WRITABLE, "upperdir={path}", "workdir={path}"]
    flags = syscalls.MS_NODEV | (0 if overlay.upper else syscalls.MS_RDONLY)
    upper = (overlay.upper, overlay.work) if overlay.upper else ()
    return (Mount(source="overlay", kind="overlay", flags=flags, options=",".join(options), paths=(*overlay.lower, *upper)),)


def mount(overlay: Overlay) -> None:
    """Mount `overlay`; an empty upper first gets the attributes of the directory it covers, as it is what the container sees as its `/`.

    Raises UpperRefused (a copied root will do instead), MachineLacks, or LayerwrightError.
    """
    plan = mount_plan(overlay)
    if overlay.upper and not os.listdir(overlay.upper):
        _look_like(overlay.upper, overlay.lower[0] if overlay.lower else "")
    for step in plan:
        try:
            _mount_step(step, overlay.target)
        except OSError as error:
            raise _explain(error, overlay) from error


@contextmanager
def mounted(overlay: Overlay) -> Iterator[str]:
    """Mount `overlay` for the block, which gets the target."""
    mount(overlay)
    try:
        yield overlay.target
    finally:
        syscalls.unmount(overlay.target, detach=True)


def _look_like(upper: str, lower: str) -> None:
    """Without a lower tree: mode 0755, root's."""
    found = os.stat(lower) if lower else None
    os.chown(upper, found.st_uid if found else 0, found.st_gid if found else 0)
    os.chmod(upper, stat.S_IMODE(found.st_mode) if found else 0o755)
    if found:
        os.utime(upper, ns=(found.st_atime_ns, found.st_mtime_ns))


def _mount_step(step: Mount, target: str) -> None:
    """Call mount(2) from within /proc/self/fd, where every open directory has a name of a few digits: 500 of them fit in the option page."""
    if not step.paths:
        syscalls.mount(step.source, target, step.kind, step.flags | (_locked_flags(target) if step.keeps_flags else 0), step.options)
        return
    target = os.path.abspath(target)
    with ExitStack() as stack:
        before = _open_directory(stack, ".")
        names = [str(_open_directory(stack, path)) for path in step.paths]
        options = step.options.replace("{path}", "{}").format(*names)
        if len(options) > _OPTION_BYTES:
            raise OSError(errno.E2BIG, "the options of one mount fill more than a page", target)
        os.chdir("/proc/self/fd")
        stack.callback(os.fchdir, before)
        syscalls.mount(step.source, target, step.kind, step.flags, options)


def _locked_flags(target: str) -> int:
    """The flags of the mount at `target` that only the owner of the machine may take away."""
    found = os.statvfs(target).f_flag
    return sum(flag for of_mount, flag in _LOCKED if found & of_mount)


def _open_directory(stack: ExitStack, path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _explain(error: OSError, overlay: Overlay) -> LayerwrightError:
    if overlay.user_namespace and overlay.upper and error.errno in (errno.EPERM, errno.ENODEV):
        return UpperRefused(
            "this kernel has no overlays for users other than root" + (": the module is not loaded" if error.errno == errno.ENODEV else ""),
            where=overlay.upper,
            mend="use Linux 5.15 or newer, and have root run `modprobe overlay`",
        )
    if error.errno == errno.ENODEV:
        return MachineLacks("this kernel has no overlay file system", mend="run `modprobe overlay` as root, or use a kernel with CONFIG_OVERLAY_FS")
    if error.errno == errno.EINVAL and overlay.upper:
        return UpperRefused(
            "its file system cannot hold the upper directory of an overlay",
            where=overlay.upper,
            mend="set LAYERWRIGHT_HOME to a directory on ext4, xfs, btrfs or tmpfs (in a container: a volume)",
        )
    if error.errno == errno.EMFILE:
        return MachineLacks(f"{len(overlay.lower)} layers need more open files than allowed", mend="run `ulimit -n 4096` first")
    return LayerwrightError(f"cannot be mounted: {error.strerror}", where=error.filename or overlay.target, mend=f"see `dmesg | tail`; wanted: {overlay}")
