"""A real Docker daemon of the test's own: its socket, its store, no network. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.support.machine import find_program, search_path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class DockerDaemon:
    """One daemon, below a directory with a short name as sockets demand. A context manager."""

    def __enter__(self) -> DockerDaemon:
        self._directory = Path(tempfile.mkdtemp(prefix="lwd-", dir="/tmp"))
        options = ("--bridge=none", "--iptables=false", "--ip-masq=false", f"--data-root={self._directory}/data", f"--exec-root={self._directory}/exec")
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                (find_program("dockerd"), *options, f"--pidfile={self._directory}/pid", f"--host={self.host}"),
                env={"PATH": search_path(), "HOME": str(self._directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._await()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    @property
    def host(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self._directory}/sock"

    def __call__(self, *arguments: str) -> str:
        """What `docker` printed; fails the test when it fails."""
        done = self._run(*arguments)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def images(self) -> set[str]:
        return set(self("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split())

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": search_path(), "HOME": str(self._directory), "DOCKER_HOST": self.host}
        return subprocess.run((find_program("docker"), *arguments), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def _await(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._run("version").returncode != 0:
            said = (self._directory / "log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, f"dockerd ended: {said}"
            assert time.monotonic() < deadline, f"dockerd does not answer: {said}"
            time.sleep(0.05)

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if (place := line.split()[4]).startswith(f"{self._directory}{os.sep}"):
                subprocess.run((find_program("umount"), "--lazy", place), check=False, capture_output=True)
        shutil.rmtree(self._directory, ignore_errors=True)
