"""Files and directories that a root file system lacks and that something will be mounted on: made before a container starts, taken away after.

They are made here and not by the runtime, so that what they are and that they leave no trace (the times of their parents) is known.
Paths lead through the root's own symbolic links and never out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from layerwright.errors import LayerwrightError
from layerwright.runtime.bundle import Container, mount_targets

_MOST_LINKS = 40


def resolve_in_root(root: str, path: str) -> str:
    """Where `path` leads in `root`, relative to it ("" is the root itself): symbolic links are followed, absolute ones from `root`; what is not there stays as named.

    Raises LayerwrightError on a loop.
    """
    done: list[str] = []
    left = _parts(path)
    links = 0
    while left:
        name = left.pop(0)
        if name == "..":
            del done[-1:]
            continue
        done.append(name)
        if (link := _read_link(os.path.join(root, *done))) is None:
            continue
        links += 1
        if links > _MOST_LINKS:
            raise LayerwrightError(f"{path} leads through a loop of symbolic links", where=root, mend="mount elsewhere, or mend the link in the image")
        done = [] if link.startswith("/") else done[:-1]
        left = _parts(link) + left
    return os.path.join(*done) if done else ""


def mount_points(container: Container) -> tuple[bytes, ...]:
    """The paths, relative to the root and parents first, that have to be made before `container` can start."""
    return tuple(os.fsencode(path) for path, _ in _missing(container))


@contextmanager
def made_mount_points(container: Container) -> Iterator[tuple[bytes, ...]]:
    """Make them for the block, which gets what `mount_points` says; take away those still empty after it, and set their parents' times back."""
    missing = _missing(container)
    for path, is_directory in missing:
        _make(container.root, path, is_directory=is_directory)
    try:
        yield tuple(os.fsencode(path) for path, _ in missing)
    finally:
        remove_mount_points(container.root, [path for path, _ in missing])


def remove_mount_points(root: str, paths: Sequence[str]) -> None:
    """Take away those of `paths`, parents first as they were made, that hold nothing: what a command put there stays, with its parents."""
    for path in reversed(paths):
        if resolve_in_root(root, os.path.dirname(path)) != os.path.dirname(path):
            continue  # the command put a symbolic link in the way, which may lead out of the root
        place = os.path.join(root, path)
        with _times_kept(os.path.dirname(place)):
            try:
                found = os.lstat(place)
                if stat.S_ISDIR(found.st_mode):
                    os.rmdir(place)
                elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
                    os.unlink(place)
            except OSError:
                pass  # in use by what the command left, or removed by it


def _missing(container: Container) -> list[tuple[str, bool]]:
    found: dict[str, bool] = {}
    for target, is_directory in mount_targets(container):
        path = resolve_in_root(container.root, target)
        if path == "dev" or not path.startswith("dev/"):  # what is in /dev is on its own tmpfs
            parts = path.split("/")
            for end in range(1, len(parts) + 1):
                part = "/".join(parts[:end])
                if part not in found and not os.path.lexists(os.path.join(container.root, part)):
                    found[part] = is_directory or end < len(parts)
    return list(found.items())


def _make(root: str, path: str, *, is_directory: bool) -> None:
    place = os.path.join(root, path)
    with _times_kept(os.path.dirname(place)):
        if is_directory:
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


@contextmanager
def _times_kept(directory: str) -> Iterator[None]:
    before = _times(directory)
    yield
    if before is not None and _times(directory) != before:
        os.utime(directory, ns=before, follow_symlinks=False)


def _times(directory: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return None
    return found.st_atime_ns, found.st_mtime_ns


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _read_link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
