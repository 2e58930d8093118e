"""What a storage keeps of a stage or of a finished image. A record is one JSON blob, written once.

Source: design of the project, docs/storage.md "Records".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NewType

from layerwright.oci.digest import BlobDigest, ChainId, DiffId, chain_id
from layerwright.oci.image_config import ImageConfig, decode_image_config

StageDigest = NewType("StageDigest", str)  # 56 hex digits, names a stage by its inputs and by what it stands on
ContentDigest = NewType("ContentDigest", str)  # 56 hex digits, names a finished image by all its inputs

SCHEMA = 1
LayerKind = Literal["base", "mounts", "git", "imports", "commands"]


class LayerRef(NamedTuple):
    """One layer of a chain: which stage made it, and how."""

    diff_id: DiffId
    kind: LayerKind
    stage: str  # "from", "gitArchive", "install" …
    digest: str  # of that stage; for a layer of an internal base, of the stage in that image
    size: int  # bytes of the uncompressed tar; -1 for a base's layer that nobody has read yet
    time_s: int  # of its files (declared layers), or when it was made (commands); 0 for a base's
    image_level: bool = False  # made by a stage of an internal base


class MappingState(NamedTuple):
    """What a git mapping had given when the record was made. `mapping` is the hash of its parameters."""

    mapping: str
    commit: str
    tree: str
    files: BlobDigest  # blob with the list: see git.states
    digest: str  # git.values.state_digest of that list


class BaseOrigin(NamedTuple):
    """The external base: the reference as text, and the manifest (of the platform) it was, which is kept even for a plain `from`."""

    text: str
    manifest: BlobDigest


class StageStep(NamedTuple):
    """One stage of the chain: its name, its digest ("" for those without) and its key document as canonical text."""

    stage: str
    digest: str
    document: str
    commit: str
    built_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A stage (`kind` "stage", named by a StageDigest) or a finished image ("image", named by a ContentDigest), with its whole chain."""

    kind: Literal["stage", "image"]
    digest: str
    project: str
    image: str  # the name it was first built as
    platform: str
    commit: str  # built at: what commands read beyond their inputs is as of here
    built_ms: int  # Unix time, milliseconds, UTC
    steps: tuple[StageStep, ...]
    chain: tuple[LayerRef, ...]  # oldest first, the base's included
    config: ImageConfig
    states: tuple[MappingState, ...] = ()
    base: BaseOrigin | None = None
    mounts: tuple[tuple[str, str], ...] = ()  # (kind, to), inherited by images built on this one

    @property
    def diff_ids(self) -> tuple[DiffId, ...]:
        return tuple(layer.diff_id for layer in self.chain)

    @property
    def base_diff_ids(self) -> tuple[DiffId, ...]:
        """The layers of the image of the same file that this one stands on; empty if it stands on none."""
        return tuple(layer.diff_id for layer in self.chain if layer.image_level)

    @property
    def chain_id(self) -> ChainId | None:
        return chain_id(self.diff_ids)


def encode_record(record: Record) -> bytes:
    """Canonical JSON; `decode_record(encode_record(r)) == r`."""
    raw: dict[str, Any] = {
        field: [one._asdict() for one in getattr(record, field)] if field in ("steps", "chain", "states") else getattr(record, field)
        for field in Record.__slots__
    }
    raw["config"] = json.loads(record.config.encode())
    raw["base"] = record.base._asdict() if record.base else None
    raw["schema"] = SCHEMA
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()


class BadRecord(ValueError):
    """Bytes that are no record, or one of another schema. A reader treats it as a miss."""


def decode_record(content: bytes) -> Record:
    """Raises BadRecord."""
    try:
        raw = json.loads(content)
        if raw.pop("schema") != SCHEMA:
            raise BadRecord("a record of another schema")
        raw["config"] = decode_image_config(json.dumps(raw["config"]).encode())
        raw["steps"] = tuple(StageStep(**one) for one in raw["steps"])
        raw["chain"] = tuple(LayerRef(**one) for one in raw["chain"])
        raw["states"] = tuple(MappingState(**one) for one in raw["states"])
        raw["base"] = BaseOrigin(**raw["base"]) if raw["base"] else None
        raw["mounts"] = tuple((kind, to) for kind, to in raw["mounts"])
        return Record(**raw)
    except BadRecord:
        raise
    except Exception as error:
        raise BadRecord(f"not a record: {error}") from error
