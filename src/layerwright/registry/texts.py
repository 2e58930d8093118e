"""Text that comes from servers and other programs, made fit to be shown: on one line, not too long, and without anything secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_LIMIT_TEXT = 500
_LIMIT_DETAIL = 200
_LEAST_SECRET = 4  # characters: what is shorter would tear other words apart
_LOGIN_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY_IN_URL = re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]+")
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{16,}")


def told(body: bytes) -> str:
    """The words of a registry's or a login server's error body; "" if it has none. Source: OCI distribution-spec 1.1, "Error Codes"; RFC 6749, 5.2."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return _not_json(body.decode("utf-8", "replace"))
    if not isinstance(raw, dict):
        return ""
    listed = raw.get("errors")
    if isinstance(listed, list) and listed:
        return "; ".join(text for one in listed[:5] if (text := _one(one)))
    return ": ".join(str(raw[key]) for key in ("error", "error_description", "message", "details", "detail") if isinstance(raw.get(key), str))


def _not_json(text: str) -> str:
    """What a blob storage says in XML, the title of a web page, or the first line of plain text."""
    found = [one[1] for name in ("Code", "Message") if (one := re.search(f"<{name}>([^<]+)</{name}>", text))]
    if not found and (title := re.search(r"(?is)<title[^>]*>([^<]+)<", text)):
        found = [f'a web page "{title[1].strip()}"']
    if found or "<" in text or "\ufffd" in text:
        return ": ".join(found)
    return text.strip().partition("\n")[0]


def _one(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    said = ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))
    detail = error.get("detail")
    if not detail:
        return said
    more = detail if isinstance(detail, str) else json.dumps(detail, separators=(",", ":"), ensure_ascii=False)
    return said if more in said or len(more) > _LIMIT_DETAIL else f"{said} ({more})" if said else more


def shown(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` from outside as it may be shown. Secrets go before it is cut to a length: half of one is one, too."""
    return one_line(scrubbed(text, secrets))


def one_line(text: str) -> str:
    """`text` without control characters and not too long: it comes from a server, and goes to a terminal."""
    clean = re.sub(r"[\x00-\x20\x7f-\x9f]+", " ", text).strip()
    return clean if len(clean) <= _LIMIT_TEXT else clean[:_LIMIT_TEXT] + "..."


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without `secrets`, logins and queries in addresses (those of blob storages are signed), and Authorization headers."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, "***")
    text = _AUTHORIZATION.sub(r"\1\2***", text)
    return _QUERY_IN_URL.sub(r"\1?***", _LOGIN_IN_URL.sub("***@", text))
