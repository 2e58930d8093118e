"""Which OCI runtimes are there, and which of them to try first. Whether one works is only known by using it (`runtime.runner`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from layerwright.errors import MachineLacks, UsageError

KNOWN = ("crun", "runc")  # crun first: a start costs half
_ALSO_IN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # where Debian keeps runc; often not in the PATH of a user
_INSTALL = "`apt-get install runc` or `dnf install crun`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A program that follows runc's command line. `key` names it in a memo: another file, or another start of the machine, is another key."""

    path: str
    kind: Literal["crun", "runc", "other"]
    key: str

    @property
    def global_options(self) -> tuple[str, ...]:
        """What keeps it off the cgroups, which are read-only for it (`runtime.namespaces`)."""
        match self.kind:
            case "crun":
                return ("--cgroup-manager=disabled",)
            case "runc":
                return ("--rootless=true",)  # of the cgroups only: "not being allowed to is no error"
            case "other":
                return ()

    @property
    def hands_over(self) -> bool:
        """Whether it can leave the container's process to us: less memory, an exact order of output, one process less to wait for."""
        return self.kind != "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A runtime that could not start a container, and what it said."""

    runtime: Runtime
    said: str


def find_runtimes(preferred: str | None, *, path: str, works: Callable[[str], bool] = lambda key: False) -> tuple[Runtime, ...]:
    """The runtimes to try, in order: the one asked for (a name or a path) and no other, or those known, first one that `works` remembers by its key.

    `path` is the PATH to look in. Raises UsageError if the one asked for is not there, MachineLacks if there is none.
    """
    search = os.pathsep.join([path, *_ALSO_IN])
    if preferred:
        if (found := shutil.which(preferred, path=search)) is None:
            raise UsageError(
                f"the runtime {preferred!r} is not there or cannot be executed", where="--runtime", mend=f"give its path, or install it: {_INSTALL}"
            )
        return (_runtime(found),)
    runtimes = [_runtime(found) for name in KNOWN if (found := shutil.which(name, path=search))]
    if not runtimes:
        raise MachineLacks("no OCI runtime is installed, and commands of a stage need one", mend=f"install one: {_INSTALL}, or name another with --runtime")
    return tuple(sorted(runtimes, key=lambda runtime: not works(runtime.key)))


def none_works(refusals: Sequence[Refusal]) -> MachineLacks:
    """The error when every runtime refused, with what each said."""
    said = "".join(f"\n  {refusal.runtime.path}: {refusal.said}" for refusal in refusals)
    return MachineLacks(
        f"no OCI runtime here can start a container:{said}", mend=f"mend what it says, install another ({_INSTALL}), or name another with --runtime"
    )


def _runtime(path: str) -> Runtime:
    name = os.path.basename(os.path.realpath(path))
    kind: Literal["crun", "runc", "other"] = "crun" if name.startswith("crun") else "runc" if name.startswith("runc") else "other"
    return Runtime(path=os.path.abspath(path), kind=kind, key=f"runtime:{path}:{os.stat(path).st_mtime_ns}:{_boot_id()}")


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
        return source.read().strip()
