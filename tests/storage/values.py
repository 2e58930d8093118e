"""Small things to store: records, layers, images."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from layerwright.oci.digest import BlobDigest, DiffId, digest_of
from layerwright.oci.image_config import ImageConfig
from layerwright.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, Descriptor, Manifest
from layerwright.oci.platform import Platform
from layerwright.storage.records import LayerKind, LayerRef, MappingState, Record, StageStep

AMD64 = Platform("linux", "amd64")


def stage_digest(name: str) -> str:
    return hashlib.sha3_224(name.encode()).hexdigest()


def layer_tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def layer_ref(content: bytes, *, kind: LayerKind = "commands", size: int | None = None) -> LayerRef:
    return LayerRef(diff_id=DiffId(digest_of(content)), kind=kind, stage="install", digest="0" * 56, size=len(content) if size is None else size, time_s=0)


def record(
    name: str,
    layers: tuple[LayerRef, ...] = (),
    *,
    kind: Literal["stage", "image"] = "image",
    states: tuple[BlobDigest, ...] = (),
    commit: str = "c" * 40,
) -> Record:
    return Record(
        kind=kind,
        digest=stage_digest(name),
        project="project",
        image="image",
        platform="linux/amd64",
        commit=commit,
        built_ms=1_700_000_000_000,
        steps=(StageStep(stage="install", digest="0" * 56, document='{"schema":1}', commit=commit, built_ms=1),),
        chain=layers,
        config=ImageConfig(platform=AMD64, env=("A=b",), diff_ids=tuple(layer.diff_id for layer in layers)),
        states=tuple(MappingState(mapping="m", commit=commit, tree="t", files=one, digest="d") for one in states),
    )


class Image:
    """An image of some layers: its blobs, by name and by content."""

    def __init__(self, *layers: bytes, platform: Platform = AMD64, compressed: bool = True, config: ImageConfig | None = None) -> None:
        self.tars = layers
        self.diff_ids = tuple(DiffId(digest_of(one)) for one in layers)
        self.stored = tuple(gzipped(one) if compressed else one for one in layers)
        kind = OCI_LAYER_GZIP if compressed else OCI_LAYER
        self.descriptors = tuple(Descriptor(media_type=kind, digest=digest_of(one), size=len(one)) for one in self.stored)
        self.config = replace(config or ImageConfig(platform=platform, cmd=("true",)), platform=platform, diff_ids=self.diff_ids).encode()
        described = Descriptor(media_type=OCI_CONFIG, digest=digest_of(self.config), size=len(self.config))
        self.manifest = Manifest(config=described, layers=self.descriptors).encode()

    @property
    def digest(self) -> BlobDigest:
        return digest_of(self.manifest)


def in_child(act: Callable[[], object]) -> int:
    """Run `act` in a forked child; its exit code, or minus the signal that ended it."""
    child = start_child(act)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start_child(act: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child
