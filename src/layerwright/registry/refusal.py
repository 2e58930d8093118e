"""What a status that was not hoped for means to the user. Source: OCI distribution-spec 1.1, "Error Codes"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from layerwright.registry.errors import NotFound, RegistryError, Unauthorized, Unreachable
from layerwright.registry.http import Answer
from layerwright.registry.options import RegistryOptions
from layerwright.registry.retry import TRANSIENT, retry_after_s

_LIMIT_BYTES = 64 << 10
_LIMIT_TEXT = 500


def refusal(answer: Answer, *, doing: str, where: str, login: str, secrets: Iterable[str], options: RegistryOptions) -> RegistryError:
    """The error for `answer`, whose body is read here. `doing`: "read the manifest"; `login`: how to mend a refused login."""
    said = scrubbed(told(_body(answer)), secrets)
    host = urlsplit(answer.url).netloc.rpartition("@")[2]
    what = f"cannot {doing}: {host} answers {answer.status} {answer.reason}".rstrip() + (f": {said}" if said else "")
    if answer.status in (401, 403):
        return Unauthorized(what, where=where, mend=login)
    if answer.status == 404:
        return NotFound(what, where=where, mend="check the name, the tag and the registry; a private image needs a login (docker login)")
    if answer.status in TRANSIENT:
        mend = (
            "wait, or log in if the registry limits anonymous pulls" if answer.status == 429 else "build again later; if it stays so, ask who runs the registry"
        )
        return Unreachable(what, where=where, mend=mend, tries=options.attempts, retry_after_s=retry_after_s(answer.header("Retry-After")))
    return RegistryError(what, where=where, mend="ask who runs the registry, with this message")


def _body(answer: Answer) -> bytes:
    try:
        return answer.body(_LIMIT_BYTES)
    except Unreachable:
        return b""  # the status is known, and is what matters


def told(body: bytes) -> str:
    """The words of a registry's or a login server's error body, on one line."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(raw, dict):
        return ""
    listed = raw.get("errors")
    if isinstance(listed, list) and listed:
        return one_line("; ".join(text for one in listed[:5] if (text := _one(one))))
    return one_line(": ".join(str(raw[key]) for key in ("error", "error_description", "message", "details") if isinstance(raw.get(key), str)))


def _one(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    return ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))


def one_line(text: str) -> str:
    """`text` without control characters and not too long: it comes from a server, and goes to a terminal."""
    clean = re.sub(r"[\x00-\x20\x7f-\x9f]+", " ", text).strip()
    return clean if len(clean) <= _LIMIT_TEXT else clean[:_LIMIT_TEXT] + "..."


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 3:
            text = text.replace(secret, "***")
    return text
