"""gitCache and gitLatestPatch: the stages that bring an image from the recorded state of its sources to the present one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from layerwright.stages.git_archive import GIT_CACHE_BYTES
from layerwright.stages.key import Inputs, canonical, text_of


def cache_inputs(changed_bytes: int) -> Inputs | None:
    """A gitCache exists from 1 MiB of changed content on, a new one with each further MiB; None below."""
    steps = changed_bytes // GIT_CACHE_BYTES
    return {"changedMiB": steps} if steps else None


def patch_inputs(changes: Iterable[tuple[bytes, str | None]]) -> Inputs:
    """`changes`: target path and "<mode> <oid>", None for a removed one."""
    listed = canonical([[text_of(path), state] for path, state in sorted(changes)])
    return {"changes": hashlib.sha256(listed).hexdigest()}
