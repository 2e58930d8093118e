"""What a status that was not hoped for means to the user. Source: OCI distribution-spec 1.1, "Error Codes"."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from layerwright.registry.errors import NotFound, RegistryError, Unauthorized, Unreachable
from layerwright.registry.http import Answer
from layerwright.registry.options import RegistryOptions
from layerwright.registry.retry import is_transient, retry_after_s
from layerwright.registry.texts import shown, told

_LIMIT_BYTES = 64 << 10


def refusal(answer: Answer, *, doing: str, where: str, login: str, secrets: Iterable[str], options: RegistryOptions) -> RegistryError:
    """The error for `answer`, whose body is read here. `doing`: "read the manifest"; `login`: how to mend a refused login."""
    said = shown(told(_body(answer)), secrets)
    error = _error(answer, said, doing=doing, where=where, login=login, options=options)
    error.said = said
    return error


def _error(answer: Answer, said: str, *, doing: str, where: str, login: str, options: RegistryOptions) -> RegistryError:
    host = urlsplit(answer.url).netloc.rpartition("@")[2]
    what = f"cannot {doing}: {host} answers {answer.status} {answer.reason}".rstrip() + (f": {said}" if said else "")
    if answer.status in (401, 403):
        return Unauthorized(what, where=where, mend=login)
    if answer.status == 404:
        return NotFound(what, where=where, mend="check the name, the tag and the registry; a private image needs a login (layerwright cr login)")
    if is_transient(answer.status):
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
