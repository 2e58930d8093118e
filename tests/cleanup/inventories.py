"""Inventories to judge, written by hand or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from layerwright.storage.inventory import Copy, Inventory, Layer, Root, Thing, blob_name
from layerwright.storage.uses import User

NOW = 1_000 * 24 * 3600 * 10**9
HOUR = 3600 * 10**9


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def name_of(number: int) -> str:
    """A content or stage digest."""
    return f"{number:056x}"


def root(kind: Any, number: int, *, hours: float = 1, layers: Sequence[int] = (), size: int = 4096, **more: Any) -> Root:
    name = {"image": f"records/image/00/{name_of(number)}.json", "stage": f"records/stage/00/{name_of(number)}.json", "reference": f"images/{number}.json"}
    return Root(
        name=name.get(kind, f"{kind}/{number}"),
        kind=kind,
        size_bytes=size,
        last_use_ns=NOW - int(hours * HOUR),
        digest=name_of(number) if kind in ("image", "stage") else "",
        **{"project": "p", "image": f"i{number}", "layers": tuple(digest(one) for one in layers), **more},
    )


def layer(number: int, *kinds: Any, made: Any = "declared", origin: bool = False) -> tuple[Layer, list[Thing]]:
    """A layer with copies of these kinds, of 1000 bytes each, an index and a holding."""
    hex_digits = digest(number)[7:]
    places = {
        "tar": blob_name(digest(number)),
        "packed": blob_name(digest(number + 10_000)),
        "tree": f"trees.root/{hex_digits}",
        "foreign tree": f"trees.user-1/{hex_digits}",
        "chain tree": f"trees.root/{digest(number + 20_000)[7:]}",
    }
    copies = tuple(Copy(places[kind], kind) for kind in kinds)
    belongings = (f"indexes/{hex_digits}", f"layers/{hex_digits}.json")
    things = [Thing(one.thing, "blob" if one.kind in ("tar", "packed") else "tree", 1000, 0) for one in copies]
    things += [Thing(belongings[0], "index", 10, 0), Thing(belongings[1], "holding", 10, 0)]
    return Layer(digest(number), copies, belongings, made, True, origin), things


def inventory(roots: Sequence[Root], layers: Sequence[tuple[Layer, list[Thing]]] = (), things: Sequence[Thing] = ()) -> Inventory:
    known = {thing.name: thing for one in [*(thing for _, found in layers for thing in found), *things] for thing in (one,)}
    total = sum(thing.size_bytes for thing in known.values()) + sum(one.size_bytes for one in roots)
    return Inventory(home="/store", total_bytes=total, things=known, roots=tuple(roots), layers={one.diff_id: one for one, _ in layers})


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """Layers in several forms; images over stages and over one another; references, build_dirs, kept states, and what nothing needs."""
    kinds = st.lists(st.sampled_from(["tar", "packed", "tree", "foreign tree", "chain tree"]), min_size=1, max_size=4, unique=True)
    made = st.sampled_from(["base", "declared", "commands"])
    layers = [layer(number, *draw(kinds), made=draw(made), origin=draw(st.booleans())) for number in range(draw(st.integers(0, 6)))]
    some = st.lists(st.integers(0, len(layers) - 1), max_size=4, unique=True) if layers else st.just([])
    hours = st.integers(0, 5)
    stages = [root("stage", 100 + number, hours=draw(hours), layers=draw(some)) for number in range(draw(st.integers(0, 4)))]
    images: list[Root] = []
    for number in range(draw(st.integers(0, 5))):
        through = tuple(one.digest for one in draw(st.lists(st.sampled_from(stages), max_size=2))) if stages else ()
        base = draw(st.sampled_from([one.digest for one in images] + [""]))
        images.append(root("image", 200 + number, hours=draw(hours), layers=draw(some), stages=through, base=base))
    others = [root("reference", 300 + number, hours=draw(hours), layers=draw(some), loaded=draw(st.booleans())) for number in range(draw(st.integers(0, 2)))]
    others += [root("kept state", 400 + number, hours=draw(hours), layers=draw(some), held=draw(st.booleans())) for number in range(draw(st.integers(0, 1)))]
    others += [root("build_dir", 500, hours=draw(st.sampled_from([1, 24 * 100])), project=draw(st.sampled_from(["p", "q"])))] if draw(st.booleans()) else []
    orphans = [Thing(blob_name(digest(90_000 + number)), "blob", 500, draw(st.sampled_from([0, NOW]))) for number in range(draw(st.integers(0, 2)))]
    roots = [*stages, *images, *others]
    needed = {one for each in roots for one in each.layers}
    known = [one for one in layers if one[0].diff_id in needed]
    return inventory(roots, known, [*orphans, *(thing for one, found in layers if one.diff_id not in needed for thing in found)])


@st.composite
def users_of(draw: st.DrawFn, held: Inventory) -> list[User]:
    """Processes that use some of it."""
    notes = [f"record {one.kind} {one.digest}" for one in held.roots if one.digest] + [f"path {one.name}" for one in held.roots if not one.digest]
    notes += [f"layer {one}" for one in held.layers]
    chosen = draw(st.lists(st.lists(st.sampled_from(notes), max_size=3), max_size=2)) if notes else []
    return [User(f"/store/work/{number}", 1000 + number, NOW - HOUR, frozenset(names)) for number, names in enumerate(chosen)]
