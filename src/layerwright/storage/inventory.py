"""What a store holds, as values: things that take room, and the roots that need them. Read from the disk by `storage.survey`, judged by `cleanup.policy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

ThingKind = Literal["blob", "tree", "index", "holding", "memo", "lock", "leftover", "damaged"]
RootKind = Literal["image", "stage", "reference", "kept state", "build_dir"]
CopyKind = Literal["tar", "packed", "tree", "chain tree", "foreign tree"]


class Thing(NamedTuple):
    """Something that takes room and that nobody asks for by itself. `name` is its path below the store's home; "indexes/<64>" stands for all parts.

    `changed_ns`: when it was put there (ctime). "leftover": of a dead process; "damaged": a record or reference that cannot be read.
    """

    name: str
    kind: ThingKind
    size_bytes: int
    changed_ns: int


class Root(NamedTuple):
    """Something that is asked for by its name, and all that it needs; it goes before what it needs.

    `layers`: diff ids; `blobs`: digests. An image names the `stages` it went through, the image of the same file it stands on (`base`, a
    content digest) or the external one (`manifest`). `held`: somebody is in it now.
    """

    name: str
    kind: RootKind
    size_bytes: int
    last_use_ns: int
    digest: str = ""
    project: str = ""
    image: str = ""
    layers: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    base: str = ""
    manifest: str = ""
    loaded: bool = False
    held: bool = False

    @property
    def label(self) -> str:
        """Whose it is, for people."""
        if self.kind == "reference":
            return self.image
        return f"{self.project}/{self.image or '~'}" if self.kind != "build_dir" else self.project


class Copy(NamedTuple):
    """One form in which a layer is here. "foreign tree": of another way of mapping owners, so not of use to this user now."""

    thing: str
    kind: CopyKind


class Layer(NamedTuple):
    """A layer that some root needs: `copies` that are here, and what belongs to it besides (index, holding). `made`: by what; "" if only kept states know."""

    diff_id: str
    copies: tuple[Copy, ...]
    belongings: tuple[str, ...]
    made: Literal["base", "declared", "commands", ""]
    indexed: bool
    origin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """A store at one time. `total_bytes` is all it takes, directories and what is not listed included; `blob_things`: names of blobs by digest."""

    home: str
    total_bytes: int
    things: Mapping[str, Thing]
    roots: tuple[Root, ...]
    layers: Mapping[str, Layer]

    def things_of(self, root: Root) -> tuple[str, ...]:
        """The names of all things that a root needs, every copy of its layers included."""
        return self.needed(root.layers, root.blobs)

    def needed(self, layers: tuple[str, ...], blobs: tuple[str, ...]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for diff_id in layers:
            if (layer := self.layers.get(diff_id)) is not None:
                found.update(dict.fromkeys(copy.thing for copy in layer.copies))
                found.update(dict.fromkeys(layer.belongings))
        found.update((name, None) for digest in blobs if (name := blob_name(digest)) in self.things)
        return tuple(found)


def blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest[7:9]}/{digest[7:]}"
