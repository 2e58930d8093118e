"""What is fuzzed: each target takes any bytes and may end only as its reader promises. Anything else it raises is a finding.

The first byte of an input for tars says how the rest is to be taken; docs/fuzzing.md has the list.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from layerwright.host.files import remove_tree
from layerwright.layers.compress import decompressed
from layerwright.layers.index import encode_index
from layerwright.layers.index_parts import BadIndex, _seal, decode_digests, decode_files, decode_skeleton
from layerwright.layers.scan import index_tar
from layerwright.layers.stack import StackedIndex, SymlinkLoop
from layerwright.layers.tar import BadLayer
from layerwright.layers.tree import tree_matches
from layerwright.layers.unpack import CannotUnpack, unpack
from layerwright.layers.ustar import BLOCK, byte_sum
from layerwright.limits import Limits
from layerwright.oci.image_config import decode_image_config
from layerwright.oci.manifest import BadManifest, Index, decode_manifest

DIFF_ID = "sha256:" + "0" * 64
LIMITS = Limits(layer_bytes=4 << 20, layer_entries=2000, metadata_bytes=1 << 20)
REPAIR = 1  # of the first byte: header checksums are made right, or hardly any change would come further than the check

Target = Callable[[bytes], None]


class Finding(AssertionError):
    """A promise that an input broke."""


def repaired(tar: bytes) -> bytes:
    """`tar` with the right checksum in every block that looks like a header."""
    blocks = bytearray(tar)
    for at in range(0, len(blocks) - BLOCK + 1, BLOCK):
        if blocks[at + 257 : at + 262] == b"ustar":
            blocks[at + 148 : at + 156] = b" " * 8
            blocks[at + 148 : at + 156] = b"%06o\0 " % byte_sum(bytes(blocks[at : at + BLOCK]))
    return bytes(blocks)


def _tar_of(data: bytes) -> bytes:
    return repaired(data[1:]) if data[:1] and data[0] & REPAIR else data[1:]


def tar(data: bytes) -> None:
    """The tar reader: BadLayer, or an index that can be stored and read again."""
    try:
        index = index_tar(io.BytesIO(_tar_of(data)), LIMITS)
    except BadLayer:
        return
    parts = encode_index(index)
    skeleton = decode_skeleton(index.diff_id, parts["skeleton"])
    files = decode_digests(index.diff_id, parts["digests"], decode_files(index.diff_id, parts["files"], skeleton))
    if (skeleton, files.entries) != (index.parts()[0], index.parts()[1].entries):
        raise Finding("an index that is not the same once stored")
    view = StackedIndex([index, index])
    for entry in index.listed[:50]:
        try:
            view.lookup(entry.path)
            view.resolve(entry.path, follow_last=True)
            view.file_of(entry.path)
        except SymlinkLoop:
            pass


def compressed(data: bytes) -> None:
    """The decompressors: BadLayer, or bytes within the limit."""
    try:
        stream = decompressed(io.BytesIO(data), most=LIMITS.layer_bytes)
        size = sum(map(len, iter(lambda: stream.read(1 << 16), b"")))
    except BadLayer:
        return
    if size > LIMITS.layer_bytes:
        raise Finding(f"{size} bytes came")


class Trees:
    """Unpacks into a scratch directory. Whatever is outside of the tree has to stay as it is, and the tree has to be what its index says."""

    def __init__(self) -> None:
        self._top = Path(tempfile.mkdtemp(prefix="layerwright-fuzz-"))
        self._outside = self._top / "outside"
        self._outside.mkdir()
        (self._outside / "victim").write_bytes(b"untouched")
        (self._outside / "dir").mkdir()
        os.symlink("victim", self._outside / "link")
        self._before = self._state()

    def close(self) -> None:
        shutil.rmtree(self._top)

    def _state(self) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for path in sorted([self._outside, *self._outside.rglob("*")]):
            state = os.lstat(path)
            found.append((str(path), state.st_mode, state.st_uid, state.st_gid, state.st_size, state.st_mtime_ns, state.st_nlink, state.st_ctime_ns))
        return found

    def __call__(self, data: bytes) -> None:
        """One layer, or with the second bit of the first byte two: the part behind the middle lies on top of the part before it."""
        content = _tar_of(data).replace(b"/OUTSIDE", os.fsencode(self._outside)[:8].ljust(8, b"/"))
        layers = [content]
        if data[:1] and data[0] & 2:
            half = len(content) // 2 // BLOCK * BLOCK
            layers = [content[:half], content[half:]]
        tree_names = []
        try:
            view = StackedIndex(())
            for number, layer in enumerate(layers):
                tree = self._top / f"tree{number}"
                tree.mkdir()
                tree_names.append(str(tree))
                if not self._one(layer, tree_names, view):
                    break
                view = view.on_top(index_tar(io.BytesIO(layer), LIMITS))
        finally:
            for name in tree_names:
                remove_tree(name)
        if self._state() != self._before:
            raise Finding("something outside of the tree was touched")
        if sorted(os.listdir(self._top)) != ["outside"]:
            raise Finding(f"left beside the tree: {os.listdir(self._top)}")

    def _one(self, layer: bytes, trees: list[str], view: StackedIndex) -> bool:
        try:
            index = index_tar(io.BytesIO(layer), LIMITS)
            unpack(io.BytesIO(layer), trees[-1], below=view, lower_trees=trees[-2::-1], limits=LIMITS)
        except (BadLayer, CannotUnpack, SymlinkLoop):
            return False
        if (wrong := tree_matches(trees[-1], index, below=view)) is not None:
            raise Finding(f"the tree is not what its index says: {wrong}")
        return True


def manifest(data: bytes) -> None:
    """The readers of manifests, indexes and configs: BadManifest, or a value that is the same written and read again."""
    try:
        found = decode_manifest(data)
        again = decode_manifest(found.encode())
        if isinstance(found, Index) != isinstance(again, Index):
            raise Finding("another kind of manifest once written")
        if found.encode() != again.encode():
            raise Finding("another manifest once written and read again")
    except BadManifest:
        pass
    try:
        config = decode_image_config(data)
    except BadManifest:
        return
    if decode_image_config(config.encode()).encode() != config.encode():
        raise Finding("another config once written and read again")


def index(data: bytes) -> None:
    """The reader of stored file indexes: BadIndex, or a value."""
    body = zlib.compress(data[1:], 1)
    try:
        skeleton = decode_skeleton(DIFF_ID, _seal(DIFF_ID, "skeleton") + body)
    except BadIndex:
        skeleton = decode_skeleton(DIFF_ID, _empty_skeleton())
    try:
        files = decode_files(DIFF_ID, _seal(DIFF_ID, "files") + body, skeleton)
        decode_digests(DIFF_ID, _seal(DIFF_ID, "digests") + body, files)
    except BadIndex:
        pass


def _empty_skeleton() -> bytes:
    from layerwright.layers.index_parts import encode_skeleton, split_entries

    return encode_skeleton(DIFF_ID, split_entries((), {})[0])


def targets() -> Mapping[str, Callable[[], Iterator[Target]]]:
    """By name: makes the target, and cleans up after it when it is closed."""

    def plain(target: Target) -> Callable[[], Iterator[Target]]:
        def make() -> Iterator[Target]:
            yield target

        return make

    def trees() -> Iterator[Target]:
        made = Trees()
        try:
            yield made
        finally:
            made.close()

    return {"tar": plain(tar), "unpack": trees, "manifest": plain(manifest), "index": plain(index), "compressed": plain(compressed)}
