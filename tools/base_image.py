#!/usr/bin/env python3
"""Makes base images out of what a Debian machine has, for the demo and the tests: no image from outside is needed.

    tools/base_image.py busybox DIRECTORY     a few hundred small files around busybox-static
    tools/base_image.py debian DIRECTORY      Debian's essential packages, by mmdebstrap; kept in the user's cache

DIRECTORY becomes an OCI image layout holding one image named "latest". Standard library only.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

TIME_S = 1_600_000_000  # of every file of the busybox image: equal inputs, equal bytes
DEBIAN_SUITE = "bookworm"
DEBIAN_RECIPE = "2"  # raise it when `make_debian_tar` changes: the cached image is named after it

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""
GROUP = b"""root:x:0:
daemon:x:1:
www-data:x:33:
nogroup:x:65534:
"""
DIRECTORIES = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/lib": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
    "var/www": 0o755,
}
MERGED = {"bin": "usr/bin", "lib": "usr/lib", "sbin": "usr/sbin"}  # as Debian lays them out today

# What a dpkg of a small image leaves out.
WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/lib/*/gconv/*")


def architecture() -> str:
    """This machine's, as OCI spells it."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def write_layout(directory: Path, layers: Sequence[bytes], settings: Mapping[str, object] | None = None) -> None:
    """Write an OCI image layout of uncompressed layer tars, oldest first; `settings` is the `config` object of the image (Cmd, Env, User...)."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    descriptors = [put(gzip.compress(layer, 1, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers]
    config = {
        "created": "2020-09-13T12:26:40Z",
        "architecture": architecture(),
        "os": "linux",
        "config": dict(settings or {}),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created": "2020-09-13T12:26:40Z", "created_by": "tools/base_image.py"} for _ in layers],
    }
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": put(as_json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    entry = put(as_json(manifest), manifest_type) | {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
    (directory / "index.json").write_bytes(as_json({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_bytes(as_json({"imageLayoutVersion": "1.0.0"}))


def as_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def make_busybox_tar() -> bytes:
    """The root file system of a small usr-merged system: busybox under all its names, root, www-data (33) and nobody, /tmp 1777."""
    program = shutil.which("busybox")
    if program is None:
        sys.exit("tools/base_image.py: no busybox here\n  apt-get install busybox-static")
    names = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, mode in DIRECTORIES.items():
            add_entry(tar, path, mode, kind=tarfile.DIRTYPE, owner=33 if path == "var/www" else 0)
        for path, target in MERGED.items():
            add_entry(tar, path, 0o777, kind=tarfile.SYMTYPE, target=target)
        add_entry(tar, "etc/passwd", 0o644, content=PASSWD)
        add_entry(tar, "etc/group", 0o644, content=GROUP)
        add_entry(tar, "usr/bin/busybox", 0o755, content=Path(program).read_bytes())
        for name in sorted(set(names) - {"busybox"}):
            add_entry(tar, f"usr/bin/{name}", 0o777, kind=tarfile.SYMTYPE, target="busybox")
    return out.getvalue()


def add_entry(tar: tarfile.TarFile, path: str, mode: int, *, kind: bytes = tarfile.REGTYPE, owner: int = 0, target: str = "", content: bytes = b"") -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.linkname, entry.mtime, entry.size = kind, mode, target, TIME_S, len(content)
    entry.uid = entry.gid = owner
    tar.addfile(entry, io.BytesIO(content))


def make_debian_tar() -> bytes:
    """Debian's essential packages without documentation and translations. Needs root (or a subuid range) and Debian's package servers."""
    if shutil.which("mmdebstrap") is None:
        sys.exit("tools/base_image.py: no mmdebstrap here\n  apt-get install mmdebstrap")
    command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=essential", '--aptopt=Acquire::Languages "none"']
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in WITHOUT]
    command += ['--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old "$1"/var/log/*', DEBIAN_SUITE, "-"]
    if mirror := os.environ.get("DEBIAN_MIRROR"):  # for machines that reach Debian's packages only under another name
        command.append(mirror)
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(TIME_S), "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env).stdout


def cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "layerwright-bases"


def debian_layout() -> Path:
    """The layout of the Debian base in the user's cache, made there by the first caller; others, of any process, wait for it."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    layout = cache / f"debian-{DEBIAN_SUITE}-{architecture()}-{DEBIAN_RECIPE}"
    with (cache / f"{layout.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layout.exists():
            unfinished = cache / f"{layout.name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            write_layout(unfinished, [make_debian_tar()], {"Cmd": ["bash"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]})
            unfinished.rename(layout)
    return layout


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["busybox", directory]:
            write_layout(Path(directory), [make_busybox_tar()], {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]})
        case ["debian", directory]:
            shutil.copytree(debian_layout(), directory, dirs_exist_ok=True)
        case ["debian"]:
            print(debian_layout())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
