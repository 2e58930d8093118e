"""Small files that say whether they are whole: the content, then one line with a checksum over the file's name and the content.

After a JSON document the line is a second JSON value, so `jq` reads such a file.
"""

from __future__ import annotations

import hashlib
import os

_SEAL_BYTES = len('\n"sha256:"\n') + 64


def sealed(path: str, content: bytes) -> bytes:
    """What the file at `path` has to hold."""
    return b'%s\n"sha256:%s"\n' % (content, _checksum(path, content))


def unsealed(path: str, raw: bytes) -> bytes | None:
    """The content of the file at `path`, or None if it is damaged, cut short, or another file's."""
    content = raw[:-_SEAL_BYTES]
    return content if raw[len(content) :] == b'\n"sha256:%s"\n' % _checksum(path, content) else None


def read_sealed(path: str) -> bytes | None:
    """The content of a sealed file; None if it is missing, unreadable or damaged."""
    try:
        with open(path, "rb", buffering=0) as file:
            return unsealed(path, file.readall())
    except OSError:
        return None


def _checksum(path: str, content: bytes) -> bytes:
    total = hashlib.sha256(os.path.basename(path).encode() + b"\0")
    total.update(content)
    return total.hexdigest().encode()
