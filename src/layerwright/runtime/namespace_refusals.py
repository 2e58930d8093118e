"""What stands between a user and a user namespace, told by what the kernel shows of itself; and which ids a user's range does not hold.

Each error names the setting, the file or the package, and what mends it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass

from layerwright.errors import MachineLacks
from layerwright.runtime.flavours import Flavour, find_helpers, map_text, read_text, user_name
from layerwright.runtime.subids import SUBGID, SUBUID, line_for

_WITHOUT = "builds without commands need no user namespace"
_SECCOMP = (
    "in a container, start it with `podman run` (its default filter allows them), `docker run --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined`, or in Kubernetes with `seccompProfile: {type: Unconfined}`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFacts:
    """What bears upon user namespaces; None where the kernel has no such setting."""

    max_user_namespaces: int | None = None
    unprivileged_userns_clone: int | None = None
    apparmor_restricts: int | None = None
    seccomp: bool = False
    no_new_privileges: bool = False


def kernel_facts() -> KernelFacts:
    status = dict(line.split(":", 1) for line in read_text("/proc/self/status").splitlines() if ":" in line)
    return KernelFacts(
        max_user_namespaces=_number("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone=_number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts=_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        seccomp=status.get("Seccomp", "0").strip() == "2",
        no_new_privileges=status.get("NoNewPrivs", "0").strip() == "1",
    )


def refused(error: OSError, flavour: Flavour) -> MachineLacks:
    """The error where the kernel made no user namespace, let nobody map its ids, or gave no rights in it."""
    return explain_refusal(error, kernel_facts(), is_root=flavour.way == "own")


def explain_refusal(error: OSError, facts: KernelFacts, *, is_root: bool) -> MachineLacks:
    """Pure. The first of the known reasons that holds; the kernel says no more than EPERM."""
    what, mend = _reason(error, facts)
    if is_root:
        mend += "; root in a container may instead get CAP_SYS_ADMIN: `--cap-add SYS_ADMIN`, or `--privileged`"
    return MachineLacks(f"no user namespace can be made here, and commands of a stage need one: {what}", mend=f"{mend}; {_WITHOUT}")


def _reason(error: OSError, facts: KernelFacts) -> tuple[str, str]:
    if facts.max_user_namespaces == 0:
        return "user.max_user_namespaces is 0", "as root: `sysctl -w user.max_user_namespaces=28633` (to keep it: a file in /etc/sysctl.d)"
    if error.errno == errno.ENOSPC:
        return (
            f"the limit user.max_user_namespaces ({facts.max_user_namespaces}) is reached",
            "as root: `sysctl -w user.max_user_namespaces=` and a larger number",
        )
    if facts.unprivileged_userns_clone == 0:
        return "kernel.unprivileged_userns_clone is 0", "as root: `sysctl -w kernel.unprivileged_userns_clone=1` (to keep it: a file in /etc/sysctl.d)"
    if facts.apparmor_restricts:
        return (
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give the Python interpreter an AppArmor profile with `userns,`",
        )
    if error.errno in (errno.ENOSYS, errno.EINVAL):
        return f"the kernel has none ({error.strerror})", "use a kernel with CONFIG_USER_NS"
    if facts.seccomp:
        return "a seccomp filter refuses unshare(2) or mount(2)", _SECCOMP
    return f"the kernel says: {error.strerror}", f"look for a security module that forbids it (`dmesg | tail`); {_SECCOMP}"


def helper_failed(flavour: Flavour, said: str) -> MachineLacks:
    """The error where the maps could not be written."""
    if flavour.way != "helpers":
        return MachineLacks(
            f"root may not map its own ids into a user namespace: {said or 'no answer'}",
            mend="start the container with the capabilities SETUID, SETGID and SETFCAP (podman and docker give them by default), or with `--cap-add SYS_ADMIN`",
        )
    if kernel_facts().no_new_privileges:
        mend = "this process has `no_new_privs`, with which newuidmap gets no rights: start it without "
        mend += "(docker and podman: no `--security-opt no-new-privileges`; Kubernetes: `allowPrivilegeEscalation: true`)"
    else:
        mend = f"look at the lines of this user in {SUBUID} and {SUBGID}, and that /usr is not mounted nosuid; "
        mend += "`apt-get install --reinstall uidmap` sets the programs' rights anew"
    return MachineLacks(f"newuidmap or newgidmap failed: {said or 'no answer'}", mend=mend)


def masked_proc(error: OSError) -> MachineLacks:
    """The error where a container's own /proc is refused: the kernel lets nobody see more of /proc than he sees already."""
    return MachineLacks(
        f"a container's /proc cannot be mounted here ({error.strerror}): this container hides parts of its own /proc, and the kernel allows no other view of it",
        mend="start it with `podman run --security-opt unmask=ALL`, `docker run --security-opt systempaths=unconfined`, "
        f"or in Kubernetes with `procMount: Unmasked`; {_WITHOUT}",
    )


class IdOutside(MachineLacks):
    """A file of an image, or a user, has an id that the user who builds was not lent."""


def outside(flavour: Flavour, kind: str, number: int, *, where: str) -> IdOutside:
    """The error for a uid or gid that files cannot belong to here."""
    ids = flavour.uids if kind == "uid" else flavour.gids
    return IdOutside(
        f"{kind} {number} is not among the ids that this user's files can have ({_shown(flavour, kind)})",
        where=where,
        mend=_mend(flavour, ids[-1].inside + ids[-1].length, number),
    )


def more_ids_hint(flavour: Flavour) -> str:
    """What to do for more than one id."""
    return _mend(flavour, 1, 65_536)


def _shown(flavour: Flavour, kind: str) -> str:
    ids = flavour.uids if kind == "uid" else flavour.gids
    return ", ".join(f"{one.inside}-{one.inside + one.length - 1}" if one.length > 1 else str(one.inside) for one in ids)


def _mend(flavour: Flavour, held: int, number: int) -> str:
    if flavour.way in ("own", "inside"):
        return f"run layerwright where more ids are mapped: this namespace has the map {map_text(flavour.uids, ', ')}"
    steps = []
    if flavour.lacking in ("range", "") or flavour.way == "helpers":
        line = line_for(user_name(os.getuid()), more_ids=number + 1 - held, files=(read_text(SUBUID), read_text(SUBGID)))
        if line is None:
            return f"no range in {SUBUID} can hold so high an id: let the image have lower ones"
        steps.append(f"add the line `{line}` to {SUBUID} and to {SUBGID}, as root: `echo {line} | tee -a {SUBUID} {SUBGID}`")
    if flavour.lacking in ("newuidmap", "range") and not find_helpers(os.environ.get("PATH", "")):
        steps.append("install newuidmap: `apt-get install uidmap` (Fedora: shadow-utils)")
    if flavour.lacking == "setuid":
        steps.append("newuidmap and newgidmap have no rights: `chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap` as root")
    return "; ".join(steps)


def _number(path: str) -> int | None:
    with suppress(ValueError):
        return int(read_text(path))
    return None
