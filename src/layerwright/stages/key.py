"""The key document: the named inputs of a stage as canonical JSON, and the digest that names the stage.

Canonical: UTF-8, keys sorted, no insignificant white space, no floats; bytes that are not UTF-8 travel as lone surrogates (PEP 383) and are
written as JSON escapes, so `decode(encode(document)) == document`. The digest is SHA3-224: 56 hex digits.
A new kind of input means a new SCHEMA. Secrets and proxy variables enter no document. Source: docs/stages.md, "Key documents".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from layerwright.storage.records import ContentDigest, StageDigest

SCHEMA = 1
Json: TypeAlias = "str | int | bool | Sequence[Json] | Mapping[str, Json] | None"
Inputs: TypeAlias = Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """What a stage stands on: its predecessor's digest, and the chain id of the layers it left ("" for none)."""

    stage: str
    chain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDocument:
    """The inputs of one stage. Lists are lists; names of inputs are what `explain` compares."""

    stage: str
    platform: str
    previous: Previous | None
    inputs: Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentDocument:
    """All declared inputs of all stages of an image, file content included, without chains: needs no build to be known."""

    platform: str
    stages: Sequence[tuple[str, Inputs]]


def canonical(value: Json) -> bytes:
    """`value` as canonical JSON. Raises TypeError for floats and for keys that are not text."""
    _check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")


def encode(document: KeyDocument) -> bytes:
    previous = None if document.previous is None else {"stage": document.previous.stage, "chain": document.previous.chain}
    return canonical({"schema": SCHEMA, "stage": document.stage, "platform": document.platform, "previous": previous, "inputs": document.inputs})


def decode(content: bytes) -> KeyDocument:
    """Raises ValueError for bytes that are no key document of this SCHEMA."""
    raw = json.loads(content)
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise ValueError("not a key document of this schema")
    previous = raw["previous"]
    return KeyDocument(
        stage=raw["stage"],
        platform=raw["platform"],
        previous=None if previous is None else Previous(stage=previous["stage"], chain=previous["chain"]),
        inputs=raw["inputs"],
    )


def stage_digest(document: KeyDocument) -> StageDigest:
    return StageDigest(hashlib.sha3_224(encode(document)).hexdigest())


def encode_content(document: ContentDocument) -> bytes:
    stages: list[Json] = [{"stage": stage, "inputs": inputs} for stage, inputs in document.stages]
    return canonical({"schema": SCHEMA, "image": True, "platform": document.platform, "stages": stages})


def content_digest(document: ContentDocument) -> ContentDigest:
    return ContentDigest(hashlib.sha3_224(encode_content(document)).hexdigest())


def platforms_digest(digests: Sequence[ContentDigest]) -> ContentDigest:
    """Of an image for several platforms: by the content digests of its platforms, in whatever order they are named."""
    return ContentDigest(hashlib.sha3_224(canonical({"schema": SCHEMA, "platforms": sorted(digests)})).hexdigest())


def text_of(path: bytes) -> str:
    """Raw bytes as text that `canonical` escapes reversibly."""
    return path.decode("utf-8", "surrogateescape")


def _check(value: Json) -> None:
    if isinstance(value, float):
        raise TypeError("a key document holds no floats")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise TypeError(f"a key document's names are text, not {name!r}")
            _check(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner)
