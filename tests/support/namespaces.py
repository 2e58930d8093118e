"""Two network namespaces with a cable between them: two machines, as far as the network goes. Root makes them, with ip (iproute2)."""

from __future__ import annotations

import os
import subprocess
from types import TracebackType

from tests.support.machine import find_program

HOSTS = ("10.213.25.1", "10.213.25.2")


class TwoMachines:
    """A context manager: in the block there are two namespaces, whose addresses are `HOSTS`. Nothing else of the machine's network is in them."""

    def __init__(self) -> None:
        self._names = tuple(f"lw-{os.getpid()}-{number}" for number in range(len(HOSTS)))

    def prefix(self, number: int) -> tuple[str, ...]:
        """What a command starts with to run in the first (0) or the second (1)."""
        return (find_program("nsenter"), f"--net=/run/netns/{self._names[number]}", "--")

    def __enter__(self) -> TwoMachines:
        try:
            for name in self._names:
                _ip("netns", "add", name)
            one, other = self._names
            _ip("link", "add", "cable", "netns", one, "type", "veth", "peer", "name", "cable", "netns", other)
            for name, host in zip(self._names, HOSTS, strict=True):
                _ip("-n", name, "address", "add", f"{host}/24", "dev", "cable")
                _ip("-n", name, "link", "set", "cable", "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._remove()

    def _remove(self) -> None:
        for name in self._names:
            subprocess.run((find_program("ip"), "netns", "delete", name), stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run((find_program("ip"), *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
