"""Layers made into an image that other tools unpack."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def write_layout(directory: Path, layers: Sequence[bytes]) -> None:
    """An OCI layout with one image, tagged `test`, of uncompressed layers."""

    def put(content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs = directory / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    kind = "application/vnd.oci.image."
    descriptors = [put(layer, kind + "layer.v1.tar") for layer in layers]
    root = {"type": "layers", "diff_ids": [descriptor["digest"] for descriptor in descriptors]}
    config = put(json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode(), kind + "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "config": config, "layers": descriptors}
    named = {**put(json.dumps(manifest).encode(), kind + "manifest.v1+json"), "annotations": {"org.opencontainers.image.ref.name": "test"}}
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))


def shown_by(tool: str, layers: Sequence[bytes], directory: Path, script: str) -> str:
    """What a shell script says in the root file system that `tool` makes of the layers."""
    layout = directory / f"{tool}-layout"
    write_layout(layout, layers)
    if tool == "umoci":
        subprocess.run(["umoci", "unpack", "--image", f"{layout}:test", str(directory / "bundle")], check=True, capture_output=True)
        return _run(["sh", "-c", script], directory / "bundle" / "rootfs")
    with tempfile.TemporaryDirectory(prefix="lw-") as short:  # podman takes no directory of more than 50 characters
        return _shown_by_podman(layout, Path(short), script)


def _shown_by_podman(layout: Path, directory: Path, script: str) -> str:
    podman = ["podman", "--root", str(directory / "root"), "--runroot", str(directory / "run"), "--storage-driver", "overlay"]
    image = _run([*podman, "pull", "-q", f"oci:{layout}:test"], directory).strip()
    try:
        mounted = _run([*podman, "image", "mount", image], directory).strip()
        return _run(["sh", "-c", script], Path(mounted))
    finally:
        subprocess.run([*podman, "image", "umount", "-f", image], check=True, capture_output=True)
        subprocess.run([*podman, "rmi", "-f", image], check=True, capture_output=True)
        subprocess.run(["umount", str(directory / "root" / "overlay")], check=False, capture_output=True)


def _run(argv: Sequence[str], directory: Path) -> str:
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
