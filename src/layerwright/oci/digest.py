"""Digests. Source: OCI image-spec 1.1, descriptor.md "Digests" and config.md "Layer DiffID" and "Layer ChainID"."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NewType

DiffId = NewType("DiffId", str)  # "sha256:<64 hex>" of the uncompressed layer tar
BlobDigest = NewType("BlobDigest", str)  # "sha256:<64 hex>" of the bytes as stored
ChainId = NewType("ChainId", str)  # "sha256:<64 hex>" of a stack of diff ids

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def is_digest(text: str) -> bool:
    return _DIGEST.match(text) is not None


def hex_of(digest: str) -> str:
    """The 64 hex digits of `sha256:<64 hex>`."""
    assert is_digest(digest), digest
    return digest[7:]


def digest_of(content: bytes) -> BlobDigest:
    return BlobDigest("sha256:" + hashlib.sha256(content).hexdigest())


def chain_id(diff_ids: Iterable[DiffId]) -> ChainId | None:
    """The chain id of a stack, oldest layer first; None for an empty stack."""
    chain: str | None = None
    for diff_id in diff_ids:
        chain = diff_id if chain is None else digest_of(f"{chain} {diff_id}".encode())
    return None if chain is None else ChainId(chain)
