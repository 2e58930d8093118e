"""Where a finished image can be sent: files that other tools read, registries, and the stores of other tools."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from layerwright.build import image_tools
from layerwright.build.export import Compression, Packed, Packer
from layerwright.build.meter import Meter
from layerwright.build.places import Place
from layerwright.build.result import Exported
from layerwright.build.session import Session
from layerwright.build.side_by_side import side_by_side
from layerwright.errors import LayerwrightError, UsageError
from layerwright.host.exported_files import exported_file, is_terminal, refuse_unwritable
from layerwright.host.pipes import stoppable
from layerwright.oci.digest import BlobDigest, DiffId, digest_of
from layerwright.oci.manifest import OCI_INDEX, Descriptor
from layerwright.oci.reference import Reference, parse_reference
from layerwright.registry.client import Registry
from layerwright.storage.archive_output import OutFile, blob_name, docker_archive, index_of, oci_layout, tar_size, write_tar
from layerwright.storage.contract import MissingBlob
from layerwright.storage.layout_output import refuse_unfit, write_oci_directory
from layerwright.storage.records import Record

PUSHERS = 4


class StreamSpoilt(LayerwrightError):
    """What went into a stream is not the whole image, and nothing can take it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What exports meet beyond the store: `env` of other tools, registries, and the stream that `-` means."""

    env: Mapping[str, str]
    registry: Callable[[], Registry]
    out: BinaryIO | None = None


def refuse_unusable(place: Place, env: Mapping[str, str], out: BinaryIO | None = None) -> None:
    """Raises what stands in the way of an export there, before work is done for it: UsageError, NoDirectory, NotWritable, MachineLacks."""
    if place.is_stream:
        if out is None:
            raise UsageError("no stream was given to write to", where=place.text, mend="name a file, or hand a binary stream over: export(..., out=stream)")
        if is_terminal(out):
            raise UsageError("an archive is not for a terminal", where=place.text, mend=f"send it on: ... --to {place.text} | podman load")
    elif place.kind in ("oci-archive", "docker-archive"):
        refuse_unwritable(place.path)
    elif place.kind == "oci":
        refuse_unfit(place.path)
    elif place.kind in ("docker-daemon", "containers-storage"):
        image_tools.tool_for(place, env)


def refuse_several(place: Place, platforms: Sequence[str]) -> None:
    """Raises UsageError where only an image for one platform can go."""
    if len(platforms) > 1 and place.kind not in ("docker", "oci", "oci-archive"):
        what = f"an image for several platforms ({', '.join(platforms)}) cannot be sent to {place.kind}"
        raise UsageError(what, where=place.text, mend=f"name one: --platform {platforms[0]}; docker://, oci: and oci-archive: take all")


def export_to(session: Session, records: Sequence[Record], place: Place, outside: Outside, *, compression: Compression = "gzip") -> Exported:
    """Send the image there, whole or not at all: `records` are those of its platforms. Labels of the build are left out.

    Raises UsageError, RegistryError, MissingBlob, DiskFull, NotWritable, MachineLacks, ToolFailed, StreamSpoilt, Cancelled.
    """
    refuse_unusable(place, outside.env, outside.out)
    refuse_several(place, [one.platform for one in records])
    record = records[0]
    packer = Packer(session.store, session.cabinet, session.cancel, compression=compression)
    match place.kind:
        case "docker":
            several = [packer.pack(one, as_blobs=True) for one in records]
            push_all(session, several, [one.diff_ids for one in records], place.name, outside.registry())
        case "oci-archive":
            several = [packer.pack(one) for one in records]
            _write_archive(session, record, place, outside, oci_layout([one.out_image() for one in several], name=place.name))
        case "oci":
            several = [packer.pack(one) for one in records]
            files = oci_layout([one.out_image() for one in several], name=place.name)
            with Meter(session, record, place, sum(file.size for file in files.values())) as meter:
                write_oci_directory(place.path, files, name=place.name, counted=meter.counted, cancelled=session.cancel.is_set)
        case "docker-archive":
            several = [packer.plain(record)]
            name = place.name or f"{record.project}:{record.digest}"
            _write_archive(session, record, place, outside, docker_archive(several[0].out_image(), [name]))
        case _:
            several = [_into_store(session, packer, record, place, outside)]
    if len(several) > 1:
        return Exported(image=record.image, to=place.text, name=place.name, image_id="", digest=digest_of(_index(several)))
    digest: BlobDigest | Literal[""] = several[0].digest if place.kind not in ("docker-archive", "docker-daemon") else ""
    return Exported(image=record.image, to=place.text, name=place.name, image_id=several[0].image_id, digest=digest)


def _index(several: Sequence[Packed]) -> bytes:
    return index_of([one.out_image() for one in several])


def _write_archive(session: Session, record: Record, place: Place, outside: Outside, files: Mapping[str, OutFile]) -> None:
    size = tar_size(files)
    with Meter(session, record, place, size) as meter:
        if place.is_stream:
            assert outside.out is not None
            with _nothing_taken_back(place, meter), stoppable(outside.out, session.cancel.check) as out:
                write_tar(meter.over(out), files)
            outside.out.flush()
            return
        with exported_file(place.path, needed_bytes=size, check=session.cancel.check) as out:
            write_tar(meter.over(out), files)


@contextmanager
def _nothing_taken_back(place: Place, meter: Meter) -> Iterator[None]:
    """A damaged layer is made again and the export begun anew, but for a stream that has had bytes already."""
    try:
        yield
    except MissingBlob as damage:
        if meter.done_bytes:
            raise StreamSpoilt(f"what was written is not the whole image: {damage.what}", where=place.text, mend="export again: it is made anew") from damage
        raise


def _into_store(session: Session, packer: Packer, record: Record, place: Place, outside: Outside) -> Packed:
    tools = image_tools.Tools(outside.env, session.cancel)
    tool = image_tools.tool_for(place, outside.env)
    if tool == "docker":
        packed = packer.plain(record)
        files = docker_archive(packed.out_image(), [place.name])
        with Meter(session, record, place, tar_size(files)) as meter:
            image_tools.docker_load(tools, place, lambda pipe: write_tar(meter.over(pipe), files))
            image_tools.check_docker(tools, place, record.diff_ids)
        return packed
    packed = packer.pack(record, as_blobs=True)
    with session.store.work() as work, Meter(session, record, place, sum(layer.size for layer in packed.manifest.layers)) as meter:
        layout = os.path.join(work.path, f"layout-{os.urandom(8).hex()}")
        _link_layout(session, packed, layout, place.name)
        fill = image_tools.skopeo_copy if tool == "skopeo" else image_tools.podman_pull
        try:
            fill(tools, place, layout, packed.image_id)
        except image_tools.ToolFailed:
            for layer in packed.manifest.layers:
                session.store.check_blob(layer.digest)  # a damaged one is made again
            raise
        meter.all_done()
    return packed


def _link_layout(session: Session, packed: Packed, layout: str, name: str) -> None:
    """An OCI layout whose layers are links to the store's blobs: nothing is copied."""
    layers = {blob_name(layer.digest): layer.digest for layer in packed.manifest.layers}
    for path, file in oci_layout([packed.out_image()], name=name).items():
        place = os.path.join(layout, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if path in layers:
            os.symlink(session.store.blob_path(layers[path]), place)
        else:
            with open(place, "wb") as out:
                file.source(out.write)


def push_all(session: Session, several: Sequence[Packed], diff_ids: Sequence[Sequence[DiffId]], to: str, registry: Registry) -> None:
    """The images of one or several platforms under one name."""
    reference = parse_reference(to, where="--to")
    if len(several) == 1:
        push(session, several[0], diff_ids[0], reference, registry)
        return
    for packed, layers in zip(several, diff_ids, strict=True):
        push(session, packed, layers, replace(reference, tag=None, digest=packed.digest), registry)
    registry.put_manifest(reference, _index(several), OCI_INDEX)


def push(session: Session, packed: Packed, diff_ids: Sequence[DiffId], reference: Reference, registry: Registry) -> None:
    """Upload what the registry lacks, several blobs at once, then the manifest. A base's layers that it has elsewhere are mounted."""
    manifest = packed.manifest
    session.store.add_blob(packed.config_bytes)

    elsewhere = {
        layer.digest: origin.repository
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
        for origin in session.cabinet.origins(diff_id)
        if origin.descriptor.digest == layer.digest and origin.repository.startswith(f"{reference.registry}/")
    }

    def upload(descriptor: Descriptor) -> None:
        session.cancel.check()
        held = elsewhere.get(descriptor.digest, reference.name)
        if held != reference.name and not registry.has_blob(reference, descriptor.digest):
            registry.mount_blob(reference, descriptor.digest, held.removeprefix(f"{reference.registry}/"))
        registry.put_blob(reference, descriptor, lambda: session.store.opened_blob(descriptor.digest))

    side_by_side(upload, _once((*manifest.layers, manifest.config)), at_once=PUSHERS, cancel=session.cancel)
    registry.put_manifest(reference, packed.manifest_bytes, manifest.media_type)


def _once(descriptors: tuple[Descriptor, ...]) -> list[Descriptor]:
    return list({one.digest: one for one in descriptors}.values())
