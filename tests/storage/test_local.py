from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from layerwright.host.files import DiskFull
from layerwright.oci.digest import BlobDigest, ChainId, DiffId, chain_id, digest_of
from layerwright.oci.manifest import OCI_LAYER_GZIP, Descriptor
from layerwright.storage.contract import DamagedBlob, MissingBlob, StageStorage
from layerwright.storage.holdings import Origin
from layerwright.storage.local import LocalStore
from layerwright.storage.records import ContentDigest, LayerKind, Record
from tests.storage.contract import LAYER, PARTS, StageStorageContract
from tests.storage.values import layer_ref, record, start_child

ORIGIN = Origin(repository="docker.io/library/alpine", descriptor=Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"there"), size=5))


class TestContract(StageStorageContract):
    def open(self, place: Path) -> LocalStore:
        return LocalStore(str(place / "store"))

    def keep_blob(self, storage: StageStorage, content: bytes) -> BlobDigest:
        return local(storage).add_blob(content)

    def keep_index(self, storage: StageStorage, diff_id: DiffId, parts: dict[str, bytes]) -> None:
        local(storage).put_index(diff_id, parts)

    def lose_blob(self, storage: StageStorage, digest: BlobDigest) -> None:
        os.unlink(local(storage).paths.blob(digest))

    def damage_blob(self, storage: StageStorage, digest: BlobDigest) -> None:
        flip(local(storage).paths.blob(digest))

    def damage_record(self, storage: StageStorage, damaged: Record) -> None:
        flip(local(storage).paths.record(damaged.kind, damaged.digest))

    def damage_index(self, storage: StageStorage, diff_id: DiffId, part: str) -> None:
        flip(local(storage).paths.index(diff_id, part))


def local(storage: StageStorage) -> LocalStore:
    assert isinstance(storage, LocalStore)
    return storage


def flip(path: str) -> None:
    """Change one bit in the middle of a file."""
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        middle = os.path.getsize(path) // 2
        file.seek(middle)
        bit = file.read(1)[0] ^ 1
        file.seek(middle)
        file.write(bytes([bit]))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(str(tmp_path / "store")) as opened:
        yield opened


def test_opening_and_looking_makes_nothing(tmp_path: Path) -> None:
    with LocalStore(str(tmp_path / "store")) as store:
        assert store.find_image(ContentDigest(record("one").digest)) is None
        assert store.memo_get("key") is None
        assert store.holding(layer_ref(LAYER).diff_id).blobs == ()
        assert store.images.all() == ()
    assert os.listdir(tmp_path) == []


def test_it_needs_neither_sqlite_nor_tarfile_nor_a_registry() -> None:
    code = "import sys, layerwright.storage.local; print([m for m in sys.modules if m in ('sqlite3', 'tarfile', 'urllib3', 'tempfile', 'subprocess')])"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_closed_store_leaves_no_temporary_file(tmp_path: Path) -> None:
    with LocalStore(str(tmp_path / "store")) as store:
        store.add_blob(b"x")
        assert len(os.listdir(store.paths.work)) == 1
    assert os.listdir(store.paths.work) == []


def test_a_blob_is_checked_without_being_wanted(store: LocalStore) -> None:
    good, bad = store.add_blob(b"good"), store.add_blob(b"bad")
    os.chmod(store.blob_path(bad), 0o644)
    Path(store.blob_path(bad)).write_bytes(b"worse")
    store.check_blob(good)
    with pytest.raises(DamagedBlob):
        store.check_blob(bad)
    with pytest.raises(MissingBlob):
        store.check_blob(bad)


def test_an_opened_blob_is_verified_and_closed_by_who_asked(store: LocalStore) -> None:
    digest = store.add_blob(b"content")
    with store.opened_blob(digest) as stream:
        assert stream.read() == b"content"
    assert stream.closed
    os.chmod(store.blob_path(digest), 0o644)
    Path(store.blob_path(digest)).write_bytes(b"CONTENT")
    with store.opened_blob(digest) as stream, pytest.raises(DamagedBlob):
        stream.read()
    with pytest.raises(MissingBlob):
        store.opened_blob(digest)


def test_a_discarded_index_is_a_miss(store: LocalStore) -> None:
    diff_id = layer_ref(LAYER).diff_id
    store.put_index(diff_id, PARTS)
    store.discard_index(diff_id)
    assert not store.has_index(diff_id)
    store.discard_index(diff_id)


class TestWhole:
    """A layer counts as here in any of the forms it can be had in."""

    def whole(self, store: LocalStore, *, kind: LayerKind = "commands") -> bool:
        return store.whole(record("one", (layer_ref(LAYER, kind=kind),)))

    def test_nothing(self, store: LocalStore) -> None:
        assert store.missing(record("one", (layer_ref(LAYER),))) == f"layer {layer_ref(LAYER).diff_id} of install"

    def test_its_tar(self, store: LocalStore) -> None:
        store.add_blob(LAYER)
        assert self.whole(store)

    def test_its_tar_cut_short(self, store: LocalStore) -> None:
        os.chmod(store.blob_path(store.add_blob(LAYER)), 0o644)
        os.truncate(store.blob_path(digest_of(LAYER)), 10)
        assert not self.whole(store)

    def test_a_compressed_blob(self, store: LocalStore) -> None:
        compressed = store.add_blob(b"compressed")
        store.note_layer(layer_ref(LAYER).diff_id, blobs=(Descriptor(media_type=OCI_LAYER_GZIP, digest=compressed, size=10),))
        assert self.whole(store)
        os.unlink(store.blob_path(compressed))
        assert not self.whole(store)

    def test_an_origin_of_a_base_only(self, store: LocalStore) -> None:
        store.note_layer(layer_ref(LAYER).diff_id, origins=(ORIGIN,))
        assert self.whole(store, kind="base")
        assert not self.whole(store, kind="commands")

    @pytest.mark.parametrize("lost", ["skeleton", "files", "digests", None])
    def test_a_tree_with_its_whole_index(self, store: LocalStore, lost: str | None) -> None:
        diff_id = layer_ref(LAYER).diff_id
        os.makedirs(store.tree_path("root", diff_id))
        store.put_index(diff_id, PARTS)
        if lost:
            os.unlink(store.paths.index(diff_id, lost))
        assert self.whole(store) is (lost is None)

    def test_a_tree_of_another_flavour_is_none(self, store: LocalStore) -> None:
        diff_id = layer_ref(LAYER).diff_id
        os.makedirs(store.tree_path("1000-abc", diff_id))
        store.put_index(diff_id, PARTS)
        assert not self.whole(store)
        assert LocalStore(store.paths.home, flavour="1000-abc").whole(record("one", (layer_ref(LAYER),)))

    def test_a_tree_under_its_chain_id(self, store: LocalStore) -> None:
        below, above = layer_ref(b"below", kind="base"), layer_ref(LAYER)
        chain = chain_id((below.diff_id, above.diff_id))
        assert chain is not None
        store.add_blob(b"below")
        os.makedirs(store.tree_path("root", ChainId(chain)))
        store.put_index(above.diff_id, PARTS)
        assert store.whole(record("one", (below, above)))
        assert not store.whole(record("one", (above,)))


class TestHoldings:
    def test_what_is_said_later_is_added_and_comes_first(self, store: LocalStore) -> None:
        diff_id = layer_ref(LAYER).diff_id
        first, second = (Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(text), size=len(text)) for text in (b"first", b"second"))
        store.note_layer(diff_id, blobs=(first,), size=5)
        store.note_layer(diff_id, origins=(ORIGIN,))
        store.note_layer(diff_id, blobs=(second,), origins=(ORIGIN,))
        held = LocalStore(store.paths.home).holding(diff_id)
        assert (held.blobs, held.origins, held.size) == ((second, first), (ORIGIN,), 5)
        store.forget_blob(diff_id, first.digest)
        store.forget_blob(diff_id, ORIGIN.descriptor.digest)
        assert (store.holding(diff_id).blobs, store.holding(diff_id).origins) == ((second,), ())

    def test_a_damaged_one_is_nothing_known_and_heals(self, store: LocalStore) -> None:
        diff_id = layer_ref(LAYER).diff_id
        store.note_layer(diff_id, origins=(ORIGIN,))
        flip(store.paths.layer(diff_id))
        assert store.holding(diff_id).origins == ()
        store.note_layer(diff_id, origins=(ORIGIN,))
        assert store.holding(diff_id).origins == (ORIGIN,)

    def test_processes_at_once_lose_nothing(self, store: LocalStore) -> None:
        diff_id = layer_ref(LAYER).diff_id
        blobs = [Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"%d" % number), size=1) for number in range(10)]
        home = store.paths.home
        children = [start_child(lambda one=one: LocalStore(home).note_layer(diff_id, blobs=(one,))) for one in blobs]  # type: ignore[misc]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
        assert {one.digest for one in store.holding(diff_id).blobs} == {one.digest for one in blobs}


class TestBlobs:
    def test_another_digest_than_expected_is_no_blob(self, store: LocalStore) -> None:
        with pytest.raises(DamagedBlob), store.new_blob(digest_of(b"expected")) as out:
            out.write(b"something else")
        assert not store.has_blob(digest_of(b"expected"))
        assert not store.has_blob(digest_of(b"something else"))

    def test_an_exception_leaves_nothing(self, store: LocalStore) -> None:
        def fail() -> None:
            with store.new_blob() as out:
                out.write(b"half")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert not store.has_blob(digest_of(b"half"))
        assert all(os.listdir(os.path.join(store.paths.work, name)) == ["uses"] for name in os.listdir(store.paths.work))

    def test_writing_a_damaged_one_again_heals_it(self, store: LocalStore) -> None:
        flip(store.blob_path(store.add_blob(LAYER)))
        store.add_blob(LAYER)
        assert store.read_blob(digest_of(LAYER)) == LAYER

    def test_a_blob_cut_short_is_damaged(self, store: LocalStore) -> None:
        path = store.blob_path(store.add_blob(LAYER))
        os.chmod(path, 0o644)
        os.truncate(path, 0)
        with pytest.raises(DamagedBlob):
            store.read_blob(digest_of(LAYER))
        assert not store.has_blob(digest_of(LAYER))

    def test_reading_exactly_its_bytes_verifies_it(self, store: LocalStore) -> None:
        flip(store.blob_path(store.add_blob(LAYER)))
        with pytest.raises(DamagedBlob), store.open_blob(digest_of(LAYER)) as stream:
            stream.read(len(LAYER))

    def test_not_verified_it_can_seek(self, store: LocalStore) -> None:
        with store.open_blob(store.add_blob(LAYER), verify=False) as stream:
            stream.seek(len(LAYER) - 3)
            assert stream.read() == LAYER[-3:]

    def test_its_size(self, store: LocalStore) -> None:
        assert store.blob_size(store.add_blob(LAYER)) == len(LAYER)
        with pytest.raises(MissingBlob):
            store.blob_size(digest_of(b"none"))
        assert store.remove_blob(digest_of(LAYER)) == len(LAYER)
        assert store.remove_blob(digest_of(LAYER)) == 0


class TestTrees:
    def test_the_first_tree_stays(self, store: LocalStore, tmp_path: Path) -> None:
        diff_id = layer_ref(LAYER).diff_id
        with store.work() as work:
            for text in ("first", "second"):
                made = Path(work.path, text)
                made.mkdir()
                (made / "file").write_text(text)
                path = store.adopt_tree(str(made), "root", diff_id)
            assert os.listdir(work.path) == []
        assert path == store.tree_path("root", diff_id)
        assert Path(path, "file").read_text() == "first"
        assert store.trees.of_flavour("root") == (diff_id,)

    def test_a_discarded_tree_is_a_miss(self, store: LocalStore) -> None:
        diff_id = layer_ref(LAYER).diff_id
        os.makedirs(os.path.join(store.tree_path("root", diff_id), "sub"))
        store.discard_tree("root", diff_id)
        assert not store.has_tree("root", diff_id)
        store.discard_tree("root", diff_id)


class TestHints:
    def test_a_memo_is_read_back(self, store: LocalStore) -> None:
        store.memo_put("key", {"a": [1, "two", None]})
        assert LocalStore(store.paths.home).memo_get("key") == {"a": [1, "two", None]}
        store.memo_put("key", {})
        assert store.memo_get("key") == {}
        store.memo.forget("key")
        assert store.memo_get("key") is None

    def test_a_damaged_memo_is_none(self, store: LocalStore) -> None:
        store.memo_put("key", {"a": 1})
        flip(store.paths.memo("key"))
        assert store.memo_get("key") is None

    def test_the_newest_memos_are_kept(self, store: LocalStore) -> None:
        for number in range(12):
            store.memo_put(f"key{number}", {})
            os.utime(store.paths.memo(f"key{number}"), (number, number))
        store.memo.prune(most=10)
        assert [number for number in range(12) if store.memo_get(f"key{number}") is not None] == [7, 8, 9, 10, 11]

    def test_the_last_use_is_noted_and_costs_no_write_each_time(self, store: LocalStore) -> None:
        published = store.publish(record("one"))
        path = store.paths.record("image", published.digest)
        os.utime(path, (1000, 1000))
        store.find_image(ContentDigest(published.digest))
        noted = os.stat(path).st_mtime_ns
        assert noted > 10**18
        store.find_image(ContentDigest(published.digest))
        assert os.stat(path).st_mtime_ns == noted
        assert [found for found, _ in store.records()] == [published]

    def test_the_key_is_made_once(self, store: LocalStore) -> None:
        key = store.secret_key()
        assert len(key) == 32
        assert LocalStore(store.paths.home).secret_key() == key
        assert os.stat(store.paths.key).st_mode & 0o777 == 0o600

    def test_a_mount_directory_is_made_and_the_same_again(self, store: LocalStore) -> None:
        path = store.mount_dir("project", "/var/cache/apt")
        assert os.path.isdir(path)
        assert path == store.mount_dir("project", "/var/cache/apt")
        assert path.startswith(f"{store.paths.home}/mounts/project/var-cache-apt-")
        assert path != store.mount_dir("project", "/var/cache-apt")
        assert os.path.dirname(store.mount_dir("project", "/../../x")) == f"{store.paths.home}/mounts/project"


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


@pytest.mark.needs_root
def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path, "256k"), LocalStore(str(tmp_path / "store")) as store:
        store.add_blob(LAYER)
        published = store.publish(record("one", (layer_ref(LAYER),)))
        with pytest.raises(DiskFull) as caught, store.new_blob(size=300_000) as out:
            out.write(os.urandom(300_000))
        assert str(tmp_path) in caught.value.where
        assert "300000 bytes needed" in caught.value.what
        fill(tmp_path / "filler")
        for write in (
            lambda: store.publish(record("two")),
            lambda: store.add_blob(b"x" * 5000),
            lambda: store.put_index(layer_ref(LAYER).diff_id, PARTS),
            lambda: store.note_layer(layer_ref(LAYER).diff_id, origins=(ORIGIN,)),
        ):
            with pytest.raises(DiskFull):
                write()
        store.memo_put("key", {"a": "b" * 5000})
        assert store.memo_get("key") is None
        assert store.find_image(ContentDigest(published.digest)) == published
        os.unlink(tmp_path / "filler")
        assert store.publish(record("two")) == store.find_image(ContentDigest(record("two").digest))
        assert [os.listdir(os.path.join(store.paths.work, name)) for name in os.listdir(store.paths.work)] == [["uses"]]
