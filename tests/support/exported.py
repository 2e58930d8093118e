"""Reads an exported image as any other tool would: with JSON and tar, and nothing of layerwright's."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


class File(NamedTuple):
    """One path of an image. `kind` is "file", "directory", "symlink" or "other"; `content` is of files, `link` of symlinks."""

    kind: str
    mode: int
    uid: int
    gid: int
    time_s: int
    content: bytes = b""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Exported:
    """An image: its OCI configuration, the paths of each layer as the tar has them, and the files all layers together show."""

    config: Mapping[str, Any]
    layers: tuple[tuple[str, ...], ...]
    files: dict[str, File] = field(repr=False)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The `config` object: Env, Cmd, Labels …"""
        settings: Mapping[str, Any] = self.config.get("config", {})
        return settings

    @property
    def contents(self) -> dict[str, bytes]:
        """Every regular file with its content."""
        return {path: file.content for path, file in self.files.items() if file.kind == "file"}

    def below(self, directory: str) -> dict[str, bytes]:
        """Contents of the regular files below `directory`, by their path relative to it."""
        start = f"{directory}/"
        return {path.removeprefix(start): content for path, content in self.contents.items() if path.startswith(start)}


def read_layout(layout: Path) -> Exported:
    """The one image of an OCI layout."""
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(_blob(layout, entry["digest"]).read_bytes())
    files: dict[str, File] = {}
    layers = tuple(_apply(_blob(layout, layer["digest"]), files) for layer in manifest["layers"])
    return Exported(json.loads(_blob(layout, manifest["config"]["digest"]).read_bytes()), layers, files)


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _apply(layer: Path, files: dict[str, File]) -> tuple[str, ...]:
    """Put a layer on top of `files`; returns its paths."""
    paths: list[str] = []
    with tarfile.open(layer, encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            path = member.name.strip("/")
            paths.append(path)
            directory, _, name = path.rpartition("/")
            if name == OPAQUE:
                _remove_below(files, directory)
            elif name.startswith(WHITEOUT):
                _remove(files, f"{directory}/{name[len(WHITEOUT) :]}".strip("/"))
            elif path:
                if not member.isdir() and path in files:
                    _remove(files, path)
                files[path] = _file(tar, member, files)
    return tuple(paths)


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo, files: Mapping[str, File]) -> File:
    if member.islnk():
        return files[member.linkname.strip("/")]
    kind = "directory" if member.isdir() else "symlink" if member.issym() else "file" if member.isreg() else "other"
    stream = tar.extractfile(member) if kind == "file" else None
    content = stream.read() if stream else b""
    return File(kind, member.mode, member.uid, member.gid, int(member.mtime), content, member.linkname if kind == "symlink" else "")


def _remove(files: dict[str, File], path: str) -> None:
    removed = files.pop(path, None)
    if removed is None or removed.kind == "directory":
        _remove_below(files, path)


def _remove_below(files: dict[str, File], directory: str) -> None:
    for path in [one for one in files if not directory or one.startswith(f"{directory}/")]:
        del files[path]
