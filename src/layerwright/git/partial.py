"""Partial clones. git fetches a missing object when it is read, with a request for each; here all that will be read comes with one.

Only a saving: what is not fetched here, git fetches later or says why it cannot. Source: git's partial-clone.txt; the call is the one git makes itself
(promisor-remote.c, fetch_objects).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from layerwright.git.program import Git
from layerwright.git.standin import stand_in
from layerwright.host.run import CommandFailed


def is_partial(objects_directory: str) -> bool:
    """Packs that came from a remote which promised the rest have a file of their own beside them."""
    try:
        return any(name.endswith(".promisor") for name in os.listdir(os.path.join(objects_directory, "pack")))
    except OSError:
        return False


def fetch_missing(git: Git, objects_directory: str, oids: Iterable[str]) -> int:
    """Fetch what is not here, and say how many objects that were."""
    asked = sorted(set(oids))
    if not asked:
        return 0
    with stand_in(objects_directory, sha256=len(asked[0]) == 64, env=git.env) as local:
        answers = local.run("cat-file", "--batch-check", "--buffer", stdin="".join([oid + "\n" for oid in asked]).encode())
    missing = [line[: -len(b" missing")] for line in answers.splitlines() if line.endswith(b" missing")]
    if missing:
        _fetch(git, missing)
    return len(missing)


def _fetch(git: Git, oids: list[bytes]) -> None:
    try:
        remote = _promisor(git)
        git.run(
            *("-c", "fetch.negotiationAlgorithm=noop", "-c", "maintenance.auto=false", "-c", "gc.auto=0", "fetch", remote),
            *("--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--stdin"),
            stdin=b"".join([oid + b"\n" for oid in oids]),
        )
    except CommandFailed:
        return  # reading the object tells it better: which one, and what git says


def _promisor(git: Git) -> str:
    """The name of the remote that promised the objects."""
    listed = git.run("config", "-z", "--get-regexp", r"^remote\..*\.promisor$")
    name = listed.partition(b"\n")[0]
    return os.fsdecode(name.removeprefix(b"remote.").removesuffix(b".promisor"))
