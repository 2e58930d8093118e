"""The system calls a build's container may not make, as a short list of what is refused.

Docker's long list of what is allowed is compiled again at every start (12 % of BuildKit's time for a trivial step), and most of what it refuses needs a
capability that our containers lack anyway. Refused here is what needs none and reaches beyond the container: the kernel's key rings, which no
namespace separates, and interfaces that are large, new and of no use to a build, among them user namespaces, in which a process has every capability again.
"""

from __future__ import annotations

from typing import Any

_EPERM, _ENOSYS = 1, 38
_CLONE_NEWUSER = 0x1000_0000

# Every architecture whose programs run on a kernel of the key: a filter that names only one kills the programs of the others.
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_REFUSED = (
    "add_key",
    "bpf",
    "keyctl",
    "perf_event_open",
    "request_key",
    "userfaultfd",
)
_NOT_THERE = ("io_uring_enter", "io_uring_register", "io_uring_setup")  # ENOSYS: programs then do without


def default_filter(machine: str) -> dict[str, Any] | None:
    """The `linux.seccomp` of config.json for this machine (uname -m); None where its architectures are not known here."""
    if (architectures := _ARCHITECTURES.get(machine)) is None:
        return None
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": list(architectures),
        "syscalls": [
            {"names": list(_REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
            {"names": list(_NOT_THERE), "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},  # its flags are in memory, which a filter cannot read; libc then uses clone
            *({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM, "args": [_flag_is_set]} for name in ("clone", "unshare")),
        ],
    }


_flag_is_set = {"index": 0, "value": _CLONE_NEWUSER, "valueTwo": _CLONE_NEWUSER, "op": "SCMP_CMP_MASKED_EQ"}
