"""What other tools make of an exported image: skopeo, umoci, podman. They get an OCI layout; none of them runs anything."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.support.machine import find_program


class Seen(NamedTuple):
    """One path of a root file system; no times. `what`: a file's content, a symlink's target."""

    kind: str
    mode: int
    uid: int
    gid: int
    what: bytes = b""


def inspect(layout: Path) -> dict[str, Any]:
    """`skopeo inspect`: what a registry would be told."""
    found: dict[str, Any] = json.loads(_run("skopeo", "inspect", f"oci:{layout}"))
    return found


def inspect_config(layout: Path) -> dict[str, Any]:
    """`skopeo inspect --config`: the OCI configuration as Go tools read it."""
    found: dict[str, Any] = json.loads(_run("skopeo", "inspect", "--config", f"oci:{layout}"))
    return found


def unpacked_by_umoci(layout: Path, bundle: Path) -> Path:
    """The root file system that umoci makes, on disk; needs root."""
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    name = entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
    if not name:
        named = bundle.with_name(bundle.name + "-named")
        _run("skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}", f"oci:{named}:it")
        layout, name = named, "it"
    _run("umoci", "unpack", "--image", f"{layout}:{name}", str(bundle))
    return bundle / "rootfs"


def seen_on_disk(root: Path) -> dict[str, Seen]:
    """Everything below `root`."""
    found: dict[str, Seen] = {}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = _seen(path)
    return found


def _seen(path: str) -> Seen:
    status = os.lstat(path)
    mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    if stat.S_ISLNK(status.st_mode):
        return Seen("symlink", 0o777, *owner, os.fsencode(os.readlink(path)))
    if stat.S_ISDIR(status.st_mode):
        return Seen("directory", mode, *owner)
    if not stat.S_ISREG(status.st_mode):
        return Seen("other", mode, *owner)
    return Seen("file", mode, *owner, Path(path).read_bytes())


class Podman:
    """podman with a storage of its own, below a directory with a short name as it demands. A context manager; needs root."""

    def __enter__(self) -> Podman:
        self._directory = tempfile.mkdtemp(prefix="lwp-", dir="/tmp")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self("rm", "--all", "--force")
        self("rmi", "--all", "--force")
        overlay = os.path.join(self._directory, "r", "overlay")
        if os.path.ismount(overlay):
            _run("umount", overlay)
        shutil.rmtree(self._directory)

    def __call__(self, *arguments: str) -> str:
        where = ("--root", f"{self._directory}/r", "--runroot", f"{self._directory}/n", "--storage-driver", "overlay")
        return _run("podman", *where, *arguments).strip()

    @property
    def store(self) -> str:
        """Which store it is, as containers-transports(5) writes it."""
        return f"[overlay@{self._directory}/r+{self._directory}/n]"

    def pull(self, layout: Path) -> str:
        """The id of the image in an OCI layout."""
        return self("pull", "--quiet", f"oci:{layout}")

    def files(self, layout: Path) -> dict[str, Seen]:
        """The root file system of a container that is created, exported, and never started."""
        container = self("create", self.pull(layout), "never-run")
        exported = os.path.join(self._directory, "exported.tar")
        self("export", "--output", exported, container)
        self("rm", container)
        with tarfile.open(exported, encoding="utf-8", errors="surrogateescape") as tar:
            return _seen_in_tar(tar)


def _seen_in_tar(tar: tarfile.TarFile) -> dict[str, Seen]:
    found: dict[str, Seen] = {}
    for member in tar:
        path, mode, owner = member.name.strip("/"), stat.S_IMODE(member.mode), (member.uid, member.gid)
        if member.issym():
            found[path] = Seen("symlink", 0o777, *owner, os.fsencode(member.linkname))
        elif member.isdir():
            found[path] = Seen("directory", mode, *owner)
        elif member.islnk():
            found[path] = found[member.linkname.strip("/")]
        else:
            stream = tar.extractfile(member)
            found[path] = Seen("file", mode, *owner, stream.read() if stream else b"")
    return found


def _run(*argv: str) -> str:
    done = subprocess.run((find_program(argv[0]), *argv[1:]), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    assert "WARN" not in done.stderr, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout
