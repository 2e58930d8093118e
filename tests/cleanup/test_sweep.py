"""A sweep over a real store, with other processes that come in between."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layerwright.cleanup import sweep as sweeping
from layerwright.cleanup.clean_up import clean_up
from layerwright.cleanup.limit import Limit
from layerwright.cleanup.policy import plan
from layerwright.cleanup.purge import BuildsRun, purge, refuse_running
from layerwright.cleanup.sweep import StoreIsBusy, sweep
from layerwright.host.files import remove_tree
from layerwright.oci.digest import digest_of
from layerwright.storage.contract import MissingBlob
from layerwright.storage.disk_use import disk_use
from layerwright.storage.local import LocalStore
from layerwright.storage.records import ContentDigest, Record
from layerwright.storage.removal import Hands
from layerwright.storage.survey import survey
from layerwright.storage.uses import User, record_use
from tests.storage.test_kept_states import STATE
from tests.storage.values import in_child, layer_ref, layer_tar, record

HANDS = Hands(measure=disk_use, remove=remove_tree)
DAY = 24 * 3600


def tar(number: int) -> bytes:
    return layer_tar({f"file{number}": os.urandom(1)[:0] + b"x" * 3000})


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def publish(store: LocalStore, number: int, *layers: int, days: int = 0) -> Record:
    """An image of layers that are in the store as tars, last used some days ago, by a process that has ended."""
    with LocalStore(store.paths.home) as maker:
        for one in layers:
            maker.add_blob(tar(one))
        made = maker.publish(record(f"image {number}", tuple(layer_ref(tar(one)) for one in layers)))
    used = time.time() - days * DAY
    os.utime(store.paths.record("image", made.digest), (used, used))
    return made


def is_there(store: LocalStore, made: Record) -> bool:
    with LocalStore(store.paths.home) as other:
        return other.find_image(ContentDigest(made.digest)) is not None


def planned(store: LocalStore) -> Any:
    inventory = survey(store)
    return inventory, plan(inventory, to_free=10**12, now_ns=time.time_ns(), users=store.uses.others()).drops


def test_what_a_process_uses_stays_and_goes_once_it_has_ended(store: LocalStore) -> None:
    images = [publish(store, number, number, days=9 - number) for number in range(3)]
    with LocalStore(store.paths.home) as user:
        assert user.find_image(ContentDigest(images[0].digest)) == images[0]
        os.utime(store.paths.record("image", images[0].digest), (1, 1))
        with LocalStore(store.paths.home) as cleaner:
            done = clean_up(cleaner, Limit(0, 0, False), HANDS, now_ns=time.time_ns())
        assert [is_there(store, one) for one in images] == [True, False, False]
        assert done.short_bytes > 0
        assert user.read_blob(digest_of(tar(0))) == tar(0)
    with LocalStore(store.paths.home) as cleaner:
        clean_up(cleaner, Limit(0, 0, False), HANDS, now_ns=time.time_ns())
    assert not is_there(store, images[0])


def test_what_is_noted_between_the_plan_and_the_sweep_stays_whole(store: LocalStore) -> None:
    """Found by one process, published by another that has ended since, and touched by a third: over layers that were to go."""
    found, shared, touched, other = (publish(store, number, 9, number, days=5) for number in range(4))
    with LocalStore(store.paths.home) as cleaner, LocalStore(store.paths.home) as user:
        inventory, drops = planned(cleaner)
        assert len(drops) == 4
        user.find_image(ContentDigest(found.digest))
        with LocalStore(store.paths.home) as builder:
            fresh = builder.publish(record("fresh", (layer_ref(tar(1)),)))
        os.utime(store.paths.record("image", touched.digest))
        swept = sweep(cleaner, inventory, drops, remove=remove_tree)
        assert {one.drop.name for one in swept.skipped} == {
            os.path.relpath(store.paths.record("image", one.digest), store.paths.home) for one in (found, touched)
        }
    assert [is_there(store, one) for one in (found, fresh, touched, shared, other)] == [True, True, True, False, False]
    assert not store.has_blob(digest_of(tar(3)))


def test_a_thing_that_was_written_anew_is_not_the_one_that_was_to_go(store: LocalStore) -> None:
    orphan = store.add_blob(tar(5))
    store.close()
    with LocalStore(store.paths.home) as cleaner:
        inventory, drops = planned(cleaner)
        assert [drop.kind for drop in drops] == ["blob"]
        with LocalStore(store.paths.home) as builder:
            builder.add_blob(tar(5))
        assert sweep(cleaner, inventory, drops, remove=remove_tree).freed_bytes == 0
    assert store.has_blob(orphan)


def test_a_process_that_cannot_note_anything_keeps_everything(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = publish(store, 1, 1, days=3)
    monkeypatch.setattr("layerwright.storage.uses._PATIENCE_S", 0.05)
    with LocalStore(store.paths.home) as user, LocalStore(store.paths.home) as cleaner:
        inventory, drops = planned(cleaner)
        with monkeypatch.context() as broken:
            broken.setattr(type(user.uses), "_write", _no_space)
            user.uses.add(record_use("image", made.digest))
        with pytest.raises(StoreIsBusy):
            sweep(cleaner, inventory, drops, remove=remove_tree)
    assert is_there(store, made)


def _no_space(self: object, names: object) -> None:
    raise OSError(28, "No space left on device")


def test_kept_for_another_root_a_shared_thing_stays(store: LocalStore) -> None:
    """The last root that needs a layer takes it along, unless one before it had to stay after all."""
    first, last = publish(store, 1, 7, days=5), publish(store, 2, 7, days=4)
    with LocalStore(store.paths.home) as cleaner:
        inventory, drops = planned(cleaner)
        os.utime(store.paths.record("image", first.digest))
        sweep(cleaner, inventory, drops, remove=remove_tree)
    assert is_there(store, first)
    assert not is_there(store, last)


@pytest.mark.parametrize("at", range(1, 12, 2))
def test_killed_in_the_middle_each_image_is_whole_or_gone(store: LocalStore, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [publish(store, number, number, 99, days=9 - number) for number in range(6)]
    store.close()
    monkeypatch.setattr(sweeping, "BATCH", 2)

    def dying() -> None:
        real: Callable[..., None] = os.rename
        seen = 0

        def rename(*arguments: Any, **named: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*arguments, **named)

        os.rename = rename
        with LocalStore(store.paths.home) as cleaner:
            clean_up(cleaner, Limit(0, 0, False), HANDS, now_ns=time.time_ns())

    assert in_child(dying) == -signal.SIGKILL
    with LocalStore(store.paths.home) as after:
        for path in Path(store.paths.records("image")).rglob("*.json"):
            assert after.find_image(ContentDigest(path.stem)) is not None, "a record that is there has all its layers"
        again = clean_up(after, Limit(0, 0, False), HANDS, now_ns=time.time_ns(), force=True)
        assert again.swept.skipped == []
    assert not any(is_there(store, one) for one in images)
    assert [name for name in os.listdir(store.paths.work) if os.listdir(os.path.join(store.paths.work, name)) != ["uses"]] == []


def test_stopped_it_leaves_the_rest_for_the_next_one(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [publish(store, number, number, days=9 - number) for number in range(4)]
    monkeypatch.setattr(sweeping, "BATCH", 1)
    answers = iter([False, False, True])
    with LocalStore(store.paths.home) as cleaner:
        done = clean_up(cleaner, Limit(0, 0, False), HANDS, now_ns=time.time_ns(), stop=lambda: next(answers))
    assert done.swept.stopped
    assert [is_there(store, one) for one in images] == [False, False, True, True]


def test_a_purge_names_who_works_there(store: LocalStore) -> None:
    made = publish(store, 1, 1)
    store.find_image(ContentDigest(made.digest))
    with LocalStore(store.paths.home) as cleaner, pytest.raises(BuildsRun) as caught:
        purge(cleaner, HANDS)
    assert str(os.getpid()) in caught.value.what
    assert is_there(store, made)
    with LocalStore(store.paths.home) as cleaner:
        purge(cleaner, HANDS, force=True)
    assert not is_there(store, made)


def test_further_directories_of_a_process_that_is_named_are_no_strangers() -> None:
    named = User(path="/store/work/1", pid=4711, began_ns=1, names=frozenset())
    further = User(path="/store/work/2", pid=0, began_ns=0, names=frozenset())
    with pytest.raises(BuildsRun, match=r"in use by process 4711\n"):
        refuse_running((named, further), "/store")
    with pytest.raises(BuildsRun, match=r"in use by process unknown \(/store/work/2\)\n"):
        refuse_running((further,), "/store")


def test_a_purge_leaves_what_is_not_the_stores(store: LocalStore) -> None:
    """A home that was named by mistake: $HOME itself, say, where pictures are in a folder called images."""
    publish(store, 1, 1)
    store.put_index(layer_ref(tar(1)).diff_id, {"skeleton": b"s", "files": b"f", "digests": b"d"})
    store.close()
    home = Path(store.paths.home)
    foreign = [home / name for name in ("images/cat.jpeg", "layers/map.svg", "indexes/books.txt", "mounts/a disk/file", "notes.txt")]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not ours")
    with LocalStore(store.paths.home) as cleaner:
        purge(cleaner, HANDS)
    assert sorted(path for path in home.rglob("*") if not path.is_dir()) == sorted(foreign)


def test_sizes_are_what_the_disk_says(store: LocalStore) -> None:
    publish(store, 1, 1, 2)
    os.makedirs(os.path.join(store.paths.home, "trees.root", "a" * 64, "d"))
    tree = Path(store.paths.home, "trees.root", "a" * 64)
    (tree / "one").write_bytes(b"x" * 10_000)
    os.link(tree / "one", tree / "two")
    store.close()
    with LocalStore(store.paths.home) as reader:
        reader.uses.others()
        reader.memo_put("x", {})
        first = survey(reader)
        assert abs(first.total_bytes - disk_use(store.paths.home)) <= 8192, "the survey's own memo came after"
        assert survey(reader, measure=lambda path: 1 // 0).things[f"trees.root/{'a' * 64}"].size_bytes == disk_use(str(tree)), "a tree is measured once"


def test_a_layer_that_was_taken_before_it_was_noted_is_not_published_over(store: LocalStore) -> None:
    """A build makes a layer that lies there already, unneeded, and a sweep that was planned before takes it: the build has to hear of it."""
    store.add_blob(tar(3))
    store.close()
    with LocalStore(store.paths.home) as cleaner, LocalStore(store.paths.home) as builder:
        inventory, drops = planned(cleaner)
        assert builder.has_blob(digest_of(tar(3)))
        assert sweep(cleaner, inventory, drops, remove=remove_tree).freed_bytes > 0
        with pytest.raises(MissingBlob):
            builder.publish(record("late", (layer_ref(tar(3)),)))
        assert not Path(store.paths.record("image", record("late").digest)).exists()


def test_a_state_that_was_kept_since_the_survey_keeps_its_layers(store: LocalStore) -> None:
    """By a process that has ended by then, over layers of an image that goes."""
    made = publish(store, 1, 4, days=5)
    with LocalStore(store.paths.home) as cleaner:
        inventory, drops = planned(cleaner)
        with LocalStore(store.paths.home) as builder:
            builder.kept_states.keep(replace(STATE, layers=made.diff_ids))
        sweep(cleaner, inventory, drops, remove=remove_tree)
    assert store.has_blob(digest_of(tar(4)))
