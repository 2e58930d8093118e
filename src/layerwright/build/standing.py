"""How far an image has come: a Record in the making, and how one stage adds to it. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from layerwright import __version__
from layerwright.oci.digest import DiffId
from layerwright.oci.image_config import History, ImageConfig
from layerwright.stages.key import Inputs, KeyDocument, Previous, encode, stage_digest
from layerwright.storage.records import ContentDigest, LayerRef, MappingState, Record, StageStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Who builds: what a record says of its origin."""

    project: str
    image: str
    platform: str
    commit: str
    commit_time_s: int


def document_of(stage: str, platform: str, previous: Record | None, inputs: Inputs) -> KeyDocument:
    """The key document of a stage that stands on `previous`."""
    stands_on = None if previous is None else Previous(stage=previous.digest, chain=previous.chain_id or "")
    return KeyDocument(stage=stage, platform=platform, previous=stands_on, inputs=inputs)


def extend(
    previous: Record | None,
    document: KeyDocument,
    naming: Naming,
    *,
    layers: Sequence[LayerRef],
    config: ImageConfig,
    built_ms: int,
    states: tuple[MappingState, ...] | None = None,
    history: str | None,
) -> Record:
    """`previous` with one stage more. Each layer, or the stage if it has none, gets a line of history; none with `history` None."""
    digest = stage_digest(document)
    step = StageStep(stage=document.stage, digest=digest, document=encode(document).decode(), commit=naming.commit, built_ms=built_ms)
    chain = (previous.chain if previous else ()) + tuple(layers)
    comment = history or ""
    lines = [History(created=rfc3339(layer.time_s), created_by=f"layerwright {document.stage} {layer.kind}", comment=comment) for layer in layers]
    lines = lines or [History(created=rfc3339(naming.commit_time_s), created_by=f"layerwright {document.stage}", comment=comment, empty_layer=True)]
    return Record(
        kind="stage",
        digest=digest,
        project=naming.project,
        image=naming.image,
        platform=naming.platform,
        commit=naming.commit,
        built_ms=built_ms,
        steps=(previous.steps if previous else ()) + (step,),
        chain=chain,
        config=replace(config, diff_ids=tuple(layer.diff_id for layer in chain), history=(*config.history, *lines) if history is not None else config.history),
        states=states if states is not None else (previous.states if previous else ()),
        base=previous.base if previous else None,
        mounts=previous.mounts if previous else (),
    )


def with_labels(record: Record, *, project: str, commit: str, content: ContentDigest) -> Record:
    """The labels of a finished image, before its own are set."""
    reuse_point = next((step.digest for step in reversed(record.steps) if step.stage != "gitLatestPatch"), "")
    labels = dict(record.config.labels) | {
        "werf": project,
        "werf-version": __version__,
        "werf-stage-content-digest": content,
        "werf-project-repo-commit": commit,
        "werf.io/parent-stage-id": reuse_point,
    }
    return replace(record, config=replace(record.config, labels=labels))


def finished(record: Record, naming: Naming, *, content: ContentDigest, built_ms: int, sizes: Mapping[DiffId, int]) -> Record:
    """`record` as the finished image of this content digest. `sizes` of layers, where the record did not know them (-1 if nobody does)."""
    chain = tuple(layer if layer.size >= 0 else layer._replace(size=sizes.get(layer.diff_id, -1)) for layer in record.chain)
    created = rfc3339(max(naming.commit_time_s, chain[-1].time_s if chain else 0))
    return replace(
        record,
        kind="image",
        digest=content,
        project=naming.project,
        image=naming.image,
        commit=naming.commit,
        built_ms=built_ms,
        chain=chain,
        config=replace(record.config, created=created),
    )


def git_layers_from(record: Record) -> int:
    """The number of the first layer of the image's own gitArchive; the number of layers if there is none."""
    for number, layer in enumerate(record.chain):
        if layer.stage == "gitArchive" and not layer.image_level:
            return number
    return len(record.chain)


def layer_time(commit_time_s: int, previous: Record | None) -> int:
    """Of a declared layer's files: the commit's time, but at least a second more than any layer below has; so no layer is in a chain twice."""
    below = max((layer.time_s for layer in previous.chain), default=0) if previous else 0
    return max(commit_time_s, below + 1)


def size_of(record: Record) -> int:
    """Bytes of all layers, uncompressed; -1 while one has not been read."""
    sizes = [layer.size for layer in record.chain]
    return -1 if any(size < 0 for size in sizes) else sum(sizes)


def rfc3339(time_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))


def with_base_history(config: ImageConfig) -> ImageConfig:
    """A base's config with a history that has one line for each layer, as readers demand."""
    if sum(not line.empty_layer for line in config.history) == len(config.diff_ids):
        return config
    return replace(config, history=tuple(History(created=config.created, created_by="base image") for _ in config.diff_ids))
