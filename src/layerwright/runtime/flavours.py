"""Who the worker is, and so what the owners in its trees mean: real root, or root of a user namespace with a map of ids.

Chosen from what the kernel and two files say, without starting anything: a build that finds everything built looks here too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Literal, NamedTuple

from layerwright.runtime.subids import SUBGID, SUBUID, Range, ranges_of

HELPERS = ("newuidmap", "newgidmap")
_ALSO_IN = ("/usr/bin", "/usr/local/bin", "/bin")
_CAP_SYS_ADMIN = 1 << 21
_IDS = 2**32 - 1

Way = Literal["root", "inside", "own", "helpers", "single"]
Lacking = Literal["", "range", "newuidmap", "setuid"]


class Extent(NamedTuple):
    """A line of uid_map: `length` ids from `inside` are those from `outside` in the parent namespace."""

    inside: int
    outside: int
    length: int


Map = tuple[Extent, ...]
_WHOLE: Map = (Extent(0, 0, _IDS),)


class Flavour(NamedTuple):
    """`name` is that of the trees; `uids` and `gids` are the ids that files can belong to.

    `way`: "root" needs no user namespace, "inside" is root of one already; the others make one: "own" maps every id there is (root in a container),
    "helpers" has newuidmap and newgidmap map a range, "single" maps nothing but the user. `lacking` says why it is single.
    """

    name: str
    way: Way
    uids: Map = _WHOLE
    gids: Map = _WHOLE
    lacking: Lacking = ""

    @property
    def user_namespace(self) -> bool:
        return self.way != "root"

    def encoded(self) -> str:
        """For a command line; `decoded` reads it."""
        return "|".join((self.name, self.way, map_text(self.uids, ","), map_text(self.gids, ","), self.lacking))


ROOT = Flavour(name="root", way="root")


def decoded(text: str) -> Flavour:
    name, way, uids, gids, lacking = text.split("|")
    return Flavour(name=name, way=way, uids=parse_map(uids, ","), gids=parse_map(gids, ","), lacking=lacking)  # type: ignore[arg-type]


def own_flavour(path: str) -> Flavour:
    """The flavour of this process. `path` is the PATH to look for newuidmap in."""
    within = parse_map(read_text("/proc/self/uid_map")) or _WHOLE
    if os.geteuid() != 0:
        return _of_user(path, within)
    if not _effective_capabilities() & _CAP_SYS_ADMIN:
        return _with_all_ids("own", within)
    return ROOT if within == _WHOLE else _with_all_ids("inside", within)


def map_text(ids: Map, between: str = "\n") -> str:
    return between.join(f"{one.inside} {one.outside} {one.length}" for one in ids)


def parse_map(text: str, between: str = "\n") -> Map:
    return tuple(Extent(*(int(number) for number in line.split())) for line in text.split(between) if line.strip())


def holds(ids: Map, number: int) -> bool:
    return any(one.inside <= number < one.inside + one.length for one in ids)


def mapped(own: int, ranges: Sequence[Range], within: Map) -> Map:
    """0 is `own`, and 1 upwards are the ids of `ranges`, one after the other: each once, without `own`, and only where `within` has them."""
    found = [Extent(0, own, 1)]
    following = 1
    for start, count in ranges:
        if not any(one.inside <= start and start + count <= one.inside + one.length for one in within):
            continue
        for first, end in (
            ((start, min(start + count, own)), (max(start, own + 1), start + count)) if start <= own < start + count else ((start, start + count),)
        ):
            if first < end and not any(first < one.outside + one.length and one.outside < end for one in found):
                found.append(Extent(following, first, end - first))
                following += end - first
    return tuple(found)


def through(ids: Map, outer: Map) -> Map:
    """`ids`, whose outside is the inside of `outer`, as a map to the outside of `outer`."""
    found = []
    for one in ids:
        for other in outer:
            first, end = max(one.outside, other.inside), min(one.outside + one.length, other.inside + other.length)
            if first < end:
                found.append(Extent(one.inside + first - one.outside, other.outside + first - other.inside, end - first))
    return tuple(found)


def find_helpers(path: str) -> tuple[str, ...]:
    """newuidmap and newgidmap, if both are there."""
    directories = [one for one in path.split(os.pathsep) if one] + list(_ALSO_IN)
    found = [next((place for one in directories if os.access(place := os.path.join(one, name), os.X_OK)), "") for name in HELPERS]
    return tuple(found) if all(found) else ()


def _of_user(path: str, within: Map) -> Flavour:
    uid, gid = os.geteuid(), os.getegid()
    name = user_name(uid)
    uids = mapped(uid, ranges_of(read_text(SUBUID), name=name, uid=uid), within)
    gids = mapped(gid, ranges_of(read_text(SUBGID), name=name, uid=uid), parse_map(read_text("/proc/self/gid_map")) or _WHOLE)
    lacking: Lacking = "range" if len(uids) == 1 or len(gids) == 1 else _lacking_helpers(path)
    if not lacking:
        return _flavour("helpers", uids, gids, within)
    return _flavour("single", uids[:1], gids[:1], within, lacking)


def _lacking_helpers(path: str) -> Lacking:
    helpers = find_helpers(path)
    if not helpers:
        return "newuidmap"
    return "" if all(_raises_rights(one) for one in helpers) else "setuid"


def _raises_rights(program: str) -> bool:
    """Whether it gets what it needs when a user starts it: Debian makes these programs setuid, Fedora gives them file capabilities."""
    try:
        return bool(os.stat(program).st_mode & stat.S_ISUID) or bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def _with_all_ids(way: Way, within: Map) -> Flavour:
    of_groups = parse_map(read_text("/proc/self/gid_map")) or _WHOLE
    uids, gids = (tuple(Extent(one.inside, one.inside, one.length) for one in _seen_as_namespace(ids)) for ids in (within, of_groups))
    return _flavour(way, uids, gids, within)


def _seen_as_namespace(ids: Map) -> Map:
    """Without the last id, where it is all of them: by that map programs, crun and runc among them, take themselves to be the machine's own root."""
    return (Extent(0, 0, _IDS - 1),) if ids == _WHOLE else ids


def _flavour(way: Way, uids: Map, gids: Map, within: Map, lacking: Lacking = "") -> Flavour:
    """Named by where the ids lead in the end: the same trees serve a user and, say, root in a namespace made with the same map."""
    outer_groups = parse_map(read_text("/proc/self/gid_map")) or _WHOLE
    identity = f"{map_text(through(uids, within))}\n\n{map_text(through(gids, outer_groups))}"
    return Flavour(name=f"user-{sha256(identity.encode()).hexdigest()[:16]}", way=way, uids=uids, gids=gids, lacking=lacking)


def user_name(uid: int) -> str:
    """The name of the user, or the number where nothing knows it."""
    from pwd import getpwuid

    with suppress(KeyError):
        return getpwuid(uid).pw_name
    return str(uid)


def _effective_capabilities() -> int:
    found = [line.split()[1] for line in read_text("/proc/self/status").splitlines() if line.startswith("CapEff:")]
    return int(found[0], 16) if found else -1


def read_text(path: str) -> str:
    """A file of /proc or /etc; "" where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read()
    except OSError:
        return ""
