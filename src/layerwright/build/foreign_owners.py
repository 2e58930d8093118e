"""Refuses, before anything is unpacked or started, what needs ids that this user has not."""

from __future__ import annotations

from collections.abc import Iterable

from layerwright.layers.entry import HARDLINK, OPAQUE, WHITEOUT
from layerwright.layers.index import FileIndex
from layerwright.layers.shown import shown
from layerwright.runtime.flavours import Flavour, holds
from layerwright.runtime.namespace_refusals import more_ids_hint, outside


def refuse_foreign_owners(index: FileIndex, flavour: Flavour) -> None:
    """Raises MachineLacks, naming the id, the file, and the line that would give the user the id, if a file of the layer needs one he has not."""
    if not flavour.user_namespace:
        return
    known: set[tuple[int, int]] = set()
    for entry in index.listed:
        owners = (entry.uid, entry.gid)
        if owners in known or entry.kind in (WHITEOUT, OPAQUE, HARDLINK):
            continue
        _refuse(flavour, entry.uid, (entry.gid,), f"{shown(entry.path)} in layer {index.diff_id[:19]}…")
        known.add(owners)


def refuse_foreign_user(uid: int, groups: Iterable[int], flavour: Flavour) -> None:
    """Raises MachineLacks if a container cannot run as this user."""
    if flavour.user_namespace:
        _refuse(flavour, uid, groups, "the user of the container")


def notice_for_failed(flavour: Flavour) -> str:
    """What to tell when commands failed that perhaps needed more than one id; "" if that cannot be why."""
    if flavour.way != "single":
        return ""
    return (
        f"these commands had one id only: they could give files no other owner and become no other user. If that is why they failed: {more_ids_hint(flavour)}"
    )


def _refuse(flavour: Flavour, uid: int, groups: Iterable[int], where: str) -> None:
    if not holds(flavour.uids, uid):
        raise outside(flavour, "uid", uid, where=where)
    for gid in groups:
        if not holds(flavour.gids, gid):
            raise outside(flavour, "gid", gid, where=where)
