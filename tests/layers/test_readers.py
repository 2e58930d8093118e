"""Layers that change a path's type, read back by the tools people use: what `compose` writes is what umoci and podman unpack."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwright.layers.compose import compose
from layerwright.layers.entry import DIRECTORY, FILE, SYMLINK, Entry, NewEntry
from layerwright.layers.index import FileIndex
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import TarWriter
from tests.layers.trees import directory, file, symlink

BEFORE = [
    *(
        entry
        for name in ("to-file", "to-link", "kept", "emptied", "gone", "again")
        for entry in (directory(name), file(f"{name}/old", "old"), directory(f"{name}/sub"))
    ),
    *(file(name, "old") for name in ("file-to-dir", "file-to-link", "file-to-implied")),
    *(symlink(name, "kept") for name in ("link-to-dir", "link-to-file", "link-to-link")),
]
AFTER = [
    file("to-file", "new"),
    symlink("to-link", "kept"),
    directory("kept"),
    file("kept/new", "new"),
    directory("emptied", 0o700),
    directory("file-to-dir"),
    file("file-to-dir/new", "new"),
    symlink("file-to-link", "kept"),
    file("file-to-implied/new", "new"),
    directory("link-to-dir"),
    file("link-to-dir/new", "new"),
    file("link-to-file", "new"),
    symlink("link-to-link", "again"),
    file("again/new", "new"),
]
REMOVED = [b"to-file", b"to-link", b"kept/old", b"emptied", b"gone", b"again", b"file-to-dir", b"file-to-link", b"file-to-implied", b"link-to-dir"]


def write(entries: list[NewEntry]) -> tuple[bytes, FileIndex]:
    out = io.BytesIO()
    writer = TarWriter(out)
    for new in entries:
        writer.add(new)
    summary = writer.close()
    return out.getvalue(), FileIndex(summary.diff_id, summary.entries)


TEXTS = {str(file("", text).digest): text for text in ("old", "new")}


def readable(entry: Entry) -> NewEntry:
    return NewEntry(entry, (lambda: io.BytesIO(TEXTS[entry.digest].encode())) if entry.kind == FILE else None)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StackedIndex]:
    """An OCI layout of three layers: the third is the first again, so every change is also made backwards."""
    folder = tmp_path_factory.mktemp("oci")
    (folder / "blobs" / "sha256").mkdir(parents=True)
    view = StackedIndex(())
    layers = []
    steps: list[tuple[list[Entry], list[bytes]]] = [(BEFORE, []), (AFTER, REMOVED), (BEFORE, [entry.path for entry in AFTER])]
    for number, (adds, removals) in enumerate(steps):
        content, index = write(compose(adds=map(readable, adds), removals=removals, below=view, time_s=1_600_000_000 + number))
        view = view.on_top(index)
        layers.append(content)
        put_image(folder, f"v{number + 1}", layers)
    return folder, view


def put_image(folder: Path, tag: str, layers: list[bytes]) -> None:
    def put(content: bytes) -> dict[str, object]:
        name = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / "sha256" / name).write_bytes(content)
        return {"digest": f"sha256:{name}", "size": len(content)}

    described = [put(layer) | {"mediaType": "application/vnd.oci.image.layer.v1.tar"} for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]}}
    config_at = put(json.dumps(config).encode()) | {"mediaType": "application/vnd.oci.image.config.v1+json"}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config_at, "layers": described}
    manifest_at = put(json.dumps(manifest).encode()) | {"mediaType": manifest["mediaType"], "annotations": {"org.opencontainers.image.ref.name": tag}}
    index_file = folder / "index.json"
    known = json.loads(index_file.read_text())["manifests"] if index_file.exists() else []
    index_file.write_text(json.dumps({"schemaVersion": 2, "manifests": [*known, manifest_at]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def seen(root: Path) -> dict[str, tuple[str, int, str]]:
    found = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            found[str(path.relative_to(root))] = (SYMLINK, 0o777, os.readlink(path))
        elif stat.S_ISDIR(state.st_mode):
            found[str(path.relative_to(root))] = (DIRECTORY, stat.S_IMODE(state.st_mode), "")
        else:
            found[str(path.relative_to(root))] = (FILE, stat.S_IMODE(state.st_mode), path.read_text())
    return found


def expected(view: StackedIndex) -> dict[str, tuple[str, int, str]]:
    entries = [entry for entry in view.walk() if entry.path]
    return {entry.path.decode(): (entry.kind, entry.mode, TEXTS[entry.digest] if entry.kind == FILE else entry.link.decode()) for entry in entries}


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def lacking(program: str) -> str:
    return "" if os.getuid() == 0 and shutil.which(program) else f"needs root and {program}"


@pytest.mark.needs_root
@pytest.mark.skipif(bool(lacking("umoci")), reason=lacking("umoci"))
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_umoci_unpacks_what_the_index_says(image: tuple[Path, StackedIndex], tmp_path: Path, layers: int) -> None:
    folder, view = image
    run("umoci", "raw", "unpack", "--image", f"{folder}:v{layers}", str(tmp_path / "root"))
    assert seen(tmp_path / "root") == expected(view.below(layers))


@pytest.fixture(params=["vfs", "overlay"])
def podman(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    folder = tempfile.mkdtemp(prefix="lw-")  # podman refuses a long path
    command = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", request.param]
    try:
        if subprocess.run([*command, "info"], capture_output=True, check=False, timeout=120).returncode:
            pytest.skip(f"podman cannot use {request.param} here")
        yield command
        run(*command, "image", "unmount", "--all", "--force")
    finally:
        for mount in (f"{folder}/root/{request.param}", f"{folder}/root"):  # podman binds it onto itself
            if os.path.ismount(mount):
                subprocess.run(["umount", mount], check=False, timeout=60)
        shutil.rmtree(folder)


@pytest.mark.needs_root
@pytest.mark.slow
@pytest.mark.skipif(bool(lacking("podman")), reason=lacking("podman"))
@pytest.mark.parametrize("layers", [2, 3])
def test_podman_shows_what_the_index_says(image: tuple[Path, StackedIndex], podman: list[str], layers: int) -> None:
    folder, view = image
    name = run(*podman, "pull", "--quiet", f"oci:{folder}:v{layers}")
    mounted = Path(run(*podman, "image", "mount", name))
    assert seen(mounted) == expected(view.below(layers))
