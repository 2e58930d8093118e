"""Layer tars for tests: crafted ones, ours, and the whole way from entries to an index and a tree."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from layerwright.layers.entry import FILE, Entry, NewEntry
from layerwright.layers.index import FileIndex
from layerwright.layers.scan import index_tar
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import LayerSummary, TarWriter
from layerwright.layers.unpack import unpack

TYPES = {"file": b"0", "hard": b"1", "sym": b"2", "char": b"3", "block": b"4", "dir": b"5", "fifo": b"6"}


def member(
    name: str,
    kind: str = "file",
    content: bytes = b"",
    *,
    link: str = "",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: float = 0,
    pax: dict[str, str] | None = None,
) -> bytes:
    """One member of a tar as another tool may write it: nothing is checked."""
    info = tarfile.TarInfo(name)
    info.type = TYPES.get(kind, kind.encode())
    info.size, info.linkname, info.mode, info.uid, info.gid, info.mtime = len(content), link, mode, uid, gid, mtime
    info.pax_headers = pax or {}
    header = info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + content + bytes(-len(content) % 512)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def new_file(path: str | bytes, content: bytes = b"", **more: object) -> NewEntry:
    raw = os.fsencode(path)
    entry = Entry(raw, FILE, 0o644, size=len(content))._replace(**more)  # type: ignore[arg-type]
    return NewEntry(entry, lambda: io.BytesIO(content))


def write(*entries: Entry | NewEntry) -> tuple[bytes, LayerSummary]:
    out = io.BytesIO()
    writer = TarWriter(out)
    for entry in entries:
        writer.add(NewEntry(entry, None) if isinstance(entry, Entry) else entry)
    summary = writer.close()
    return out.getvalue(), summary


def index_of(tar: bytes) -> FileIndex:
    return index_tar(io.BytesIO(tar))


def unpack_stack(layers: Iterable[bytes], directory: Path) -> tuple[list[str], StackedIndex]:
    """Unpack layers one above the other; their trees, oldest first, and the stack of their indexes."""
    trees: list[str] = []
    view = StackedIndex(())
    for number, tar in enumerate(layers):
        tree = directory / f"layer{number}"
        tree.mkdir()
        unpack(io.BytesIO(tar), str(tree), below=view, lower_trees=trees[::-1])
        trees.append(str(tree))
        view = view.on_top(index_of(tar))
    return trees, view


def in_overlay(trees: list[str], upper: Path, script: str) -> str:
    """Run a shell script in the directory that an overlay of `trees`, oldest first, and `upper` shows."""
    work, merged = upper.with_name(upper.name + ".work"), upper.with_name(upper.name + ".merged")
    for directory in (upper, work, merged):
        directory.mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(reversed(trees))},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off,index=off,xino=off"
    command = f"mount -t overlay overlay -o {options} {merged} && cd {merged} && {{\n{script}\n}}"
    done = subprocess.run(["unshare", "-m", "sh", "-ec", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
