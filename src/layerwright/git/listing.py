"""The files of a commit, submodules looked into."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from layerwright.git.resolve import locate
from layerwright.git.source import Source
from layerwright.git.submodules import Submodules
from layerwright.git.trees import DIRECTORY, list_files
from layerwright.git.values import GITLINK, BlobId, TreeEntry


def list_below(submodules: Submodules, source: Source, commit: str, scope: bytes, skip: Callable[[bytes], bool] | None) -> tuple[TreeEntry, ...]:
    """Sorted by path; see Repo.list_tree."""
    scope = scope.strip(b"/")
    place = locate(submodules, source, source.root(commit), scope, follow=False)
    if place is None:
        return ()
    if place.mode != DIRECTORY:
        return (TreeEntry(place.path, place.mode, BlobId(place.oid), place.source.path),)
    return tuple(_files(submodules, place.source, place.root, place.oid, place.path, skip))


def whole(submodules: Submodules, source: Source, commit: str, skip: Callable[[bytes], bool] | None) -> list[TreeEntry]:
    """Every file of a commit of `source`."""
    root = source.root(commit)
    return _files(submodules, source, root, root, source.path, skip)


def _files(submodules: Submodules, source: Source, root: str, tree: str, below: bytes, skip: Callable[[bytes], bool] | None) -> list[TreeEntry]:
    listed = list_files(source.git, tree, below=below, repository=source.path, where=source.objects.where)
    links = [entry for entry in listed if entry.mode == GITLINK]
    if not links:
        return listed
    return sorted([entry for entry in listed if entry.mode != GITLINK] + inside(submodules, source, root, links, skip))


def inside(submodules: Submodules, source: Source, root: str, links: Iterable[TreeEntry], skip: Callable[[bytes], bool] | None) -> list[TreeEntry]:
    """The files of submodules that the tree `root` of `source` records."""
    found: list[TreeEntry] = []
    for link in links:
        if skip is None or not skip(link.path):
            found += whole(submodules, submodules.source(source, root, relative(source, link.path), link.oid), link.oid, skip)
    return found


def relative(source: Source, path: bytes) -> bytes:
    return path[len(source.path) + 1 :] if source.path else path
