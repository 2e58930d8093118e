"""Runs a command line as a user who is nobody on this machine, and leaves the machine as it is.

The user exists in a mount namespace of the one command only: there /etc/passwd and its like are files made for the test, and what he has to read
(Python, the sources, the test's own directory) is there even where directories above it are closed to others. Also the program that does that: it
is started as root, enters the namespace, gives up root, and becomes the command.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

NAME, UID = "lwtester", 51_234
SUBIDS = (700_000_000, 65_536)
_ACCOUNTS = ("passwd", "group", "subuid", "subgid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unprivileged:
    """`place` holds his files of /etc, and his home. `ranges`: the first id and the number of ids he may map, or none.

    `without` are programs that he does not find: their files are hidden.
    """

    place: Path
    ranges: tuple[tuple[int, int], ...] = (SUBIDS,)
    without: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        return self.place / "home"

    def settle(self) -> Unprivileged:
        """Make his files and his home."""
        etc = self.place / "etc"
        etc.mkdir(parents=True)
        lines = "".join(f"{NAME}:{start}:{count}\n" for start, count in self.ranges)
        texts = {
            "passwd": f"root:x:0:0:root:/root:/bin/sh\n{NAME}:x:{UID}:{UID}::{self.home}:/bin/sh\n",
            "group": f"root:x:0:\n{NAME}:x:{UID}:\n",
            "subuid": lines,
            "subgid": lines,
        }
        for name in _ACCOUNTS:
            (etc / name).write_text(texts[name])
        self.own(self.home)
        return self

    def own(self, *directories: Path) -> None:
        """Make directories that are his."""
        for one in directories:
            one.mkdir(parents=True, exist_ok=True)
            os.chown(one, UID, UID)

    def prefix(self, readable: Iterable[Path]) -> tuple[str, ...]:
        """What to put before a command so that he runs it; `readable` are directories that he needs, besides Python and the sources."""
        sources = Path(__file__).parents[2]
        needed = [sources, Path(sys.prefix), Path(sys.base_prefix), *(Path(one) for one in sys.path if "-packages" in one), self.place, *readable]
        plan = {"etc": str(self.place / "etc"), "closed": _closed(needed), "without": self.without}
        return (sys.executable, "-B", __file__, json.dumps(plan))  # it leaves no compiled modules of root


def _closed(needed: Iterable[Path]) -> dict[str, list[str]]:
    """Which of the directories lie below one that others may not enter: the topmost such, and what is needed of it."""
    found: dict[str, list[str]] = {}
    for one in sorted({path for given in needed if given.exists() for path in (Path(os.path.abspath(given)), given.resolve())}):
        above = [str(parent) for parent in [*reversed(one.parents), one] if not parent.stat().st_mode & stat.S_IXOTH and parent.is_dir()]
        if above:
            # What is closed itself is shown by what is in it.
            found.setdefault(above[0], []).extend([str(one)] if above[-1] != str(one) else sorted(str(inner) for inner in one.iterdir()))
    return found


# The program.


def _enter(plan: dict[str, object], argv: Sequence[str]) -> None:
    from layerwright.runtime import syscalls

    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    etc, closed, without = plan["etc"], plan["closed"], plan["without"]
    assert isinstance(etc, str)
    assert isinstance(closed, dict)
    assert isinstance(without, list)
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY)
    here = os.getcwd()
    for name in _ACCOUNTS:
        syscalls.mount(os.path.join(etc, name), f"/etc/{name}", flags=syscalls.MS_BIND)
    for name in without:
        for place in ("/usr/bin", "/bin", "/usr/local/bin"):
            if os.path.exists(f"{place}/{name}"):
                syscalls.mount("/dev/null", f"{place}/{name}", flags=syscalls.MS_BIND)
    for top, paths in closed.items():
        _open_up(top, paths)
    try:
        os.chdir(here)
    except FileNotFoundError:
        os.fchdir(directory)
    os.close(directory)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.execvp(argv[0], list(argv))


def _open_up(top: str, paths: Sequence[str]) -> None:
    """Cover `top` with an empty directory that anybody may enter, and show `paths` in it, each where it was."""
    from layerwright.runtime import syscalls

    handles = [(path, os.open(path, os.O_PATH | os.O_NOFOLLOW)) for path in paths if not os.path.islink(path)]
    links = [(path, os.readlink(path)) for path in paths if os.path.islink(path)]
    syscalls.mount("tmpfs", top, "tmpfs", options="mode=755")
    for path, handle in handles:
        if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(handle)):
            continue  # shown with one above it
        os.makedirs(path if os.path.isdir(f"/proc/self/fd/{handle}") else os.path.dirname(path), exist_ok=True)
        if not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC))
        syscalls.mount(f"/proc/self/fd/{handle}", path, flags=syscalls.MS_BIND | syscalls.MS_REC)
        os.close(handle)
    for path, target in links:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.lexists(path):
            os.symlink(target, path)


if __name__ == "__main__":
    _enter(json.loads(sys.argv[1]), sys.argv[2:])
