"""Images from files: an OCI layout (a directory, or a tar of one) and what `docker save` writes. Blobs are kept as they are given, and checked."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from layerwright.errors import UsageError
from layerwright.limits import ARCHIVE_IMAGES
from layerwright.oci.platform import Platform, suits
from layerwright.oci.reference import Reference, parse_reference
from layerwright.storage.archive_docker import docker_candidates
from layerwright.storage.archive_oci import oci_candidates
from layerwright.storage.archive_source import AN_IMAGE, ArchiveSource, BadArchive, Candidate, open_source
from layerwright.storage.images import StoredImage
from layerwright.storage.local import LocalStore


def load_archive(store: LocalStore, path: str, *, name: Reference | None = None, platform: Platform | None = None) -> tuple[StoredImage, ...]:
    """Put the images of an archive into the store under their references, or under `name`; all platforms that are there, or `platform`.

    Every blob is checked, and a reference recorded after all that it needs; layers stream through, never whole in memory.
    Raises BadArchive, BadManifest, UsageError (no name, no such platform), DiskFull.
    """
    with store.work() as work, open_source(path, os.path.join(work.path, "archive.tar"), store.limits) as source:
        candidates = _of_platform(_candidates(source), platform, path)
        references = [_references(one, name, path) for one in candidates]
        if name is not None and (twice := [str(one) for one, count in Counter(one.platform for one in candidates).items() if count > 1]):
            raise UsageError(f"several images for {', '.join(twice)}, and one name", where=path, mend="load it without a name: its images have their own")
        return tuple(stored for one, named in zip(candidates, references, strict=True) for stored in _load(store, one, named))


def _candidates(source: ArchiveSource) -> list[Candidate]:
    if source.has("index.json") and source.has("oci-layout"):
        return _not_too_many(oci_candidates(source), source.path)
    if source.has("manifest.json"):
        return _not_too_many(docker_candidates(source), source.path)
    what = "neither an OCI layout (oci-layout, index.json) nor a docker archive (manifest.json)"
    raise BadArchive(what, where=source.path, mend=AN_IMAGE)


def _not_too_many(candidates: Iterable[Candidate], path: str) -> list[Candidate]:
    found = list(islice(candidates, ARCHIVE_IMAGES + 1))
    if len(found) > ARCHIVE_IMAGES:
        raise BadArchive(f"more than {ARCHIVE_IMAGES:,} images", where=path, mend="save fewer images to one archive")
    return found


def _of_platform(candidates: Sequence[Candidate], wanted: Platform | None, path: str) -> list[Candidate]:
    fitting = [one for one in candidates if wanted is None or suits(wanted, one.platform)]
    if not candidates:
        raise BadArchive("no image in the archive", where=path, mend="save an image to it first")
    if not fitting:
        offered = ", ".join(sorted({str(one.platform) for one in candidates}))
        raise UsageError(f"no image for {wanted} in the archive", where=path, mend=f"it has {offered}")
    return fitting


def _references(candidate: Candidate, name: Reference | None, path: str) -> tuple[Reference, ...]:
    """What the image will be called. A bare word in an OCI layout is a tag of nothing, so it names no image."""
    if name is not None:
        return (name,)
    named = tuple(parse_reference(one, where=path) for one in candidate.names if "/" in one or ":" in one)
    if not named:
        said = f" (only the tag {candidate.names[0]!r})" if candidate.names else ""
        raise UsageError(f"the image in the archive has no name{said}", where=path, mend="give it one: --name NAME:TAG")
    return named


def _load(store: LocalStore, candidate: Candidate, references: Sequence[Reference]) -> list[StoredImage]:
    kept = candidate.keep(store)
    images = [
        StoredImage(
            reference=str(reference),
            platform=str(candidate.platform),
            manifest=kept.manifest,
            named=kept.named,
            source="load",
            added_ms=time.time_ns() // 1_000_000,
            size=kept.size,
        )
        for reference in references
    ]
    for image in images:
        store.images.add(image)
    return images
