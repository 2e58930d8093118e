"""Images pulled or loaded under a reference, one file for each reference and platform."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from layerwright.host.files import replacing
from layerwright.oci.digest import BlobDigest, is_digest
from layerwright.oci.platform import Platform, parse_platform, suits
from layerwright.storage.paths import StorePaths
from layerwright.storage.seals import read_sealed, sealed
from layerwright.storage.uses import Uses, path_use
from layerwright.storage.work import WorkArea

if TYPE_CHECKING:
    from layerwright.oci.reference import Reference


class StoredImage(NamedTuple):
    """An image that the store knows by `reference` (str of a Reference) for `platform`.

    `manifest` is the platform's own manifest, a blob of the store; `named` what the tag named when it was pulled, maybe an index.
    """

    reference: str
    platform: str
    manifest: BlobDigest
    named: BlobDigest
    source: Literal["pull", "load"]
    added_ms: int  # Unix time, milliseconds, UTC
    size: int  # bytes of the layers as stored or pulled, and of the config


class Images:
    """The folder `images/` of a store."""

    def __init__(self, paths: StorePaths, area: WorkArea, uses: Uses) -> None:
        self._paths = paths
        self._area = area
        self._uses = uses

    def add(self, image: StoredImage) -> None:
        """Let the reference name this image from now on. Its manifest, config and layers are in the store, or their origin is known."""
        path = self._paths.image(image.reference, image.platform)
        self._uses.add(self._use_of(path))
        with replacing(path, scratch=self._area.scratch()) as out:
            out.write(sealed(path, json.dumps(image._asdict() | {"schema": 1}, sort_keys=True, separators=(",", ":")).encode()))

    def find(self, reference: Reference, platform: Platform) -> StoredImage | None:
        """The image of this name, noted as in use; with a digest in the reference only if it is that manifest (or of that index)."""
        found = self._find(reference, platform)
        if found is None:
            return None
        path = self._paths.image(found.reference, found.platform)
        self._uses.add(self._use_of(path))
        return found if self._uses.touch(path) else None

    def _find(self, reference: Reference, platform: Platform) -> StoredImage | None:
        exact = self.read(self._paths.image(str(reference), str(platform)))
        if exact is not None:
            return exact
        fitting = [one for one in self.all() if _answers(one, reference) and suits(platform, parse_platform(one.platform))]
        return max(fitting, key=lambda one: (one.platform == str(platform), one.added_ms), default=None)

    def all(self) -> tuple[StoredImage, ...]:
        """Every image, by reference and platform; files that are damaged are left out."""
        try:
            names = os.listdir(self._paths.images)
        except FileNotFoundError:
            return ()
        found = (self.read(os.path.join(self._paths.images, name)) for name in names)
        return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.reference, one.platform)))

    def forget(self, image: StoredImage) -> None:
        """Let the reference name nothing; the blobs stay."""
        with suppress(FileNotFoundError):
            os.unlink(self._paths.image(image.reference, image.platform))

    def _use_of(self, path: str) -> str:
        return path_use(os.path.relpath(path, self._paths.home))

    def read(self, path: str) -> StoredImage | None:
        """What the file at `path` says, which is one of this folder; None if it is gone or damaged."""
        try:
            raw = json.loads(read_sealed(path) or b"")
            if raw.pop("schema") != 1 or not is_digest(raw["manifest"]):
                return None
            return StoredImage(**raw)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _answers(image: StoredImage, reference: Reference) -> bool:
    if reference.digest is None:
        return image.reference == str(reference)
    return reference.digest in (image.manifest, image.named) and image.reference.startswith((f"{reference.name}:", f"{reference.name}@"))
