from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.cleanup.policy import Plan, in_use, plan
from layerwright.storage.inventory import Inventory, Thing, blob_name
from layerwright.storage.uses import User
from tests.cleanup.inventories import HOUR, NOW, digest, inventories, inventory, layer, root, users_of


def dropped(found: Plan) -> list[str]:
    return [drop.name for drop in found.drops]


def user(*names: str, began_ns: int = NOW - HOUR) -> User:
    return User("/store/work/1", 4711, began_ns, frozenset(names))


def test_nothing_goes_while_there_is_room() -> None:
    held = inventory([root("image", 1, layers=[1])], [layer(1, "tar", "tree")])
    found = plan(held, to_free=0, now_ns=NOW)
    assert found.drops == ()
    assert [one.reason for one in found.kept] == ["there is room for it"]


def test_what_nothing_needs_goes_always() -> None:
    orphan, dead = Thing(blob_name(digest(7)), "blob", 500, 0), Thing("work/1", "leftover", 100, NOW)
    held = inventory([root("image", 1, layers=[1])], [layer(1, "tar")], [orphan, dead, Thing("memo/1.json", "memo", 10, 0)])
    found = plan(held, to_free=0, now_ns=NOW)
    assert {drop.name: drop.reason for drop in found.drops} == {orphan.name: "nothing needs it", dead.name: "left behind by a process that died"}
    assert found.freed_bytes == 600


def test_what_is_younger_than_a_running_build_may_be_in_the_making() -> None:
    old, young = Thing(blob_name(digest(7)), "blob", 500, NOW - 2 * HOUR), Thing(blob_name(digest(8)), "blob", 500, NOW)
    held = inventory([], [], [old, young])
    assert dropped(plan(held, to_free=0, now_ns=NOW, users=[user()])) == [old.name]
    assert dropped(plan(held, to_free=0, now_ns=NOW)) == [old.name, young.name]


def test_the_least_recently_used_goes_first_and_takes_what_only_it_needs() -> None:
    roots = [root("image", 1, hours=3, layers=[1, 3]), root("image", 2, hours=2, layers=[2, 3]), root("image", 3, hours=1, layers=[3])]
    held = inventory(roots, [layer(1, "tar"), layer(2, "tar"), layer(3, "tar")])
    found = plan(held, to_free=4096 + 1020 + 1, now_ns=NOW)
    assert [(drop.name, drop.size_bytes) for drop in found.drops] == [(roots[0].name, 5116), (roots[1].name, 5116)]
    assert set(found.drops[0].things) == {blob_name(digest(1)), f"indexes/{digest(1)[7:]}", f"layers/{digest(1)[7:]}.json"}
    assert found.short_bytes == 0


@pytest.mark.parametrize(
    ("made", "copies", "goes"),
    [
        ("declared", ("tar", "tree", "packed"), ["tree", "packed"]),
        ("commands", ("tree", "packed"), ["packed"]),
        ("commands", ("tree", "tar", "packed"), ["tar", "packed"]),
        ("commands", ("packed", "foreign tree"), ["foreign tree"]),
        ("commands", ("foreign tree",), []),
        ("base", ("packed", "tree", "chain tree"), ["tree", "chain tree"]),
        ("base", ("tree",), []),
        ("declared", ("tar",), []),
    ],
)
def test_spare_copies_go_before_what_is_not_four_times_as_old(made: str, copies: tuple[str, ...], goes: list[str]) -> None:
    one = layer(1, *copies, made=made)
    held = inventory([root("image", 1, hours=1, layers=[1]), root("image", 2, hours=3)], [one])
    places: dict[str, str] = {copy.kind: copy.thing for copy in one[0].copies}
    found = plan(held, to_free=1000 * len(goes), now_ns=NOW)
    assert sorted(dropped(found)) == sorted(places[kind] for kind in goes)
    older = inventory([root("image", 1, hours=1, layers=[1]), root("image", 2, hours=5)], [one])
    assert dropped(plan(older, to_free=1, now_ns=NOW)) == [root("image", 2).name]


def test_what_an_image_reference_names_is_no_spare_copy() -> None:
    one = layer(1, "packed", "tar", made="commands")
    held = inventory([root("reference", 1, layers=[1], blobs=(digest(10_001),), loaded=True)], [one])
    assert blob_name(digest(10_001)) not in dropped(plan(held, to_free=10**9, now_ns=NOW))


def test_an_image_in_use_keeps_its_stages_its_base_and_all_their_copies() -> None:
    stage = root("stage", 9, hours=9, layers=[1])
    base = root("image", 1, hours=9, layers=[1], stages=(stage.digest,))
    derived = root("image", 2, hours=9, layers=[1, 2], base=base.digest)
    held = inventory([stage, base, derived, root("image", 3, hours=1)], [layer(1, "tar", "tree"), layer(2, "tar", "tree")])
    found = plan(held, to_free=10**9, now_ns=NOW, users=[user(f"record image {derived.digest}")])
    assert dropped(found) == [root("image", 3).name]
    assert {one.reason for one in found.kept} == {"in use by process 4711"}
    assert found.short_bytes > 0


def test_a_base_is_as_young_as_what_stands_on_it_and_goes_after_it() -> None:
    base = root("image", 1, hours=9, layers=[1])
    derived = root("image", 2, hours=1, layers=[1], base=base.digest)
    other = root("image", 3, hours=2)
    held = inventory([base, derived, other], [layer(1, "tar")])
    assert dropped(plan(held, to_free=10**9, now_ns=NOW)) == [other.name, derived.name, base.name]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (root("reference", 1, hours=9, loaded=True), "loaded from a file"),
        (root("kept state", 1, hours=9, held=True), "somebody is in it"),
        (root("build_dir", 1, hours=24 * 29), "used within 30 days"),
    ],
)
def test_what_never_goes(one: object, reason: str) -> None:
    found = plan(inventory([one]), to_free=10**9, now_ns=NOW)  # type: ignore[list-item]
    assert found.drops == ()
    assert reason in found.kept[0].reason


def test_a_build_dir_goes_once_its_project_is_long_unused() -> None:
    old = root("build_dir", 1, hours=24 * 31)
    assert dropped(plan(inventory([old]), to_free=1, now_ns=NOW)) == [old.name]
    used = inventory([old, root("image", 2, hours=24 * 2)])
    assert old.name not in dropped(plan(used, to_free=10**9, now_ns=NOW))


def test_what_has_just_been_used_stays_after_a_build() -> None:
    held = inventory([root("image", 1, hours=0, layers=[1]), root("image", 2, hours=1)], [layer(1, "tar", "tree")])
    assert dropped(plan(held, to_free=10**9, now_ns=NOW, keep_since_ns=NOW - HOUR // 2)) == [root("image", 2).name]


# Laws.


def after(held: Inventory, found: Plan) -> tuple[set[str], set[str]]:
    """What is left: roots, and things."""
    gone = {drop.name for drop in found.drops} | {name for drop in found.drops for name in drop.things}
    return {one.name for one in held.roots} - gone, set(held.things) - gone


@given(data=st.data(), held=inventories(), share=st.integers(0, 130))
def test_no_plan_breaks_what_stays(data: st.DataObject, held: Inventory, share: int) -> None:
    users = data.draw(users_of(held))
    to_free = held.total_bytes * share // 100
    found = plan(held, to_free=to_free, now_ns=NOW, users=users)
    roots, things = after(held, found)
    used = in_use(users, held.roots)
    by_name = {one.name: one for one in held.roots}
    for name in roots:
        for diff_id in by_name[name].layers:
            copies = {copy.thing for copy in held.layers[diff_id].copies}
            assert copies & things, "a root that stays has a copy of each of its layers"
            assert set(held.layers[diff_id].belongings) <= things
        assert {blob_name(one) for one in by_name[name].blobs} & held.things.keys() <= things
    kept_images = {by_name[name].digest for name in roots if by_name[name].kind == "image"}
    bases = {by_name[name].base for name in roots} & {one.digest for one in held.roots} - {""}
    assert bases <= kept_images, "no image is left without the one that it stands on"
    assert used.roots.keys() <= roots
    assert set(held.needed(tuple(used.layers), ())) <= things, "nothing of what a process uses goes"
    assert {one.name for one in held.roots if one.held or one.loaded} <= roots


@given(data=st.data(), held=inventories(), share=st.integers(0, 130))
def test_a_plan_frees_enough_or_all_that_may_go(data: st.DataObject, held: Inventory, share: int) -> None:
    users = data.draw(users_of(held))
    to_free = held.total_bytes * share // 100
    found = plan(held, to_free=to_free, now_ns=NOW, users=users)
    roots, things = after(held, found)
    left = sum(held.things[name].size_bytes for name in things) + sum(one.size_bytes for one in held.roots if one.name in roots)
    assert held.total_bytes - left == found.freed_bytes, "sizes add up, and nothing is dropped twice"
    assert found.short_bytes == max(to_free - found.freed_bytes, 0)
    if found.short_bytes:
        everything = plan(held, to_free=10**12, now_ns=NOW, users=users)
        assert everything.freed_bytes == found.freed_bytes


@given(data=st.data(), held=inventories())
def test_a_larger_aim_goes_on_where_a_smaller_one_ended(data: st.DataObject, held: Inventory) -> None:
    small, large = sorted(data.draw(st.tuples(st.integers(0, held.total_bytes), st.integers(0, held.total_bytes))))
    first, second = (plan(held, to_free=aim, now_ns=NOW).drops for aim in (small, large))
    assert second[: len(first)] == first
