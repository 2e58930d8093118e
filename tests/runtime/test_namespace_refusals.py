"""Every known reason has its own words and what mends it."""

from __future__ import annotations

import errno
import os

import pytest

from layerwright.runtime.flavours import Extent, Flavour
from layerwright.runtime.namespace_refusals import KernelFacts, explain_refusal, helper_failed, outside

EPERM = OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize(
    ("error", "facts", "what", "mend"),
    [
        (OSError(errno.ENOSPC, "x"), KernelFacts(max_user_namespaces=0), "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces="),
        (OSError(errno.ENOSPC, "x"), KernelFacts(max_user_namespaces=5), "the limit user.max_user_namespaces (5) is reached", "larger"),
        (EPERM, KernelFacts(unprivileged_userns_clone=0), "kernel.unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            EPERM,
            KernelFacts(apparmor_restricts=1, seccomp=True),
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (EPERM, KernelFacts(max_user_namespaces=9, apparmor_restricts=0, seccomp=True), "a seccomp filter", "--security-opt seccomp=unconfined"),
        (OSError(errno.EINVAL, "x"), KernelFacts(), "the kernel has none", "CONFIG_USER_NS"),
        (EPERM, KernelFacts(), "the kernel says: Operation not permitted", "dmesg"),
    ],
)
def test_the_reason_is_named_with_what_mends_it(error: OSError, facts: KernelFacts, what: str, mend: str) -> None:
    for is_root in (False, True):
        told = explain_refusal(error, facts, is_root=is_root)
        assert what in told.what
        assert mend in told.mend
        assert told.exit_code == 3
        assert ("--privileged" in told.mend) is is_root


def test_root_that_may_not_map_is_told_of_capabilities() -> None:
    assert "SETFCAP" in helper_failed(Flavour(name="user-1", way="own"), "uid_map: Operation not permitted").mend
    told = helper_failed(Flavour(name="user-1", way="helpers"), "newuidmap: write to uid_map failed")
    assert "newuidmap: write to uid_map failed" in told.what
    assert "/etc/subuid" in told.mend


def test_an_id_that_is_not_there_is_told_with_those_that_are() -> None:
    own = Flavour(name="user-1", way="own", uids=(Extent(0, 0, 65_537),))
    told = outside(own, "uid", 70_000, where="/x in layer y")
    assert told.what == "uid 70000 is not among the ids that this user's files can have (0-65536)"
    assert told.where == "/x in layer y"
    assert "0 0 65537" in told.mend
