"""Redirects: which are followed, and what it means if the server at their end refuses. Source: RFC 9110, 15.4; OCI distribution-spec 1.1, "Pulling blobs"."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from layerwright.registry.errors import NotFound, RegistryError, Unauthorized
from layerwright.registry.http import Answer
from layerwright.registry.options import RegistryOptions
from layerwright.registry.retry import few

_REDIRECTS = (301, 302, 303, 307, 308)
_ELSEWHERE = "the registry sent us to a storage that refuses: run it again; if it stays so, ask who runs the registry"


def redirect_of(answer: Answer, method: str, url: str, where: str) -> str:
    """Where `answer` to a request for `url` sends us, "" if nowhere. Raises RegistryError for an address that is none.

    What was to be written is sent again as it was, also after 301 and 302, which browsers turn into GET: a registry that moved means just that.
    Only 303 says that something else is to be read instead, and that is no answer to a push.
    """
    target = answer.header("Location")
    if not target or answer.status not in _REDIRECTS or (answer.status == 303 and method not in ("GET", "HEAD")):
        return ""
    try:
        found = urljoin(url, target)
        urlsplit(found).port  # noqa: B018 - raises ValueError if it is none
    except ValueError:
        host = urlsplit(url).netloc.rpartition("@")[2]
        raise RegistryError(f"{host} sends us to an address that is none", where=where, mend="ask who runs the registry") from None
    return found


def refused_elsewhere(error: RegistryError, options: RegistryOptions) -> RegistryError:
    """`error` of a server the registry sent us to. Such addresses live for minutes, so the registry is asked for a new one."""
    if isinstance(error, Unauthorized | NotFound) or error.tries == 1:
        error.tries = few(options)
        error.mend = _ELSEWHERE
    return error
