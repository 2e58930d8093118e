"""How builders that publish one name at the same time agree on one of them, in a registry that lets any of them move any tag.

A registry has no compare-and-swap: a tag holds what was written last. So each builder writes twice. First it *claims*: the tag `record-X` names its
record, which says which manifest it stands beside. Then, if nobody has named X by then and its claim is still the last, it *names*: the tag X.

- Who finds X named takes it. Who finds it claimed and not named waits a little: somebody is between the two writes, or died there.
- Whoever claims after X was named, and finds that out, gives way: its claim then points to what is named.
- Whoever names X and finds that a later claim stands waits until claim and name are of one manifest; if they do not become so, the claim counts.

Nobody waits unless two publish at the same moment. Two can only differ if one of them is held up between two requests for longer than another needs for
all of its own, and dies before it looks again; then the name still holds one whole image. The first published wins, and stays: see docs/decisions/0013.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from layerwright.oci.digest import BlobDigest

PATIENCE_S = 3.0  # for a builder between its claim and its name: two requests
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.25


class Seen(NamedTuple):
    """What the two tags hold: of the name the manifest, of the claim the manifest that it stands beside. None for nothing usable."""

    name: BlobDigest | None
    claim: BlobDigest | None


class Slots(Protocol):
    """The two tags of one name."""

    def look(self) -> Seen: ...

    def claim(self, manifest: BlobDigest) -> None:
        """Let the record tag stand beside `manifest`."""

    def name(self, manifest: BlobDigest) -> None:
        """Let the name be `manifest`."""


def agree(slots: Slots, mine: BlobDigest, pause: Callable[[float], None]) -> BlobDigest:
    """The manifest that has the name in the end: `mine`, or that of another. All that `mine` refers to is there; `pause` sleeps for so many seconds."""
    while True:
        seen = slots.look()
        if seen.name is not None:
            return seen.name
        if seen.claim not in (None, mine) and (named := _awaited(slots, pause)) is not None:
            return named
        slots.claim(mine)
        seen = slots.look()
        if seen.name is not None:
            slots.claim(seen.name)
            return seen.name
        if seen.claim == mine:
            slots.name(mine)
            return _settled(slots, mine, pause)
        if (named := _awaited(slots, pause)) is not None:
            return named


def _settled(slots: Slots, mine: BlobDigest, pause: Callable[[float], None]) -> BlobDigest:
    seen = slots.look()
    if seen.claim == mine:
        if seen.name != mine:  # somebody who had been held up wrote over it, and will find out
            slots.name(mine)
        return mine
    for wait_s in _waits():
        if seen.claim is None or seen.claim == seen.name:
            break
        pause(wait_s)
        seen = slots.look()
    if seen.claim is not None and seen.claim != seen.name:
        slots.name(seen.claim)
        return seen.claim
    return seen.name or mine


def _awaited(slots: Slots, pause: Callable[[float], None]) -> BlobDigest | None:
    """The name once there is one; None if whoever claimed it does not write it."""
    for wait_s in _waits():
        pause(wait_s)
        if (named := slots.look().name) is not None:
            return named
    return None


def _waits() -> Iterator[float]:
    waited, wait_s = 0.0, _FIRST_WAIT_S
    while waited < PATIENCE_S:
        yield wait_s
        waited += wait_s
        wait_s = min(wait_s * 1.5, _LONGEST_WAIT_S)
