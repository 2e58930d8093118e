"""Device nodes that an image brings along: normal below /dev, which no container of ours sees, and nowhere else to be opened.

Where they are is read from the disk. What an index says of a hard link or a path through symlinks holds for honest layers only: a hostile one may change
a symlink after its use, and the node lies where nobody looks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from layerwright.errors import LayerwrightError
from layerwright.layers.entry import BLOCK, CHAR
from layerwright.layers.filesystem import Directories, is_whiteout_stat
from layerwright.layers.index import FileIndex
from layerwright.layers.shown import shown
from layerwright.limits import DEVICES

_MEND = "remove the device nodes from the base image: a container has those it needs in /dev"
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class BadDevices(LayerwrightError):
    """More device nodes than can be covered, or one whose name no runtime can be told."""


def have_devices(layers: Sequence[FileIndex]) -> bool:
    """Whether any of the layers has a device node at all: most images have none, and their trees need not be searched."""
    return any(entry.kind in (CHAR, BLOCK) for layer in layers for entry in layer.specials)


def device_paths(root: str, trees: Sequence[str]) -> tuple[str, ...]:
    """Where a container would find a device node outside of /dev: each name of it, sorted. `root` shows the stack of the `trees`. Raises BadDevices."""
    found = sorted({path for tree in trees for path in _nodes_in(tree)})
    with Directories(root) as directories:
        covered = stat.S_ISDIR(_mode(directories, b"dev"))
        reachable = [path for path in found if not (covered and path.startswith(b"dev/")) and _is_node(_mode(directories, path))]
    if len(reachable) > DEVICES:
        raise BadDevices(f"the image has {len(reachable):,} device nodes outside of /dev; {DEVICES:,} is the most", where=shown(reachable[0]), mend=_MEND)
    return tuple(_told(path) for path in reachable)


def _nodes_in(tree: str) -> Iterator[bytes]:
    pending = [b""]
    with Directories(tree) as directories:
        while pending:
            directory = pending.pop()
            with os.scandir(directories.fd(directory)) as items:
                for item in items:
                    path = os.path.join(directory, os.fsencode(item.name))
                    if item.is_dir(follow_symlinks=False):
                        pending.append(path)
                    elif not item.is_file(follow_symlinks=False) and not item.is_symlink():
                        state = item.stat(follow_symlinks=False)
                        if _is_node(state.st_mode) and not is_whiteout_stat(state):
                            yield path


def _mode(directories: Directories, path: bytes) -> int:
    """0 where nothing is, or the way there leads through something else than directories."""
    parent, _, name = path.rpartition(b"/")
    try:
        return os.stat(name, dir_fd=directories.fd(parent), follow_symlinks=False).st_mode
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return 0


def _is_node(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _told(path: bytes) -> str:
    try:
        return "/" + path.decode()
    except UnicodeDecodeError:
        raise BadDevices("a device node whose name is not UTF-8", where=shown(path), mend=_MEND) from None
