"""Where a finished image can be sent: files that other tools read, and registries."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from layerwright.build.export import Exported, export_image, without_werf_labels
from layerwright.build.session import Session
from layerwright.errors import UsageError
from layerwright.oci.digest import BlobDigest
from layerwright.oci.manifest import DOCKER_LAYER, Descriptor
from layerwright.oci.reference import parse_reference
from layerwright.registry.client import Registry
from layerwright.storage.archive_output import OutImage, write_docker_archive, write_oci_archive, write_oci_directory
from layerwright.storage.records import Record

KINDS = "oci-archive:FILE, oci:DIR, docker-archive:FILE[:TAG] or docker://REPO:TAG"
PUSHERS = 4


def check_destination(to: str) -> tuple[str, str]:
    """(kind, rest) of a destination. Raises UsageError before anything is built for it."""
    kind, colon, rest = to.partition(":")
    if kind == "docker" and rest.startswith("//"):
        parse_reference(rest[2:], where="--to")
        return kind, rest[2:]
    if not colon or kind not in ("oci-archive", "oci", "docker-archive") or not rest:
        raise UsageError(f"{to!r} is not a place to export to", where="--to", mend=f"write {KINDS}")
    return kind, rest


def export_to(session: Session, record: Record, to: str, registry: Callable[[], Registry]) -> Exported:
    """Send the image there, whole or not at all. Labels of the build are left out. Raises UsageError, RegistryError, MissingBlob, DiskFull."""
    kind, rest = check_destination(to)
    exported = export_image(session.store, session.cabinet, record, session.cancel, without_werf_labels(record.config))
    match kind:
        case "docker":
            push(session, exported, rest, registry())
        case "oci-archive":
            write_oci_archive(rest, [_oci_image(session, exported)])
        case "oci":
            directory, tag = _tagged(rest)
            write_oci_directory(directory, [_oci_image(session, exported)], name=tag)
        case "docker-archive":
            path, tag = _tagged(rest)
            write_docker_archive(path, _docker_image(session, exported), tags=[tag or f"{record.project}:{record.digest}"])
    return exported


def _tagged(rest: str) -> tuple[str, str]:
    """FILE or FILE:TAG; a tag may itself have colons and slashes (example.com:5000/app:1), so a path may not."""
    path, colon, tag = rest.partition(":")
    return (path, tag) if colon else (rest, "")


def _oci_image(session: Session, exported: Exported) -> OutImage:
    layers = [(layer, partial(session.store.open_blob, layer.digest)) for layer in exported.manifest.layers]
    return OutImage(manifest=exported.manifest_bytes, config=exported.config_bytes, layers=layers)


def _docker_image(session: Session, exported: Exported) -> OutImage:
    """With layers as plain tars, which is what every `docker load` reads."""
    cabinet = session.cabinet
    layers = [(Descriptor(media_type=DOCKER_LAYER, digest=BlobDigest(one), size=cabinet.tar_size(one)), partial(cabinet.tar, one)) for one in exported.diff_ids]
    return OutImage(manifest=exported.manifest_bytes, config=exported.config_bytes, layers=layers)


def push(session: Session, exported: Exported, to: str, registry: Registry) -> None:
    """Upload what the registry lacks, several blobs at once, then the manifest."""
    reference = parse_reference(to, where="--to")
    manifest = exported.manifest

    def upload(descriptor: Descriptor) -> None:
        session.cancel.check()
        registry.put_blob(reference, descriptor, lambda: session.store.opened_blob(descriptor.digest))

    with ThreadPoolExecutor(PUSHERS) as pool:
        list(pool.map(upload, _once((*manifest.layers, manifest.config))))
    registry.put_manifest(reference, exported.manifest_bytes, manifest.media_type)


def _once(descriptors: tuple[Descriptor, ...]) -> list[Descriptor]:
    return list({one.digest: one for one in descriptors}.values())
