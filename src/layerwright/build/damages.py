"""What a damage of the store means: which records and references are left without a part, and what brings back the rest. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerwright.storage.inventory import Inventory, Layer, Root, blob_name
from layerwright.storage.verify import Damage

_MEANS = {
    "record": "the stage or image is built again when it is asked for",
    "memo": "the next build looks at more",
    "holding": "a packed form of the layer, or where it came from, may not be found any more",
    "kept state": "it cannot be entered any more",
    "key": "a new one is made",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """`roots`: names of images and stages that lack something now, and what; `kinds`: of them. `layers`: of each thing the layers it is a copy of."""

    inventory: Inventory
    damaged: frozenset[str]
    roots: Mapping[str, str]
    kinds: Mapping[str, str]
    layers: Mapping[str, tuple[str, ...]]

    def means(self, damage: Damage) -> str:
        if damage.kind in _MEANS:
            return _MEANS[damage.kind]
        if damage.kind == "reference":
            loaded = any(root.name == damage.name and root.loaded for root in self.inventory.roots)
            return "load it again: layerwright image load" if loaded else "it is pulled again when a build needs it"
        if damage.kind == "index":
            return "it is made again from the layer"
        layers = [self.inventory.layers[one] for one in self.layers.get(damage.name, ())]
        if not layers:
            return "nothing needs it" if not self._is_needed(damage) else "what needs it is built, pulled or loaded again"
        if all(is_held(layer, self.damaged) for layer in layers):
            origin = all(not _copies(layer, self.damaged) for layer in layers)
            return "it is fetched again when it is needed" if origin else "another copy of the layer is whole; this one is made again when it is needed"
        return "the layer is lost; what needs it is built, pulled or loaded again"

    def _is_needed(self, damage: Damage) -> bool:
        return any(blob_name(digest) == damage.name for root in self.inventory.roots for digest in root.blobs)


def losses_of(inventory: Inventory, damages: Sequence[Damage]) -> Losses:
    damaged = frozenset(damage.name for damage in damages)
    layers: dict[str, tuple[str, ...]] = {}
    for layer in inventory.layers.values():
        for copy in layer.copies:
            layers[copy.thing] = (*layers.get(copy.thing, ()), layer.diff_id)
    roots = {root.name: lack for root in inventory.roots if root.kind in ("image", "stage") and (lack := _lack(inventory, root, damaged))}
    kinds = {root.name: root.kind for root in inventory.roots}
    return Losses(inventory=inventory, damaged=damaged, roots=roots, kinds=kinds, layers=layers)


def is_held(layer: Layer, damaged: frozenset[str]) -> bool:
    """Whether the layer can be had without building it: as `LocalStore.missing` has it."""
    return bool(_copies(layer, damaged)) or (layer.made == "base" and layer.origin)


def _copies(layer: Layer, damaged: frozenset[str]) -> list[str]:
    indexed = layer.indexed and f"indexes/{layer.diff_id[7:]}" not in damaged
    return [copy.thing for copy in layer.copies if copy.thing not in damaged and (indexed or copy.kind in ("tar", "packed"))]


def _lack(inventory: Inventory, root: Root, damaged: frozenset[str]) -> str:
    """What of an image or stage is gone, in words; "" if it is whole."""
    if root.name in damaged:
        return ""  # told by itself
    for diff_id in root.layers:
        layer = inventory.layers.get(diff_id)
        if layer is None or not is_held(layer, damaged):
            return f"its layer {diff_id} is gone or damaged"
    for digest in root.blobs:
        name = blob_name(digest)
        if digest != root.manifest and (name in damaged or name not in inventory.things):
            return f"its list of sources {digest} is gone or damaged"
    return ""
