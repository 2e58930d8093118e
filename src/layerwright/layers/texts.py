"""The few files whose text the file index keeps, so that questions about users and packages need no layer bytes."""

from __future__ import annotations

from layerwright.layers.entry import FILE, Entry

PASSWD, GROUP = b"etc/passwd", b"etc/group"
KEPT = frozenset({PASSWD, GROUP, b"var/lib/dpkg/status", b"lib/apk/db/installed", b"usr/lib/apk/db/installed"})
TEXT_MAX = 8 << 20  # bytes of one text; Debian's status of 2,000 packages is 3 MB


def is_kept_text(entry: Entry) -> bool:
    """Whether the index keeps this entry's content. A longer text is left out: the answer is then "not known", not a wrong one."""
    return entry.path in KEPT and entry.kind == FILE and entry.size <= TEXT_MAX
