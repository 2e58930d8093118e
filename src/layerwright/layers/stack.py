"""The file tree that a stack of layers makes, answered from their indexes without their bytes.

Rules (OCI image-spec 1.1 layer.md, "Applying Changesets"): an entry replaces what is below it, a directory over a directory merges and the
upper metadata counts; a whiteout or opaque mark hides what lower layers have, never what its own layer has; a directory that a layer only
implies keeps what is below, or is new with 0755 and root. Where a layer's paths lead through a lower symlink: `placing.py`.

Nothing is merged ahead: for each directory asked about, its history is kept (which layers have something in it, which hide what is below),
so a lookup costs a few dictionary reads for each layer that ever touched the directory, and memory grows with the directories asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from layerwright.errors import LayerwrightError
from layerwright.layers import accounts
from layerwright.layers.entry import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry
from layerwright.layers.index import FileIndex
from layerwright.layers.placing import placed
from layerwright.layers.shown import shown
from layerwright.limits import PATH_BYTES, SYMLINKS

WROTE, REMOVED, SHADOWED = "wrote", "removed", "shadowed"


class SymlinkLoop(LayerwrightError):
    """A path of the image leads through more than 40 symlinks, or to a path longer than Linux takes."""


class Change(NamedTuple):
    """What `layer` did to a path. `entry`: the one written, whose digest may be missing; the mark that removed; the non-directory that shadows.

    None for a directory that the layer only implies.
    """

    layer: int
    how: str
    entry: Entry | None


class Placed(NamedTuple):
    """What is visible at a path, and the number of the layer that wrote it."""

    layer: int
    entry: Entry


class _Level(NamedTuple):
    """What one layer does in one directory: `holds` something there; `hides` what is below, and by which entry."""

    layer: int
    holds: bool
    hides: str
    by: Entry | None


class StackedIndex:
    """The layers of an image as one tree. Paths are raw bytes relative to the root; a leading slash is allowed, b"" is the root.

    Lookups are literal: a path below a symlink does not exist, `resolve` it first. Every method may raise BadIndex where a layer's index
    has to load a part that is missing or damaged.
    """

    def __init__(self, layers: Sequence[FileIndex]) -> None:
        """Oldest first."""
        self.layers = tuple(layers)
        self._landed: list[FileIndex] = []
        self._histories: dict[bytes, tuple[_Level, ...]] = {}
        self._prefixes: dict[int, StackedIndex] = {}

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def landed(self) -> tuple[FileIndex, ...]:
        """The layers with their paths as they land in this stack."""
        return tuple(self._layers())

    def on_top(self, index: FileIndex) -> StackedIndex:
        """This stack and one more layer."""
        stack = StackedIndex((*self.layers, index))
        stack._landed = self._landed[:]
        return stack

    def below(self, layer: int) -> StackedIndex:
        """The stack of the layers under the one with this number."""
        if layer >= len(self.layers):
            return self
        if layer not in self._prefixes:
            stack = StackedIndex(self.layers[:layer])
            stack._landed = self._landed[:layer]
            self._prefixes[layer] = stack
        return self._prefixes[layer]

    def lookup(self, path: bytes) -> Entry | None:
        """What is visible at `path`, with its digest."""
        found = self.find(path)
        return found.entry if found else None

    def layer_of(self, path: bytes) -> int | None:
        """The number of the layer that wrote what is visible at `path`."""
        found = self.find(path, digest=False)
        return found.layer if found else None

    def find(self, path: bytes, *, digest: bool = True) -> Placed | None:
        """`lookup` and `layer_of` in one. Without `digest` that of a file may be missing, and its blob need not be fetched."""
        path = path.strip(b"/")
        if not path:
            return self._root()
        parent = path.rpartition(b"/")[0]
        landed = self._layers()
        implied: int | None = None
        for number, holds, hides, _ in self._history(parent):
            if holds:
                layer = landed[number]
                entry = layer.at(path, parent, digest=digest)
                if entry is not None and (implied is None or entry.kind == DIRECTORY):
                    return Placed(number, entry)
                if entry is not None:
                    break
                if layer.is_implied(path):
                    implied = number
                if layer.whiteout(path) is not None:
                    break
            if hides:
                break
        return None if implied is None else Placed(implied, _implied_directory(path))

    def file_of(self, path: bytes, *, digest: bool = True) -> Placed | None:
        """The file at `path`, through hard links to the first name, which may be gone by now: its layer and its entry there hold the bytes.

        None where no file is visible, or a hard link leads nowhere.
        """
        stack, found = self, self.find(path, digest=digest)
        for _ in range(SYMLINKS):
            if found is None or found.entry.kind == FILE:
                return found
            if found.entry.kind != HARDLINK:
                return None
            stack = stack.below(found.layer + 1)
            link = found.entry.link
            found = stack.find(link, digest=digest) or stack.find(stack.resolve(link), digest=digest)
        return None

    def entry_in(self, layer: int, path: bytes) -> Entry | None:
        """What the layer with this number itself writes at `path`, visible or not."""
        path = path.strip(b"/")
        return self._layers()[layer].at(path, path.rpartition(b"/")[0], digest=True)

    def children(self, path: bytes) -> tuple[bytes, ...]:
        """The names in a directory, sorted; none for anything else."""
        directory = path.strip(b"/")
        start = len(directory) + 1 if directory else 0
        return tuple(child[start:] for child, _ in self._listing(directory, digest=False))

    def walk(self, path: bytes = b"", *, digest: bool = True) -> Iterator[Entry]:
        """What is visible at `path` and below: a directory before what is in it, names in byte order. Nothing if there is nothing."""
        for found in self.walk_placed(path, digest=digest):
            yield found.entry

    def walk_placed(self, path: bytes = b"", *, digest: bool = True) -> Iterator[Placed]:
        """As `walk`, with the layer of each entry."""
        top = self.find(path, digest=digest)
        if top is None:
            return
        yield top
        if top.entry.kind != DIRECTORY:
            return
        pending = [iter(self._listing(top.entry.path, digest=digest))]
        while pending:
            for child, found in pending[-1]:
                yield found
                if found.entry.kind == DIRECTORY:
                    pending.append(iter(self._listing(child, digest=digest)))
                    break
            else:
                pending.pop()

    def is_symlink(self, path: bytes) -> bool:
        """Whether a symlink is visible at `path`."""
        if not any(layer.is_symlink(path) for layer in self._layers()):
            return False  # most paths; spares the histories
        found = self.find(path, digest=False)
        return found is not None and found.entry.kind == SYMLINK

    def resolve(self, path: bytes, *, follow_last: bool = False) -> bytes:
        """Where `path` leads inside the root, as after chroot: symlinks followed, `..` never above the root. The last part only on request.

        What does not exist stays as written. Raises SymlinkLoop.
        """
        waiting = path.split(b"/")[::-1]
        done: list[bytes] = []
        links = 0
        while waiting:
            name = waiting.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                del done[-1:]
                continue
            here = b"/".join((*done, name))
            if links and len(here) > PATH_BYTES:
                what = f"{shown(path)} leads through symlinks to a path longer than {PATH_BYTES:,} bytes"
                raise SymlinkLoop(what, where=shown(done[0]), mend="correct the symlinks in the image")
            found = self.find(here, digest=False) if follow_last or any(rest not in (b"", b".") for rest in waiting) else None
            if found is None or found.entry.kind != SYMLINK:
                done.append(name)
                continue
            links += 1
            if links > SYMLINKS:
                raise SymlinkLoop(f"{shown(path)} leads through more than {SYMLINKS} symlinks", where=shown(here), mend="correct the symlinks in the image")
            if found.entry.link.startswith(b"/"):
                done.clear()
            waiting += found.entry.link.split(b"/")[::-1]
        return b"/".join(done)

    def last_change(self, path: bytes) -> Change | None:
        """Which layer wrote, removed or shadowed `path` last; None if no layer ever had it.

        Removed: by a whiteout of it or of a directory above it, or an opaque mark above it. Shadowed: a directory above it was replaced by
        something else. A removal of what was not there any more does not count.
        """
        path = path.strip(b"/")
        if not path:
            root = self._root()
            return Change(root.layer, WROTE, root.entry)
        parent = path.rpartition(b"/")[0]
        landed = self._layers()
        removal: Change | None = None
        implied: Change | None = None
        for number, holds, hides, by in self._history(parent):
            layer = landed[number]
            if holds:
                entry = layer.at(path, parent)
                if entry is not None and (implied is None or entry.kind == DIRECTORY):
                    return removal or Change(number, WROTE, entry)
                if entry is not None:
                    break
                if layer.is_implied(path):
                    implied = Change(number, WROTE, None)
            mark = layer.whiteout(path) if holds else None
            if mark is not None or hides:
                if implied is not None:
                    break
                removal = Change(number, REMOVED, mark) if mark is not None else Change(number, hides, by)
        return (removal or implied) if implied is not None else None

    def text(self, path: bytes) -> bytes | None:
        """The text of a file that the index keeps (accounts, package databases), symlinks followed; None if there is none."""
        found = self.file_of(self.resolve(path, follow_last=True), digest=False)
        return self._layers()[found.layer].texts.get(found.entry.path) if found else None

    def uid_of(self, name: str) -> int | None:
        text = self.text(b"etc/passwd")
        return None if text is None else accounts.number_of(text, name)

    def gid_of(self, name: str) -> int | None:
        text = self.text(b"etc/group")
        return None if text is None else accounts.number_of(text, name)

    def primary_gid(self, uid: int) -> int | None:
        """The group of a user in the image's passwd."""
        text = self.text(b"etc/passwd")
        return None if text is None else accounts.group_of_uid(text, uid)

    def _layers(self) -> list[FileIndex]:
        """The layers with their paths as they land, worked out once each."""
        while len(self._landed) < len(self.layers):
            layer = self.layers[len(self._landed)]
            if layer.implied:
                layer = placed(layer, below=_of_landed(self._landed), along=_of_landed([*self._landed, layer]))
            self._landed.append(layer)
        return self._landed

    def _root(self) -> Placed:
        landed = self._layers()
        for number in range(len(landed) - 1, -1, -1):
            entry = landed[number].at(b"", b"")
            if entry is not None:
                return Placed(number, entry)
        return Placed(0, _implied_directory(b""))

    def _history(self, directory: bytes) -> tuple[_Level, ...]:
        """What the layers do in `directory`, the topmost first; those that neither hold nor hide anything are left out."""
        known = self._histories.get(directory)
        if known is not None:
            return known
        unknown = [directory]
        while unknown[-1] and (above := unknown[-1].rpartition(b"/")[0]) not in self._histories:
            unknown.append(above)
        for one in reversed(unknown):  # from the root: each stands on the one above it
            known = self._histories[one] = tuple(self._levels(one)) if one else tuple(self._root_levels())
        assert known is not None
        return known

    def _root_levels(self) -> Iterator[_Level]:
        landed = self._layers()
        for number in range(len(landed) - 1, -1, -1):
            mark = landed[number].opaque(b"")
            yield _Level(number, True, REMOVED if mark else "", mark)

    def _levels(self, directory: bytes) -> Iterator[_Level]:
        parent = directory.rpartition(b"/")[0]
        landed = self._layers()
        for level in self._history(parent):
            number, holds, hides, by = level
            if holds:
                layer = landed[number]
                entry = layer.at(directory, parent)
                holds = entry.kind == DIRECTORY if entry is not None else layer.is_implied(directory)
                if entry is not None and not holds:
                    hides, by = SHADOWED, entry
                elif (mark := layer.whiteout(directory) or layer.opaque(directory)) is not None:
                    hides, by = REMOVED, mark
            if holds or hides:
                yield _Level(number, holds, hides, by)

    def _listing(self, directory: bytes, *, digest: bool) -> list[tuple[bytes, Placed]]:
        """Paths of the visible children in byte order, each with what is there."""
        landed = self._layers()
        found: dict[bytes, Placed | None] = {}  # None: implied so far, a directory below may give the metadata
        implied: dict[bytes, int] = {}
        gone: set[bytes] = set()
        for number, holds, hides, _ in self._history(directory):
            if holds:
                layer = landed[number]
                for path, entry in layer.inside(directory, digest=digest):
                    if path not in found:
                        if path in gone:
                            continue
                        found[path] = None if entry is None else Placed(number, entry)
                    elif found[path] is None and path not in gone and entry is not None:
                        is_directory = entry.kind == DIRECTORY
                        found[path] = Placed(number, entry) if is_directory else Placed(implied[path], _implied_directory(path))
                    if entry is None and found[path] is None and path not in gone:
                        implied[path] = number
                gone.update(layer.removed_in(directory))
            if hides:
                break
        return sorted((path, what or Placed(implied[path], _implied_directory(path))) for path, what in found.items())


def _of_landed(layers: list[FileIndex]) -> StackedIndex:
    stack = StackedIndex(layers)
    stack._landed = layers[:]
    return stack


def _implied_directory(path: bytes) -> Entry:
    return Entry(path, DIRECTORY, 0o755)
