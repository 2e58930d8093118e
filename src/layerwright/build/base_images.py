"""Building the `from` stage: an external base, scratch, or another image of the file, and the emptied mount points."""

from __future__ import annotations

from dataclasses import replace

from layerwright.build import layer_makers
from layerwright.build.bases import Held
from layerwright.build.session import Session
from layerwright.build.standing import Naming, extend, with_base_history
from layerwright.config.model import ExternalBase, Image, InternalBase, ScratchBase
from layerwright.oci.image_config import ImageConfig, with_reset_commands
from layerwright.stages.key import KeyDocument, stage_digest
from layerwright.storage.records import BaseOrigin, LayerRef, Record


def build_from(session: Session, image: Image, document: KeyDocument, naming: Naming, other: Record | None) -> Record:
    """The record of the `from` stage. `other`: the finished image it is based on, for an internal base."""
    digest = stage_digest(document)
    match image.base:
        case InternalBase():
            assert other is not None
            start = replace(other, steps=(), states=(), chain=tuple(layer._replace(image_level=True) for layer in other.chain))
        case ScratchBase():
            start = _start(naming, with_reset_commands(ImageConfig(platform=session.platform_of(image))), ())
        case ExternalBase() as base:
            held = session.bases.hold(base, session.platform_of(image))
            session.cabinet.begun.update(held.config.diff_ids)
            start = replace(
                _start(naming, with_reset_commands(with_base_history(held.config)), _base_layers(held, digest)),
                base=BaseOrigin(text=base.text, manifest=held.manifest_digest),
            )
    start = replace(start, mounts=tuple(dict.fromkeys((*start.mounts, *((mount.kind, mount.to) for mount in image.mounts)))))
    emptied = layer_makers.mounts_layer(session, image, start, digest)
    layers = [emptied] if emptied is not None else []
    return extend(start, document, naming, layers=layers, config=start.config, built_ms=session.clock_ms(), history="base")


def _start(naming: Naming, config: ImageConfig, layers: tuple[LayerRef, ...]) -> Record:
    return Record(
        kind="stage",
        digest="",
        project=naming.project,
        image=naming.image,
        platform=naming.platform,
        commit=naming.commit,
        built_ms=0,
        steps=(),
        chain=layers,
        config=config,
    )


def _base_layers(held: Held, digest: str) -> tuple[LayerRef, ...]:
    return tuple(LayerRef(diff_id=diff_id, kind="base", stage="from", digest=digest, size=-1, time_s=0) for diff_id in held.config.diff_ids)
