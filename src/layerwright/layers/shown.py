"""How messages name paths of an image."""

from __future__ import annotations


def shown(path: bytes) -> str:
    """An absolute path of one line and at most 1,000 characters; what is not UTF-8, or would not be seen, is escaped."""
    text = path.strip(b"/").decode(errors="backslashreplace")
    visible = text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    return "/" + (visible if len(visible) <= 1000 else visible[:997] + "...")


def cut(name: bytes) -> bytes:
    """So much of a name as a message has room for."""
    return name if len(name) <= 200 else name[:197] + b"..."
