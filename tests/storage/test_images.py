from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from layerwright.errors import UsageError
from layerwright.host import locks
from layerwright.oci.digest import digest_of
from layerwright.oci.platform import Platform
from layerwright.oci.reference import parse_reference
from layerwright.storage.image_removal import remove_images
from layerwright.storage.images import StoredImage
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import StorePaths, default_home
from layerwright.storage.records import BaseOrigin
from layerwright.storage.uses import layer_use
from tests.storage.values import AMD64, Image, layer_ref, layer_tar, record

ALPINE = parse_reference("alpine:3")
BASE, APP, OTHER = (layer_tar({name: name.encode() * 1000}) for name in ("base", "app", "other"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(str(tmp_path / "store")) as opened:
        yield opened


def stored(reference: str = str(ALPINE), platform: str = "linux/amd64", manifest: bytes = b"manifest") -> StoredImage:
    return StoredImage(reference=reference, platform=platform, manifest=digest_of(manifest), named=digest_of(b"index"), source="pull", added_ms=1, size=10)


def keep(store: LocalStore, name: str, image: Image) -> StoredImage:
    for diff_id, descriptor, content in zip(image.diff_ids, image.descriptors, image.stored, strict=True):
        store.add_blob(content)
        store.note_layer(diff_id, blobs=(descriptor,))
    store.add_blob(image.config)
    store.add_blob(image.manifest)
    kept = stored(name, manifest=image.manifest)
    store.images.add(kept)
    return kept


class TestFinding:
    def test_by_reference_and_platform(self, store: LocalStore) -> None:
        amd64, arm = stored(), stored(platform="linux/arm/v7", manifest=b"arm")
        store.images.add(amd64)
        store.images.add(arm)
        assert store.images.all() == (amd64, arm)
        assert store.images.find(ALPINE, AMD64) == amd64
        assert store.images.find(ALPINE, Platform("linux", "arm")) == arm
        assert store.images.find(ALPINE, Platform("linux", "arm", "v6")) is None
        assert store.images.find(parse_reference("alpine:4"), AMD64) is None

    def test_by_the_digest_of_the_manifest_or_the_index_and_the_repository(self, store: LocalStore) -> None:
        image = stored()
        store.images.add(image)
        for digest in (image.manifest, image.named):
            assert store.images.find(parse_reference(f"alpine@{digest}"), AMD64) == image
            assert store.images.find(parse_reference(f"example.com/alpine@{digest}"), AMD64) is None
        assert store.images.find(parse_reference(f"alpine@{digest_of(b'else')}"), AMD64) is None

    def test_a_damaged_file_is_no_image_and_heals(self, store: LocalStore) -> None:
        store.images.add(stored())
        (name,) = os.listdir(store.paths.images)
        Path(store.paths.images, name).write_bytes(b"{}")
        assert store.images.all() == ()
        store.images.add(stored())
        assert store.images.all() == (stored(),)


class TestRemoval:
    def test_blobs_of_other_images_and_of_records_stay(self, store: LocalStore) -> None:
        one, other = Image(BASE, APP), Image(BASE, OTHER)
        removed = keep(store, "example.com/one:1", one)
        kept = keep(store, "example.com/other:1", other)
        assert remove_images(store, [removed]).blobs == 3  # manifest, config and the layer that only it had
        assert store.images.all() == (kept,)
        assert [store.has_blob(blob.digest) for blob in one.descriptors] == [True, False]
        store.publish(record("built on it", (layer_ref(BASE, kind="base"),)))
        freed = remove_images(store, [kept])
        assert freed.blobs == 3
        assert freed.size_bytes == len(other.stored[1]) + len(other.config) + len(other.manifest)
        assert store.has_blob(other.descriptors[0].digest)

    def test_the_last_name_of_an_image_frees_it(self, store: LocalStore) -> None:
        image = Image(APP)
        first, second = keep(store, "example.com/a:1", image), keep(store, "example.com/a:2", image)
        assert remove_images(store, [first]) == (0, 0)
        assert remove_images(store, [second]).blobs == 3

    def test_an_image_whose_manifest_is_gone_can_be_removed(self, store: LocalStore) -> None:
        image = stored()
        store.images.add(image)
        assert remove_images(store, [image]).blobs == 0
        assert store.images.all() == ()

    def test_the_manifest_of_a_base_that_a_record_names_stays(self, store: LocalStore) -> None:
        image = Image(APP)
        kept = keep(store, "example.com/a:1", image)
        store.publish(replace(record("on it"), base=BaseOrigin(text=kept.reference, manifest=image.digest)))
        remove_images(store, [kept])
        assert store.has_blob(image.digest)


class TestRemovalWhileOthersWork:
    """Processes are other stores of the same home: what they noted stays, and what they may be making."""

    @pytest.fixture
    def kept(self, store: LocalStore) -> StoredImage:
        with LocalStore(store.paths.home) as maker:
            kept = keep(maker, "example.com/a:1", Image(BASE, APP))
        time.sleep(1.1)  # older than who begins now
        return kept

    @pytest.mark.parametrize("noted", ["reference", "layer", "record"])
    def test_what_a_process_noted_stays_until_it_ends(self, store: LocalStore, kept: StoredImage, noted: str) -> None:
        image = Image(BASE, APP)
        with LocalStore(store.paths.home) as user:
            if noted == "reference":
                assert user.images.find(parse_reference("example.com/a:1"), AMD64) == kept
            elif noted == "layer":
                user.uses.add(*(layer_use(diff_id) for diff_id in image.diff_ids))
            else:
                made = user.publish(record("on it", (layer_ref(BASE, kind="base"), layer_ref(APP, kind="base"))))
                os.unlink(store.paths.record("image", made.digest))
            remove_images(store, [kept])
            assert all(user.has_blob(blob.digest) for blob in image.descriptors)
            assert store.images.all() == ()

    def test_what_a_process_that_runs_has_just_written_stays(self, store: LocalStore, kept: StoredImage) -> None:
        """An image that is loaded again: its configuration and manifest are here, and no reference names them so far."""
        image = Image(BASE, APP)
        with LocalStore(store.paths.home) as loader:
            loader.add_blob(image.config)
            loader.add_blob(image.manifest)
            assert remove_images(store, [kept]).blobs == len(image.descriptors)
            assert all(loader.has_blob(digest_of(one)) for one in (image.config, image.manifest))

    def test_where_nobody_can_be_asked_the_blobs_stay(self, store: LocalStore, kept: StoredImage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("layerwright.storage.uses._PATIENCE_S", 0.05)
        gate = locks.enter_gate(store.paths.gate, shared=True, patience_s=1)
        assert gate is not None
        try:
            assert remove_images(store, [kept]) == (0, 0)
        finally:
            locks.release(gate)


class TestPaths:
    @pytest.mark.parametrize(
        ("env", "home"),
        [
            ({"LAYERWRIGHT_HOME": "/x", "XDG_DATA_HOME": "/y", "HOME": "/z"}, "/x"),
            ({"XDG_DATA_HOME": "/y", "HOME": "/z"}, "/y/layerwright"),
            ({"XDG_DATA_HOME": "relative", "HOME": "/z"}, "/z/.local/share/layerwright"),
            ({"LAYERWRIGHT_HOME": "", "HOME": "/z"}, "/z/.local/share/layerwright"),
        ],
    )
    def test_the_store_is_where_the_environment_says(self, env: dict[str, str], home: str) -> None:
        assert default_home(env) == home

    def test_without_a_home_it_is_told(self) -> None:
        with pytest.raises(UsageError, match="HOME"):
            default_home({})

    @pytest.mark.parametrize("bad", ["sha256:../../" + "a" * 58, "sha256:" + "a" * 63, "md5:" + "a" * 64])
    def test_what_is_no_digest_makes_no_path(self, bad: str) -> None:
        with pytest.raises(AssertionError):
            StorePaths("/store").blob(bad)

    @pytest.mark.parametrize("name", ["../x", "a/b", "x" * 300, "", ".hidden"])
    def test_any_lock_name_stays_in_its_folder(self, name: str) -> None:
        assert os.path.dirname(StorePaths("/store").lock(name)) == "/store/locks"
        assert len(os.path.basename(StorePaths("/store").lock(name))) < 255
