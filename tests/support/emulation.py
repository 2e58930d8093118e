"""Programs of another architecture on this machine: an emulator, registered in binfmt_misc while a test needs it, and a busybox for it.

The emulator is of this machine's packages; the busybox comes from Debian's package servers, by an apt-get with directories of its own, and is kept in the
user's cache. While it is registered, every process of the machine can run programs of that architecture.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from layerwright.oci.platform import Platform
from tests.support.machine import lacks_root, search_path
from tools.base_image import DEBIAN_SUITE, DIRECTORIES, GROUP, MERGED, PASSWD, add_entry, architecture, cache_directory

BINFMT_MISC = Path("/proc/sys/fs/binfmt_misc")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# As in qemu's own scripts/qemu-binfmt-conf.sh.
_REGISTERED = {
    "aarch64": (
        r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
        r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
    ),
    "x86_64": (
        r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00",
        r"\xff\xff\xff\xff\xff\xfe\xfe\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
    ),
}
_FOREIGN = {"amd64": ("arm64", "aarch64"), "arm64": ("amd64", "x86_64")}  # this machine's architecture -> the other one, for OCI and for uname -m


class Lacking(Exception):
    """Why this machine cannot run programs of another architecture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    """Another platform whose programs run here; `machine` is what `uname -m` says there, `busybox` a static one for it."""

    platform: Platform
    machine: str
    emulator: str
    busybox: Path

    def base_tar(self) -> bytes:
        """The layer of a base image for the platform: the same small system as base/busybox."""
        names = subprocess.run((self.emulator, str(self.busybox), "--list"), check=True, capture_output=True, text=True).stdout.split()
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, mode in DIRECTORIES.items():
                add_entry(tar, path, mode, kind=tarfile.DIRTYPE, owner=33 if path == "var/www" else 0)
            for path, target in MERGED.items():
                add_entry(tar, path, 0o777, kind=tarfile.SYMTYPE, target=target)
            add_entry(tar, "etc/passwd", 0o644, content=PASSWD)
            add_entry(tar, "etc/group", 0o644, content=GROUP)
            add_entry(tar, "usr/bin/busybox", 0o755, content=self.busybox.read_bytes())
            for name in sorted(set(names) - {"busybox"}):
                add_entry(tar, f"usr/bin/{name}", 0o777, kind=tarfile.SYMTYPE, target="busybox")
        return out.getvalue()

    def machine_seen_by_a_program(self) -> str:
        """What busybox says of the machine where its own file is all there is."""
        with tempfile.TemporaryDirectory() as root:
            shutil.copy(self.busybox, root)
            command = ("chroot", root, f"/{self.busybox.name}", "uname", "-m")
            return subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": search_path()}).stdout.strip()


@contextmanager
def emulated() -> Iterator[Emulation]:
    """Programs of another architecture run, in containers too, until the block is left. Raises Lacking."""
    if lacking := lacks_root():
        raise Lacking(lacking)
    if (foreign := _FOREIGN.get(architecture())) is None:
        raise Lacking(f"no other architecture is chosen for {architecture()}")
    emulator = _emulator(foreign[1])
    emulation = Emulation(platform=Platform("linux", foreign[0]), machine=foreign[1], emulator=emulator, busybox=_busybox(foreign[0]))
    with _registered(foreign[1], emulator):
        yield emulation


def _emulator(machine: str) -> str:
    """Debian 12's static emulator, or the one of later releases, which is static under its plain name."""
    for name in (f"qemu-{machine}-static", f"qemu-{machine}"):
        if (found := shutil.which(name, path=search_path())) and b"/ld-linux" not in _start_of(found):
            return found
    raise Lacking(f"needs a static qemu-{machine}: apt-get install --no-install-recommends qemu-user-static")


def _start_of(program: str) -> bytes:
    with open(program, "rb") as source:
        return source.read(4096)


@contextmanager
def _registered(machine: str, emulator: str) -> Iterator[None]:
    """Mounted once more over what may be mounted there: the register is the same, and it stays until the last of us is gone."""
    name = f"layerwright-test-{os.getpid()}"
    magic, mask = _REGISTERED[machine]
    with ExitStack() as undo:
        _must(("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT_MISC)))
        undo.callback(_must, ("umount", str(BINFMT_MISC)))
        try:
            (BINFMT_MISC / "register").write_text(f":{name}:M::{magic}:{mask}:{emulator}:POF")
        except OSError as error:
            raise Lacking(f"cannot register {emulator} in binfmt_misc: {error}") from error
        undo.callback((BINFMT_MISC / name).write_text, "-1")
        yield


def _busybox(arch: str) -> Path:
    """Debian's static busybox for `arch`, in the user's cache; others, of any process, wait for the first who asks."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / f"busybox-{DEBIAN_SUITE}-{arch}"
    with (cache / f"{program.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                _download(arch, Path(work)).rename(program)
    return program


def _download(arch: str, work: Path) -> Path:
    """The machine's own apt knows nothing of `arch`, and is not told of it."""
    for name in ("state/lists/partial", "cache/archives/partial", "unpacked"):
        (work / name).mkdir(parents=True)
    (work / "status").write_bytes(b"")
    mirror = os.environ.get("DEBIAN_MIRROR") or "http://deb.debian.org/debian"
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {DEBIAN_SUITE} main\n")
    settings: Mapping[str, object] = {
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
    }
    apt_get = ("apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items()))
    _must((*apt_get, "update"), cwd=work)
    _must((*apt_get, "download", "busybox-static"), cwd=work)
    package = next(work.glob("busybox-static_*.deb"))
    _must(("dpkg-deb", "-x", str(package), str(work / "unpacked")))
    return next(path for path in (work / "unpacked").glob("**/bin/busybox"))


def _must(command: Sequence[str], *, cwd: Path | None = None) -> None:
    env = {**os.environ, "PATH": search_path(), "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=env)
    except FileNotFoundError as error:
        raise Lacking(f"needs {command[0]}") from error
    if done.returncode != 0:
        raise Lacking(f"{command[0]} {command[-1]} failed: {done.stderr.strip()}")
