"""What any stage storage promises: the local store keeps it, and later a registry repository."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from layerwright.errors import LayerwrightError
from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.storage.records import ContentDigest, Record, StageDigest


class MissingBlob(LayerwrightError):
    """Bytes that the storage does not have. Whoever can make or fetch them again treats it as a miss."""


class DamagedBlob(MissingBlob):
    """Bytes that are not what their digest says. A damaged blob found in a storage is no longer there afterwards."""


class StageStorage(Protocol):
    """One record for each digest; the first published wins; what is missing or damaged is a miss, never an error."""

    def find(self, digest: StageDigest) -> Record | None:
        """The stage, if its record and all it refers to are here."""

    def find_image(self, digest: ContentDigest) -> Record | None:
        """The finished image, if its record and all it refers to are here."""

    def publish(self, record: Record) -> Record:
        """Make the record exist and return the one that won: an earlier whole one, else this."""

    def open_blob(self, digest: BlobDigest) -> AbstractContextManager[BinaryIO]:
        """A blob's bytes. Raises MissingBlob."""

    def index_part(self, diff_id: DiffId, part: str) -> bytes | None:
        """One of "skeleton", "files", "digests" of a layer's file index; None if it is not here or damaged."""
