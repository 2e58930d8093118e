"""How messages name paths of an image."""

from __future__ import annotations


def shown(path: bytes) -> str:
    """An absolute path; what is not UTF-8 is escaped."""
    return "/" + path.decode(errors="backslashreplace")
