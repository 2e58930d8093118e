from __future__ import annotations

import pytest

from layerwright.git.trees import DIRECTORY, Node, parse_tree
from layerwright.git.values import EXECUTABLE, FILE, GITLINK, SYMLINK


@pytest.mark.parametrize("oid_bytes", [20, 32])
def test_a_raw_tree_is_read_whatever_bytes_its_names_and_ids_have(oid_bytes: int) -> None:
    entries = {
        b"a 100644 b": (b"100644", FILE, b"\0" * oid_bytes),
        b"new\nline": (b"100755", EXECUTABLE, b"\n" * oid_bytes),
        b"\xff\xfe": (b"120000", SYMLINK, b"40000 x\0".ljust(oid_bytes, b"\xff")),
        b"dir": (b"40000", DIRECTORY, b" " * oid_bytes),
        b"sub": (b"160000", GITLINK, b"1" * oid_bytes),
        b"old": (b"100664", FILE, b"2" * oid_bytes),
        b"older": (b"100775", EXECUTABLE, b"3" * oid_bytes),
    }
    content = b"".join(mode + b" " + name + b"\0" + oid for name, (mode, _, oid) in entries.items())
    assert parse_tree(content, oid_bytes) == {name: Node(mode, oid.hex()) for name, (_, mode, oid) in entries.items()}


def test_an_empty_tree_has_no_names() -> None:
    assert parse_tree(b"", 20) == {}
