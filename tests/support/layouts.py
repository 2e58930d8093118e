"""Base images in unusual shapes, as an OCI layout written by hand: other compressions, other platforms, several platforms in one index."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.support.machine import find_program
from tests.support.registry_server import RegistryServer
from tools.base_image import add_entry, architecture, as_json

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Layer(NamedTuple):
    """An uncompressed tar, and how the image holds it."""

    tar: bytes
    compression: Literal["gzip", "zstd", "none"] = "gzip"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A layer of plain files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            add_entry(tar, path, 0o644, content=content)
    return out.getvalue()


class Layout:
    """An OCI layout in `directory`; an image of one platform or an index is put in, named, and then copied to where it is wanted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs" / "sha256").mkdir(parents=True)
        (directory / "oci-layout").write_bytes(as_json({"imageLayoutVersion": "1.0.0"}))

    def image(
        self, layers: Sequence[Layer], settings: Mapping[str, object] | None = None, *, arch: str = architecture(), says: Sequence[Layer] = ()
    ) -> dict[str, Any]:
        """Put an image, and return its descriptor. `says`: the layers that its config names, if it lies."""
        config = {
            "architecture": arch,
            "os": "linux",
            "config": dict(settings or {}),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.tar).hexdigest()}" for layer in says or layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._put(as_json(config), "application/vnd.oci.image.config.v1+json"),
            "layers": [self._layer(layer) for layer in layers],
        }
        return self._put(as_json(manifest), _MANIFEST) | {"platform": {"os": "linux", "architecture": arch}}

    def index(self, images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Put an index of images, and return its descriptor."""
        return self._put(as_json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": list(images)}), _INDEX)

    def push(self, registry: RegistryServer, descriptor: Mapping[str, Any], name: str, *options: str) -> str:
        """Copy one image or index to the registry, byte for byte unless `options` say otherwise; returns its reference."""
        entry = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": "it"}}
        (self.directory / "index.json").write_bytes(as_json({"schemaVersion": 2, "manifests": [entry]}))
        reference = registry.reference(name)
        skopeo("copy", "--all", "--dest-tls-verify=false", *(options or ("--preserve-digests",)), f"oci:{self.directory}:it", f"docker://{reference}")
        return reference

    def _layer(self, layer: Layer) -> dict[str, Any]:
        match layer.compression:
            case "gzip":
                return self._put(gzip.compress(layer.tar, 1, mtime=0), f"{_LAYER}+gzip")
            case "zstd":
                packed = subprocess.run((find_program("zstd"), "-q", "-c"), input=layer.tar, check=True, capture_output=True).stdout
                return self._put(packed, f"{_LAYER}+zstd")
            case "none":
                return self._put(layer.tar, _LAYER)

    def _put(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (self.directory / "blobs" / "sha256" / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def skopeo(*arguments: str) -> str:
    """What skopeo printed; fails the test when skopeo fails."""
    done = subprocess.run((find_program("skopeo"), "--insecure-policy", *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"skopeo {' '.join(arguments)}: {done.stderr}"
    return done.stdout
