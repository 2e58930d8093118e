"""What any stage storage promises. A storage's tests derive from StageStorageContract and say how to open one and how to do it harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.storage.contract import DamagedBlob, MissingBlob, StageStorage
from layerwright.storage.records import ContentDigest, Record, StageDigest
from tests.storage.values import layer_ref, record, stage_digest, start_child

LAYER, OTHER_LAYER, STATE = b"a layer" * 1000, b"another layer" * 1000, b"a list of files"
PARTS = {"skeleton": b"directories", "files": b"\0\1\2" * 1000, "digests": b"\xff" * 100}
PROCESSES = 10


class StageStorageContract:
    """`open` gives the storage at a place, as another process would see it; the other methods reach behind its back."""

    def open(self, place: Path) -> StageStorage:
        raise NotImplementedError

    def keep_blob(self, storage: StageStorage, content: bytes) -> BlobDigest:
        raise NotImplementedError

    def keep_index(self, storage: StageStorage, diff_id: DiffId, parts: dict[str, bytes]) -> None:
        raise NotImplementedError

    def lose_blob(self, storage: StageStorage, digest: BlobDigest) -> None:
        raise NotImplementedError

    def damage_blob(self, storage: StageStorage, digest: BlobDigest) -> None:
        raise NotImplementedError

    def damage_record(self, storage: StageStorage, damaged: Record) -> None:
        raise NotImplementedError

    def damage_index(self, storage: StageStorage, diff_id: DiffId, part: str) -> None:
        raise NotImplementedError

    def stored(self, storage: StageStorage, name: str = "one", *, commit: str = "c" * 40) -> Record:
        """A record, not published yet, whose layers and states are stored."""
        for content in (LAYER, OTHER_LAYER, STATE):
            self.keep_blob(storage, content)
        state = self.keep_blob(storage, STATE)
        return record(name, (layer_ref(LAYER), layer_ref(OTHER_LAYER)), states=(state,), commit=commit)

    def test_what_was_not_published_is_not_found(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        assert storage.find(StageDigest(stage_digest("one"))) is None
        assert storage.find_image(ContentDigest(stage_digest("one"))) is None
        assert storage.index_part(layer_ref(LAYER).diff_id, "files") is None

    def test_a_published_record_is_found_by_others_and_equal(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        published = self.stored(storage)
        assert storage.publish(published) == published
        assert self.open(tmp_path).find_image(ContentDigest(published.digest)) == published

    def test_stages_and_images_are_two_name_spaces(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        image = storage.publish(record("same"))
        assert storage.find(StageDigest(image.digest)) is None
        stage = storage.publish(record("same", kind="stage"))
        assert storage.find(StageDigest(stage.digest)) == stage
        assert storage.find_image(ContentDigest(image.digest)) == image

    def test_the_first_published_wins(self, tmp_path: Path) -> None:
        first = self.stored(self.open(tmp_path), commit="1" * 40)
        second = self.stored(self.open(tmp_path), commit="2" * 40)
        assert self.open(tmp_path).publish(first) == first
        assert self.open(tmp_path).publish(second) == first
        assert self.open(tmp_path).find_image(ContentDigest(first.digest)) == first

    def test_of_ten_processes_one_wins_and_all_are_told(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        self.stored(storage)
        children = [start_child(lambda number=number: self._publish(tmp_path, number)) for number in range(PROCESSES)]  # type: ignore[misc]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES
        winner = storage.find_image(ContentDigest(stage_digest("one")))
        assert winner is not None
        assert [(tmp_path / f"told-{number}").read_text() for number in range(PROCESSES)] == [winner.commit] * PROCESSES

    def _publish(self, place: Path, number: int) -> None:
        storage = self.open(place)
        told = storage.publish(self.stored(storage, commit=str(number) * 40))
        (place / f"told-{number}").write_text(told.commit)

    @pytest.mark.parametrize("content", [LAYER, STATE])
    def test_a_record_whose_things_are_gone_is_a_miss_and_is_replaced(self, tmp_path: Path, content: bytes) -> None:
        storage = self.open(tmp_path)
        old = storage.publish(self.stored(storage, commit="1" * 40))
        self.lose_blob(storage, self.keep_blob(storage, content))
        assert storage.find_image(ContentDigest(old.digest)) is None
        new = self.stored(storage, commit="2" * 40)
        self.lose_blob(storage, self.keep_blob(storage, content))
        self.keep_blob(storage, content + b"!")
        healed = record("one", (layer_ref(LAYER + b"!"),), commit="3" * 40) if content is LAYER else record("one", commit="3" * 40)
        assert storage.publish(healed) == healed
        assert storage.find_image(ContentDigest(new.digest)) == healed

    def test_a_damaged_record_is_a_miss_and_is_replaced(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        old = storage.publish(self.stored(storage, commit="1" * 40))
        self.damage_record(storage, old)
        assert storage.find_image(ContentDigest(old.digest)) is None
        new = self.stored(storage, commit="2" * 40)
        assert storage.publish(new) == new
        assert storage.publish(old) == new
        assert storage.find_image(ContentDigest(old.digest)) == new

    def test_a_blob_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        digest = self.keep_blob(storage, LAYER)
        with storage.open_blob(digest) as stream:
            assert stream.read(10) + stream.read() == LAYER

    def test_a_missing_blob_is_told(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        digest = self.keep_blob(storage, LAYER)
        self.lose_blob(storage, digest)
        with pytest.raises(MissingBlob), storage.open_blob(digest):
            pass

    def test_a_damaged_blob_is_told_once_and_then_missing(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        digest = self.keep_blob(storage, LAYER)
        published = storage.publish(record("one", (layer_ref(LAYER),)))
        self.damage_blob(storage, digest)
        with pytest.raises(DamagedBlob), storage.open_blob(digest) as stream:
            stream.read()
        with pytest.raises(MissingBlob), storage.open_blob(digest):
            pass
        assert storage.find_image(ContentDigest(published.digest)) is None
        self.keep_blob(storage, LAYER)
        assert storage.find_image(ContentDigest(published.digest)) == published

    def test_index_parts_are_kept_and_a_damaged_one_heals(self, tmp_path: Path) -> None:
        storage = self.open(tmp_path)
        diff_id = layer_ref(LAYER).diff_id
        self.keep_index(storage, diff_id, PARTS)
        assert {part: self.open(tmp_path).index_part(diff_id, part) for part in PARTS} == PARTS
        self.damage_index(storage, diff_id, "files")
        assert storage.index_part(diff_id, "files") is None
        assert storage.index_part(diff_id, "digests") == PARTS["digests"]
        self.keep_index(storage, diff_id, PARTS)
        assert storage.index_part(diff_id, "files") == PARTS["files"]
