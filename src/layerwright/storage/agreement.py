"""How builders that publish one name at the same time agree on one of them, in a registry that lets any of them move any tag.

A registry has no compare-and-swap: a tag holds what was written last. So each builder writes twice, with a breath between (Fischer's algorithm):

1. It looks. If the name is there, that is it. If the name is *claimed* (the tag `record-X` names a record, which says whose manifest it stands beside)
   and not there, somebody is between his two writes, or died there: it waits a little for the name, and goes on if none comes.
2. It claims: the record tag names its own record.
3. It waits as long as a few of its own requests took: whoever looked before the claim was there has claimed by then, too.
4. It looks again. If the claim is still its own, all others will wait: it writes the name, the only one who does. Else it waits for the name.

Two can only write if one was held up between 1 and 2 and another between 4 and its write, each for longer than the other waits; or one for longer than
PATIENCE_S, so that it was taken for dead. Whoever is slow waits longer, and who was held up before its write looks once more, after all others.
So what a single look finds under a name stays there: the first published wins. See docs/decisions/0013.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from layerwright.oci.digest import BlobDigest

PATIENCE_S = 5.0  # for a builder between its claim and its name; and for others, after the name, in one that was held up there
_LEAST_WAIT_S = 0.01
_BREATHS = 4  # times the slowest of its requests is what a builder gives others to get through theirs
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.25


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


def agree(slots: Slots, mine: BlobDigest, pause: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> BlobDigest:
    """The manifest that has the name in the end: `mine`, or that of another. All that `mine` refers to is there; `pause` sleeps for so many seconds."""
    while True:
        began = clock()
        seen = slots.look()
        if seen.name is not None:
            return seen.name
        if seen.claim not in (None, mine):
            if (named := _awaited(slots, pause)) is not None:
                return named
            began = clock()
        looked = clock()
        slots.claim(mine)
        breath = min(max(_LEAST_WAIT_S, _BREATHS * max(looked - began, clock() - looked)), PATIENCE_S)
        pause(breath)
        if (decided := _second_look(slots, mine, pause, clock, breath)) is not None:
            return decided


def _second_look(slots: Slots, mine: BlobDigest, pause: Callable[[float], None], clock: Callable[[], float], breath: float) -> BlobDigest | None:
    """After the claim has stood for a while; None if whoever claimed later does not write the name either."""
    began = clock()
    seen = slots.look()
    if seen.name is not None:
        slots.claim(seen.name)  # the record tag is to keep the winner's record alive
        return seen.name
    if seen.claim != mine:
        return _awaited(slots, pause)
    slots.name(mine)
    if clock() - began <= breath:
        return mine
    pause(PATIENCE_S)  # held up: somebody may have taken this builder for dead meanwhile
    return slots.look().name or mine


def _awaited(slots: Slots, pause: Callable[[float], None]) -> BlobDigest | None:
    """The name once there is one; None if whoever claimed it does not write it."""
    waited, wait_s = 0.0, _FIRST_LOOK_S
    while waited < PATIENCE_S:
        pause(wait_s)
        waited += wait_s
        wait_s = min(wait_s * 1.5, _LONGEST_LOOK_S)
        if (named := slots.look().name) is not None:
            return named
    return None
