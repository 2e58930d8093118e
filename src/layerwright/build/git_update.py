"""From one state of the git mappings to another: what a layer must add and remove, and which stage must be built anew instead. Pure.

The rule (docs/git.md, "How sources follow the commit"): whatever order of commits led there, an image of declared stages has the same files as
one built in an empty store. So a path is written or removed only where the last one to touch it was git; what a later import wrote stays; what
a command wrote with other content, or what a removal would have to uncover in the base, makes the stage that did it depend on the path. Where
an import that comes later would have met other directories or symlinks of git's, gitArchive is built anew, and the import upon it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from layerwright.git.values import EXECUTABLE, SYMLINK, TreeEntry
from layerwright.layers.compose import PathBlocked
from layerwright.layers.entry import DIRECTORY, FILE, Entry
from layerwright.layers.entry import SYMLINK as SYMLINK_ENTRY
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex
from layerwright.storage.records import LayerRef

ARCHIVE = "gitArchive"


class GitFile(NamedTuple):
    """A file of a mapping at its place in the image: `mapping` is its number in the configuration."""

    mapping: int
    source: TreeEntry

    @property
    def state(self) -> str:
        return f"{self.source.mode:o} {self.source.oid}"


Files = Mapping[bytes, GitFile]  # by target path, relative to the root


class Change(NamedTuple):
    """`path`: target; `old` and `new`: None where absent."""

    path: bytes
    old: GitFile | None
    new: GitFile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who owns what a mapping brings. `to`: relative target, symlinks below the sources followed; b"" for the root."""

    to: bytes
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A stack of layers and who made each. `git_from` is the number of the first layer of this image's own gitArchive (len(layers) if none yet)."""

    layers: tuple[LayerRef, ...]
    view: StackedIndex
    below_git: StackedIndex
    git_from: int


@dataclass(slots=True)
class Update:
    """`adds` carry the source of each file; `conflicts`: paths, with the present state or None, that a stage must take as inputs, by stage."""

    adds: list[tuple[Entry, TreeEntry | None]] = field(default_factory=list)
    removals: list[bytes] = field(default_factory=list)
    conflicts: dict[str, dict[bytes, str | None]] = field(default_factory=dict)

    def blame(self, stage: str, change: Change) -> None:
        self.conflicts.setdefault(stage, {})[change.path] = change.new.state if change.new else None


def landed(files: Files, below: StackedIndex, *, where: str = "") -> Files:
    """`files` where the symlinks of `below` lead their directories; of two that meet in one place the later one's counts.

    Raises PathBlocked where one file stands where another needs a directory.
    """
    led: dict[bytes, bytes] = {}
    placed: dict[bytes, GitFile] = {}
    for path, file in files.items():
        directory, _, name = path.rpartition(b"/")
        found = led.get(directory)
        if found is None:
            found = led[directory] = below.resolve(directory, follow_last=True)
        placed[found + b"/" + name if found else name] = file
    for directory in {above for found in led.values() for above in (*parents(found), found)}:
        if directory in placed:
            inner = min(path for path in placed if path.startswith(directory + b"/"))
            raise PathBlocked(
                f"git has a file for {shown(directory)} and one for {shown(inner)}, which would be inside of it",
                where=where,
                mend="leave one of them out with excludePaths",
            )
    return placed


def changes_between(old: Files, new: Files) -> list[Change]:
    """Sorted by path. Two files are equal if mode, content and mapping are."""
    changed = [Change(path, before, file) for path, file in new.items() if (before := old.get(path)) is None or _differ(before, file)]
    changed += [Change(path, file, None) for path, file in old.items() if path not in new]
    return sorted(changed)


def _differ(old: GitFile, new: GitFile) -> bool:
    return old.mapping != new.mapping or old.source.oid != new.source.oid or old.source.mode != new.source.mode


def shown_changes(changes: Sequence[Change]) -> str:
    """For people: the first path, and how many more."""
    first = changes[0].path.decode("utf-8", "backslashreplace")
    return first if len(changes) == 1 else f"{first} and {len(changes) - 1} more"


def plan_update(changes: Sequence[Change], new: Files, chain: Chain, owners: Sequence[Owner], *, time_s: int) -> Update:
    """`new`: every file of the new state, `landed` as the changes are."""
    planner = _Planner(chain, owners, time_s, new)
    for change in changes:
        planner.take(change)
    planner.remove_empty_directories([change for change in changes if change.new is None])
    return planner.update


class _Planner:
    """One update in the making."""

    def __init__(self, chain: Chain, owners: Sequence[Owner], time_s: int, new: Files) -> None:
        self.chain = chain
        self.view = chain.view
        self.owners = owners
        self.mtime_ns = time_s * 1_000_000_000
        self.new = new
        self.update = Update()
        self.removed: set[bytes] = set()
        self.passable: set[bytes] = set()
        self.imports = [number for number in range(chain.git_from, len(chain.layers)) if chain.layers[number].kind == "imports"]

    def take(self, change: Change) -> None:
        if self.imports and self.leads_imports(change):
            self.update.blame(ARCHIVE, change)
        elif change.new is None:
            self.remove(change)
        elif self.has_way(change) and self.may_write(change):
            self.write(change.path, change.new)

    def leads_imports(self, change: Change) -> bool:
        """Whether an import that comes later may go another way, or give its files to others, because of the change."""
        if change.path in (b"etc/passwd", b"etc/group") or self.chain.below_git.is_symlink(change.path):
            return True
        return any(file is not None and file.source.mode == SYMLINK for file in (change.old, change.new))

    def toucher(self, path: bytes) -> LayerRef | None:
        """The layer after the archive that touched `path` last, unless it is one of git's."""
        change = self.view.last_change(path)
        if change is None or change.layer < self.chain.git_from:
            return None
        layer = self.chain.layers[change.layer]
        return None if layer.kind == "git" else layer

    # Files that are new or changed.

    def may_write(self, change: Change) -> bool:
        layer = self.toucher(change.path)
        if layer is None:
            return True
        if layer.kind == "imports":
            seen = self.view.lookup(change.path)
            if seen is not None and seen.kind == DIRECTORY:
                self.update.blame(ARCHIVE, change)  # only the import itself can tell whether it may replace the file
            return False
        if self.only_metadata_differs(change.path):
            return True
        self.update.blame(layer.stage, change)
        return False

    def only_metadata_differs(self, path: bytes) -> bool:
        """Whether what is visible at `path` has the content git last gave it."""
        seen, given = self.view.lookup(path), self.last_from_git(path)
        if seen is None or given is None or seen.kind != given.kind:
            return False
        return seen.link == given.link if seen.kind == SYMLINK_ENTRY else seen.kind == FILE and seen.digest == given.digest

    def last_from_git(self, path: bytes) -> Entry | None:
        for number in range(len(self.chain.layers) - 1, self.chain.git_from - 1, -1):
            if self.chain.layers[number].kind == "git" and (entry := self.view.entry_in(number, path)) is not None:
                return entry
        return None

    def write(self, path: bytes, new: GitFile) -> None:
        owner = self.owners[new.mapping]
        uid, gid, mode = owner.uid, owner.gid, 0o755 if new.source.mode == EXECUTABLE else 0o644
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        seen = self.view.lookup(path) if self.was_changed_by_commands(path) else None
        if seen is not None:
            uid, gid, xattrs = seen.uid, seen.gid, seen.xattrs
            mode = seen.mode | (seen.mode & 0o444) >> 2 if new.source.mode == EXECUTABLE else seen.mode & ~0o111
        kind = SYMLINK_ENTRY if new.source.mode == SYMLINK else FILE
        entry = Entry(path, kind, 0o777 if kind == SYMLINK_ENTRY else mode, uid, gid, self.mtime_ns, xattrs=xattrs)
        self.update.adds.append((entry, new.source))

    def was_changed_by_commands(self, path: bytes) -> bool:
        """Whether a command has had its hand on `path` (its owner or mode, where git may write at all), whatever git wrote since."""
        layers = self.chain.layers
        return any(layers[number].kind == "commands" and self.view.entry_in(number, path) is not None for number in range(self.chain.git_from, len(layers)))

    # The directories above them.

    def has_way(self, change: Change) -> bool:
        """Whether every directory above the file is there or can be made; where it is not git's to make, the stage is blamed."""
        for directory in parents(change.path):
            if directory not in self.passable:
                if (stage := self.in_the_way(directory)) is not None:
                    self.update.blame(stage, change)
                    return False
                self.passable.add(directory)
        return True

    def in_the_way(self, directory: bytes) -> str | None:
        """The stage that must be built anew because it left something else than git's directory here, or None: then the directory is seen to.

        A directory new to the image belongs to the mapping with the nearest target, whichever file brings it.
        """
        layer = self.toucher(directory)
        seen = self.view.lookup(directory)
        if layer is not None and layer.kind == "commands" and (seen is None or seen.kind != DIRECTORY):
            return layer.stage
        if layer is not None and layer.kind == "imports" and (seen is None or seen.kind != DIRECTORY):
            return ARCHIVE
        owner = self.owner_of(directory)
        if seen is not None and seen.kind == DIRECTORY:
            return ARCHIVE if self.imports and owner is not None and self.is_imports_own(directory) and not _would_make(owner, seen) else None
        if self.imports and self.imports_replaced_links:
            return ARCHIVE
        if owner is not None:
            self.update.adds.append((Entry(directory, DIRECTORY, 0o755, owner.uid, owner.gid, self.mtime_ns), None))
        return None

    def owner_of(self, directory: bytes) -> Owner | None:
        fitting = [one for one in self.owners if not one.to or directory == one.to or directory.startswith(one.to + b"/")]
        return max(fitting, key=lambda one: len(one.to), default=None)

    def makers(self, directory: bytes) -> list[str]:
        """What kinds of layers since the archive hold the directory, the oldest first."""
        view, layers = self.view, self.chain.layers
        return [layers[number].kind for number in range(self.chain.git_from, len(layers)) if view.entry_in(number, directory) is not None]

    def is_imports_own(self, directory: bytes) -> bool:
        """Whether an import made the directory, in which git has nothing so far."""
        if self.chain.below_git.lookup(directory) is not None:
            return False
        return self.makers(directory)[:1] == ["imports"]

    @cached_property
    def imports_replaced_links(self) -> bool:
        """Whether an import put a directory where a symlink was: it would have followed one that led to a directory."""
        listed = ((number, entry) for number in self.imports for entry in self.view.layers[number].listed if entry.kind == DIRECTORY)
        return any(self.view.below(number).is_symlink(entry.path) for number, entry in listed)

    # Files that are gone.

    def remove(self, change: Change) -> None:
        path = change.path
        if any(self.is_replaced(directory) for directory in parents(path)):
            return  # goes with the directory that a file replaces
        if self.uncovers_base(path):
            self.update.blame(ARCHIVE, change)
            return
        layer = self.toucher(path)
        if layer is not None and layer.kind == "commands" and not self.only_metadata_differs(path):
            self.update.blame(layer.stage, change)
        elif (layer is None or layer.kind == "commands") and self.view.lookup(path) is not None and not self.is_implied(path):
            self.update.removals.append(path)
            self.removed.add(path)

    def is_replaced(self, directory: bytes) -> bool:
        """Whether the update puts a file in place of the directory."""
        if directory not in self.new:
            return False
        layer = self.toucher(directory)
        return layer is None or layer.kind != "imports"

    def uncovers_base(self, path: bytes) -> bool:
        """Whether something below git's layers would have to show again: at the path, or a file where a directory of git's now goes."""
        below = self.chain.below_git
        if below.lookup(path) is not None:
            return True
        for directory in parents(path):
            seen = below.lookup(directory)
            if seen is not None and seen.kind != DIRECTORY and not self.is_implied(directory):
                return True
        return False

    @cached_property
    def new_paths(self) -> Sequence[bytes]:
        return sorted(self.new)

    def is_implied(self, directory: bytes) -> bool:
        """Whether the new state still has a file below `directory`, or one in its place."""
        if directory in self.new:
            return True
        prefix = directory + b"/"
        place = bisect_left(self.new_paths, prefix)
        return place < len(self.new_paths) and self.new_paths[place].startswith(prefix)

    def remove_empty_directories(self, gone: Sequence[Change]) -> None:
        """Directories that only git had made go with their last file, the deepest first."""
        candidates = {directory: change for change in gone for directory in parents(change.path)}
        for directory, change in sorted(candidates.items(), key=lambda one: (-one[0].count(b"/"), one[0])):
            if self.is_implied(directory) or not self.is_gits_own(directory):
                continue
            if "imports" in self.makers(directory):
                self.update.blame(ARCHIVE, change)  # without git's files the import would have made the directory itself
            elif all(directory + b"/" + name in self.removed for name in self.view.children(directory)):
                self.update.removals.append(directory)
                self.removed.add(directory)

    def is_gits_own(self, directory: bytes) -> bool:
        seen = self.view.lookup(directory)
        if seen is None or seen.kind != DIRECTORY or self.chain.below_git.lookup(directory) is not None:
            return False
        return self.makers(directory)[:1] == ["git"]


def _would_make(owner: Owner, seen: Entry) -> bool:
    """Whether git's directory would look as `seen` does."""
    return (seen.mode, seen.uid, seen.gid, seen.xattrs) == (0o755, owner.uid, owner.gid, ())


def parents(path: bytes) -> list[bytes]:
    """The directories above `path`, the highest first; not the root."""
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[: count + 1]) for count in range(len(parts))]
