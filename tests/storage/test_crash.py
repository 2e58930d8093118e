"""A process killed at any write leaves a store in which everything is absent or whole, and which the next run uses as it is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from layerwright.oci.digest import BlobDigest, digest_of
from layerwright.oci.manifest import OCI_LAYER_GZIP, Descriptor
from layerwright.storage.holdings import Origin
from layerwright.storage.images import StoredImage
from layerwright.storage.local import LocalStore
from layerwright.storage.records import ContentDigest, Record
from tests.storage.contract import LAYER, OTHER_LAYER, PARTS, STATE
from tests.storage.values import in_child, layer_ref, record, start_child

WRITES = ("open", "mkdir", "link", "rename", "fsync", "unlink", "rmdir", "utime")
COMPRESSED = b"compressed" * 100
RECORD = record("one", (layer_ref(LAYER), layer_ref(OTHER_LAYER, size=-1)), states=(digest_of(STATE),))
IMAGE = StoredImage(
    reference="docker.io/library/alpine:3", platform="linux/amd64", manifest=digest_of(STATE), named=digest_of(STATE), source="load", added_ms=1, size=1
)


def build(home: str) -> Record:
    """Everything a build writes, in the order it does."""
    with LocalStore(home) as store:
        with store.lock(RECORD.digest), store.work() as work:
            with store.new_blob(digest_of(LAYER), size=len(LAYER)) as out:
                out.write(LAYER)
            store.put_index(layer_ref(LAYER).diff_id, PARTS)
            os.makedirs(os.path.join(work.path, "tree", "etc"))
            store.adopt_tree(os.path.join(work.path, "tree"), "root", layer_ref(LAYER).diff_id)
            compressed = Descriptor(media_type=OCI_LAYER_GZIP, digest=store.add_blob(COMPRESSED), size=len(COMPRESSED))
            store.note_layer(layer_ref(OTHER_LAYER).diff_id, blobs=(compressed,), origins=(Origin("docker.io/a/b", compressed),))
            store.add_blob(STATE)
            published = store.publish(RECORD)
        store.images.add(IMAGE)
        store.memo_put("key", {"finished": published.digest})
        store.secret_key()
        return published


def dying(home: str, at: int, *, before: bool) -> None:
    """Build, and be killed before or after the write number `at`."""
    seen = 0

    def counted(real: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if before and seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return real(*arguments, **named)
        finally:
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    for name in WRITES:
        setattr(os, name, partial(counted, getattr(os, name)))
    build(home)


def assert_absent_or_whole(home: str) -> None:
    store = LocalStore(home)
    assert store.find_image(ContentDigest(RECORD.digest)) in (None, RECORD)
    for content in (LAYER, COMPRESSED, STATE):
        if store.has_blob(digest_of(content)):
            assert store.read_blob(digest_of(content)) == content
    for part, content in PARTS.items():
        assert store.index_part(layer_ref(LAYER).diff_id, part) in (None, content)
    assert [one.digest for one in store.holding(layer_ref(OTHER_LAYER).diff_id).blobs] in ([], [digest_of(COMPRESSED)])
    assert store.images.all() in ((), (IMAGE,))
    assert store.memo_get("key") in (None, {"finished": RECORD.digest})
    for found in Path(home, "blobs").rglob("*"):
        assert found.is_dir() or digest_of(found.read_bytes()) == BlobDigest(f"sha256:{found.name}")


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_write(tmp_path: Path, before: bool) -> None:
    at = 0
    code = -signal.SIGKILL
    while code == -signal.SIGKILL:
        at += 1
        home = str(tmp_path / str(at))
        code = in_child(partial(dying, home, at, before=before))
        assert_absent_or_whole(home)
        assert build(home) == RECORD
        assert LocalStore(home).find_image(ContentDigest(RECORD.digest)) == RECORD
        assert os.listdir(os.path.join(home, "work")) == []
    assert code == 0
    assert at > 50  # there were that many writes


def test_killed_at_every_write_of_a_second_build_the_first_stays_whole(tmp_path: Path) -> None:
    """The same over a store that has everything: what is replaced is at no moment gone."""
    home = str(tmp_path)
    build(home)
    code, at = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        at += 1
        code = in_child(partial(dying, home, at, before=False))
        assert LocalStore(home).find_image(ContentDigest(RECORD.digest)) == RECORD
        assert_absent_or_whole(home)
    assert code == 0


def test_ten_processes_build_each_digest_once(tmp_path: Path) -> None:
    """Five projects' digests, two processes for each, at once: all succeed, and what a digest needs is made once."""

    def build_one(number: int) -> None:
        with LocalStore(str(tmp_path / "store")) as store:
            wanted = record(f"image {number % 5}", (layer_ref(LAYER + bytes([number % 5])),), commit=f"{number}" * 40)
            with store.lock(wanted.digest):
                if store.find_image(ContentDigest(wanted.digest)) is None:
                    with open(tmp_path / f"made-{number % 5}", "a") as made, store.work():
                        made.write("x")
                        store.add_blob(LAYER + bytes([number % 5]))
                        store.publish(wanted)

    children = [start_child(partial(build_one, number)) for number in range(10)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
    assert [(tmp_path / f"made-{number}").read_text() for number in range(5)] == ["x"] * 5
