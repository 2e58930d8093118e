"""Which copies of a layer could be made again from another one that stays. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from layerwright.storage.inventory import Copy, CopyKind, Inventory, Layer

# The copy to keep, the best first. A base's bytes cannot be made from its tree; what commands left has no other form than its tree, at first.
_BEST: Mapping[str, tuple[CopyKind, ...]] = {
    "base": ("packed", "tar"),
    "declared": ("tar", "tree", "packed"),
    "commands": ("tree", "tar", "packed"),
    "": ("packed", "tar"),
}
_AGAIN = {
    "tar": "can be written again from the unpacked layer",
    "packed": "can be packed again",
    "tree": "can be unpacked again",
    "chain tree": "can be unpacked again",
    "foreign tree": "unpacked for another user or another id map; can be unpacked again",
}


class Spare(NamedTuple):
    """A copy that is not the only one. `last_use_ns`: of the layer."""

    thing: str
    layer: str
    last_use_ns: int
    label: str
    reason: str


def spare_copies(inventory: Inventory, uses: Mapping[str, int]) -> Iterator[Spare]:
    """Every copy of a layer besides the best; not what an image reference names by its digest."""
    last: dict[str, tuple[int, str]] = {}
    named = {digest for root in inventory.roots for digest in root.blobs}
    held = {layer for root in inventory.roots if root.held for layer in root.layers}
    for root in inventory.roots:
        for diff_id in root.layers:
            last[diff_id] = max(last.get(diff_id, (0, "")), (uses[root.name], root.label))
    kept = {copy.thing for layer in inventory.layers.values() if (copy := best(layer)) is not None}
    for layer in inventory.layers.values():
        found = best(layer)
        if found is None or layer.diff_id in held:
            continue
        for copy in layer.copies:
            if copy.thing not in kept and f"sha256:{copy.thing[-64:]}" not in named:
                used_ns, label = last[layer.diff_id]
                yield Spare(copy.thing, layer.diff_id, used_ns, label, _AGAIN[copy.kind])


def best(layer: Layer) -> Copy | None:
    """The copy from which all others can be made; None if there is none, and then every copy is needed."""
    for kind in _BEST[layer.made]:
        for copy in layer.copies:
            if copy.kind == kind and (kind != "tree" or layer.indexed):
                return copy
    return None
