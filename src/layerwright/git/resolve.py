"""Where a path of a commit leads: through directories, submodules and committed symlinks, never out of the work tree."""

from __future__ import annotations

from typing import NamedTuple

from layerwright.errors import UsageError
from layerwright.git.program import shown
from layerwright.git.source import Source
from layerwright.git.submodules import Submodules
from layerwright.git.trees import DIRECTORY
from layerwright.git.values import GITLINK, SYMLINK

MOST_LINKS = 1000


class Place(NamedTuple):
    """What stands at the end of a path. `path` is without symlinks; `root` is the tree of the commit of `source`; a submodule is a DIRECTORY."""

    path: bytes
    source: Source
    root: str
    mode: int
    oid: str


def locate(submodules: Submodules, source: Source, root: str, path: bytes, *, follow: bool) -> Place | None:
    """What `path` names from the tree `root`; None if nothing, or a symlink leads out or is absolute. Without `follow` no symlink is followed.

    Raises UsageError for more than 1000 symlinks, SubmoduleAbsent.
    """
    places = [Place(b"", source, root, DIRECTORY, root)]
    names = path.split(b"/")[::-1]
    links = 0
    while names:
        name = names.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            if len(places) == 1:
                return None
            places.pop()
            continue
        here = _child(submodules, places[-1], name)
        if here is None:
            return None
        if here.mode == DIRECTORY:
            places.append(here)
        elif here.mode == SYMLINK and follow:
            links += 1
            target = _target(here)
            if links > MOST_LINKS:
                raise UsageError("too many levels of symbolic links", where=shown(path), mend="commit links that lead to a file")
            if target.startswith(b"/"):
                return None
            names += target.split(b"/")[::-1]
        else:
            return None if names else here
    return places[-1]


def _child(submodules: Submodules, parent: Place, name: bytes) -> Place | None:
    node = parent.source.tree(parent.oid).get(name)
    if node is None:
        return None
    path = parent.path + b"/" + name if parent.path else name
    if node.mode != GITLINK:
        return Place(path, parent.source, parent.root, node.mode, node.oid)
    below = path[len(parent.source.path) + 1 :] if parent.source.path else path
    inside = submodules.source(parent.source, parent.root, below, node.oid)
    root = inside.root(node.oid)
    return Place(path, inside, root, DIRECTORY, root)


def _target(link: Place) -> bytes:
    answer = link.source.objects.read(link.oid)
    if answer is None:
        raise link.source.objects.missing(link.oid)
    return answer[1]
