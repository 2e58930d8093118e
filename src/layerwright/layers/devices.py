"""Device nodes that an image brings along: normal below /dev, which no container of ours sees, and nowhere else to be opened."""

from __future__ import annotations

from collections.abc import Sequence

from layerwright.errors import LayerwrightError
from layerwright.layers.entry import BLOCK, CHAR, DIRECTORY, HARDLINK
from layerwright.layers.index import FileIndex
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex
from layerwright.limits import DEVICES

_MEND = "remove the device nodes from the base image: a container has those it needs in /dev"


class BadDevices(LayerwrightError):
    """More device nodes than can be covered, or one whose name no runtime can be told."""


def device_paths(layers: Sequence[FileIndex]) -> tuple[str, ...]:
    """Where a container of these layers, oldest first, would find a device node outside of /dev: each name of it. Raises BadDevices."""
    found = {entry.path for layer in layers for entry in layer.specials if entry.kind in (CHAR, BLOCK)}
    if not found:
        return ()
    view = StackedIndex(layers)
    landed = view.landed
    devices = {entry.path for layer in landed for entry in layer.specials if entry.kind in (CHAR, BLOCK)}
    while linked := {entry.path for layer in landed for entry in layer.listed if entry.kind == HARDLINK and entry.link in devices} - devices:
        devices |= linked
    dev = view.find(b"dev", digest=False)
    covered = dev is not None and dev.entry.kind == DIRECTORY
    reachable = sorted(path for path in devices if not (covered and path.startswith(b"dev/")) and _is_device(view, path))
    if len(reachable) > DEVICES:
        raise BadDevices(f"the image has {len(reachable):,} device nodes outside of /dev; {DEVICES:,} is the most", where=shown(reachable[0]), mend=_MEND)
    return tuple(_told(path) for path in reachable)


def _is_device(view: StackedIndex, path: bytes) -> bool:
    found = view.find(path, digest=False)
    return found is not None and found.entry.kind in (CHAR, BLOCK, HARDLINK)


def _told(path: bytes) -> str:
    try:
        return "/" + path.decode()
    except UnicodeDecodeError:
        raise BadDevices("a device node whose name is not UTF-8", where=shown(path), mend=_MEND) from None
