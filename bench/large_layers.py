"""Peak memory and time of building on, pulling and exporting one large layer, by the command line against a registry on loopback.

    python -m bench.large_layers [--mib 2048]

Prints a table for each step: seconds, the peak of all processes together (PSS, sampled 20 times a second) and of the largest one. Needs root or
a range in /etc/subuid, docker-registry, an OCI runtime, and about five times the size of the layer on the disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.base_images import push_busybox
from tests.support.registry_server import RegistryServer

EVERY_S = 0.05
SOURCE = Path(__file__).resolve().parents[1] / "src"


class Cost(NamedTuple):
    seconds: float
    all_kib: int
    largest_kib: int


class Peak:
    """Watches every process whose environment has `home`: the command, its worker and their tools."""

    def __init__(self, home: Path) -> None:
        self._mark = b"HOME=" + os.fsencode(home) + b"\0"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.all_kib = self.largest_kib = 0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            sizes = [self._size_kib(name) for name in os.listdir("/proc") if name.isdigit()]
            self.all_kib = max(self.all_kib, sum(sizes))
            self.largest_kib = max(self.largest_kib, *sizes)

    def _size_kib(self, pid: str) -> int:
        try:
            if self._mark not in Path(f"/proc/{pid}/environ").read_bytes():
                return 0
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def measured(arguments: Sequence[str], project: Path, home: Path, store: Path) -> Cost:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LAYERWRIGHT_HOME": str(store), "PYTHONPATH": str(SOURCE)}
    started = time.monotonic()
    with Peak(home) as peak:
        subprocess.run((sys.executable, "-m", "layerwright", *arguments), cwd=project, env=env, check=True, stdout=sys.stderr)
    return Cost(time.monotonic() - started, peak.all_kib, peak.largest_kib)


def make_project(directory: Path, images: str) -> Path:
    directory.mkdir()
    (directory / "werf.yaml").write_text(f"configVersion: 1\nproject: bench\n---\n{images}")
    git = ("git", "-C", str(directory), "-c", "user.name=bench", "-c", "user.email=bench@example.org")
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "bench")):
        subprocess.run((*git, *command), check=True)
    return directory


def run(size_mib: int, directory: Path) -> dict[str, Cost]:
    home = directory / "home"
    home.mkdir()
    with RegistryServer(directory / "registry") as registry:
        bases = push_busybox(registry, directory)
        shell = f"dd if=/dev/urandom of=/large bs=1048576 count={size_mib}"
        first = make_project(directory / "first", f"image: large\nfrom: {bases.busybox}\nshell: {{install: '{shell}'}}\n")
        large = registry.reference("large:1")
        second = make_project(directory / "second", f"image: app\nfrom: {large}\nshell: {{install: 'ls -l /large > /listed'}}\n")
        third = make_project(directory / "third", f"image: app\nfrom: {large}\ngit: [{{add: /, to: /app}}]\n")
        made, pulled, declared = (directory / f"store-{name}" for name in ("made", "pulled", "declared"))
        return {
            "build: a command writes it": measured(("build",), first, home, made),
            "export to a registry, gzip": measured(("export", "large", "--to", f"docker://{large}"), first, home, made),
            "build on it, empty store: pull, unpack, run": measured(("build",), second, home, pulled),
            "export to oci-archive": measured(("export", "app", "--to", f"oci-archive:{directory / 'app.tar'}"), second, home, pulled),
            "export to docker-archive": measured(("export", "app", "--to", f"docker-archive:{directory / 'app2.tar'}"), second, home, pulled),
            "sources on it, empty store: pull for the index": measured(("build",), third, home, declared),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=2048)
    size_mib = parser.parse_args().mib
    with tempfile.TemporaryDirectory(prefix="layerwright-bench-") as directory:
        costs = run(size_mib, Path(directory))
    print(f"| one layer of {size_mib} MiB | seconds | peak MiB, all processes | peak MiB, largest |\n| --- | ---: | ---: | ---: |")
    for step, cost in costs.items():
        print(f"| {step} | {cost.seconds:.1f} | {cost.all_kib / 1024:.0f} | {cost.largest_kib / 1024:.0f} |")


if __name__ == "__main__":
    main()
