"""A raw commit object, as a value. Source: git's Documentation, "The commit object"; git-commit-tree(1), "COMMIT INFORMATION"."""

from __future__ import annotations

import re

from layerwright.git.values import Commit, CommitId, TreeId

_TREE = re.compile(rb"tree ([0-9a-f]{40,64})\n")
_COMMITTER = re.compile(rb"^committer .*> (\d+) ([+-])(\d{2,})(\d\d)$", re.MULTILINE)
_LATEST_S = (1 << 33) - 1  # what a tar header's time field holds


def parse_commit(oid: str, content: bytes) -> Commit:
    """A commit whose committer line is damaged, as some importers write it, has time 0."""
    headers = content.partition(b"\n\n")[0]
    tree = _TREE.match(headers)
    assert tree is not None, f"{oid} is not a commit"
    committer = _COMMITTER.search(headers)
    if committer is None:
        return Commit(id=CommitId(oid), tree=TreeId(tree[1].decode()), time_s=0)
    zone = int(committer[3]) * 60 + int(committer[4])
    return Commit(
        id=CommitId(oid),
        tree=TreeId(tree[1].decode()),
        time_s=min(int(committer[1]), _LATEST_S),
        zone_minutes=-zone if committer[2] == b"-" else zone,
    )
