"""What this machine has of what some tests need."""

from __future__ import annotations

import os
import shutil
import socket


def lacks_root() -> str:
    """Why a test that needs root cannot run here; "" if it can."""
    return "" if os.geteuid() == 0 else "needs root: run the tests with sudo, as `make test` does"


def lacks_runtime() -> str:
    """Why a test that starts containers cannot run here; "" if it can. A runtime that is there but fails is a failure, not a reason to skip."""
    if lacking := lacks_root():
        return lacking
    return "" if any(shutil.which(name, path=search_path()) for name in ("crun", "runc")) else "needs an OCI runtime: apt-get install runc"


def search_path() -> str:
    """PATH with the directories of root's programs, where Debian keeps runc."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def find_program(name: str) -> str:
    """The path of a program the tests cannot do without."""
    found = shutil.which(name, path=search_path())
    assert found, f"{name} is missing: tools/setup.sh test"
    return found


def unused_port() -> int:
    """A port of 127.0.0.1 where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
