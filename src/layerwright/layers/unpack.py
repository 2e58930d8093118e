"""Layer tars onto the disk, each as one overlay lower directory. Nothing an archive says may touch what lies outside its tree.

The tree is written by us alone, into a fresh directory: so a path is known to lead through real directories when we made them all. Paths
through symlinks are resolved here, never by the kernel; every descriptor is opened without following.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import BinaryIO, cast

from layerwright.errors import LayerwrightError, MachineLacks
from layerwright.host.files import telling_full
from layerwright.layers.entry import BLOCK, CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.filesystem import WHITEOUT_DEVICE, WHITEOUT_MODE, Directories, copy_fully, keepable_time, open_lower, write_fully
from layerwright.layers.index import FileIndex
from layerwright.layers.scan import DigestedContent, HashedStream, Indexer
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar_reader import BadLayer, read_tar
from layerwright.layers.tree_paths import NeedsBelow, TreePaths
from layerwright.layers.xattrs import UnfitXattr, apply_xattrs, is_kept, overlay_name
from layerwright.limits import Limits

_PIECE = 1 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {CHAR: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_HOSTILE = "the image is damaged or hostile; pull it again, or ask whoever published it"


class CannotUnpack(LayerwrightError):
    """The tree could not be written; the cause says what the system answered."""


def unpack(stream: BinaryIO, tree: str, *, below: StackedIndex, lower_trees: Sequence[str], user_xattr: bool = False, limits: Limits | None = None) -> None:
    """Write an uncompressed layer into the empty directory `tree`, which then is an overlay lower directory over `lower_trees`, top first.

    `below` tells where paths lead and what implicit parents are like. A hard link to a file of a lower layer becomes a copy: overlay
    directories cannot share one. The last of several entries of one path wins. Raises BadLayer, CannotUnpack, MachineLacks.
    """
    with telling_full(tree), Directories(tree) as directories:
        unpacker = _Unpacker(directories, below=below, lower_trees=lower_trees, user_xattr=user_xattr)
        for entry, content in read_tar(stream, limits):
            unpacker.place(entry, content)
        unpacker.finish()


def unpack_alone(stream: BinaryIO, tree: str, *, user_xattr: bool = False, limits: Limits | None = None) -> tuple[FileIndex, bool]:
    """Index an uncompressed layer and unpack it into the empty `tree` in the same pass, knowing nothing of the layers below.

    False: the layer needs them; `tree` then is to be thrown away, and the layer given to `unpack`. The index is right in either case.
    """
    hashed = HashedStream(stream)
    indexer = Indexer()
    with telling_full(tree), Directories(tree) as directories:
        unpacker: _Unpacker | None = _Unpacker(directories, below=None, lower_trees=(), user_xattr=user_xattr)
        for entry, content in read_tar(cast(BinaryIO, hashed), limits):
            digested = DigestedContent(entry, content)
            if unpacker is not None:
                try:
                    unpacker.place(entry, cast(BinaryIO, digested))
                except NeedsBelow:
                    unpacker = None
            indexer.add(*digested.finish())
        if unpacker is not None:
            try:
                unpacker.finish()
            except NeedsBelow:
                unpacker = None
    return indexer.index(hashed.diff_id), unpacker is not None


def needs_below(index: FileIndex) -> bool:
    """Whether unpacking this layer takes the layers below: implicit parents, paths through symlinks, links to files of others.

    If not, its tree is the same on top of anything.
    """
    if index.implied:
        return True
    kinds: dict[bytes, str] = {b"": DIRECTORY}
    for entry in index.listed:
        path = entry.path
        if entry.kind == OPAQUE:
            if not path or kinds.get(path) != DIRECTORY:
                return True
            continue
        if path and kinds.get(path.rpartition(b"/")[0]) != DIRECTORY:
            return True
        if entry.kind == HARDLINK and kinds.get(entry.link, DIRECTORY) == DIRECTORY:
            return True
        if entry.kind != WHITEOUT:
            kinds[path] = entry.kind
    return False


class _Unpacker:
    def __init__(self, directories: Directories, *, below: StackedIndex | None, lower_trees: Sequence[str], user_xattr: bool) -> None:
        self._directories = directories
        self._paths = TreePaths(directories, below)
        self._below = below
        self._lower_trees = lower_trees
        self._user_xattr = user_xattr
        self._late_links: dict[bytes, Entry] = {}  # by where they go: a later entry of the path counts instead
        self._copied: dict[bytes, bytes] = {}
        self._left_out: set[bytes] = set()  # devices, and hard links to them

    def place(self, entry: Entry, content: BinaryIO) -> None:
        try:
            self._place(entry, content)
        except OSError as error:
            raise _failed(entry.path, error) from error

    def finish(self) -> None:
        """What can only be done when all else is there: links to other layers' files, opaque marks, the metadata of directories."""
        late_links, self._late_links = self._late_links, {}
        for entry in late_links.values():
            try:
                self._link_late(entry)
            except OSError as error:
                raise _failed(entry.path, error) from error
        try:
            self._hide_below_root()
            self._drop_needless_whiteouts()
        except OSError as error:
            raise _failed(b"", error) from error
        for path, entry in self._paths.directories_last_first():
            try:
                self._finish_directory(path, entry)
            except OSError as error:
                raise _failed(path, error) from error

    def _place(self, entry: Entry, content: BinaryIO) -> None:
        kind, paths = entry.kind, self._paths
        if kind == OPAQUE:
            paths.opaque.add(paths.directory(entry.path))
            return
        parent, name = paths.parent(entry)
        path = parent + b"/" + name if parent else name
        if self._late_links and kind != WHITEOUT:
            self._late_links.pop(path, None)
        if kind == FILE:
            self._write_file(parent, name, path, entry, content)
        elif kind == DIRECTORY:
            paths.make_directory(path, entry)
        elif kind == SYMLINK:
            self._create(path, partial(os.symlink, entry.link, name), parent)
            paths.symlinks[path] = entry.link
            self._dress(parent, name, entry)
        elif kind == HARDLINK:
            self._link(entry, parent, name, path)
        elif kind == WHITEOUT:
            self._white_out(parent, name, path)
        else:
            self._make_special(entry, parent, name, path)

    def _write_file(self, parent: bytes, name: bytes, path: bytes, entry: Entry, content: BinaryIO) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=self._directories.fd(parent))
        except FileExistsError:
            self._paths.clear(path)
            fd = os.open(name, _CREATE, 0o600, dir_fd=self._directories.fd(parent))
        try:
            while piece := content.read(_PIECE):
                write_fully(fd, piece)
            _dress_open(fd, entry)
        finally:
            os.close(fd)

    def _create(self, path: bytes, call: partial[None], parent: bytes) -> None:
        """Make something that is not a file at `path`, instead of what an earlier entry left there."""
        try:
            call(dir_fd=self._directories.fd(parent))
        except FileExistsError:
            self._paths.clear(path)
            call(dir_fd=self._directories.fd(parent))

    def _make_special(self, entry: Entry, parent: bytes, name: bytes, path: bytes) -> None:
        device = os.makedev(*entry.device) if entry.kind != FIFO else 0
        if entry.kind == CHAR and device == WHITEOUT_DEVICE:
            raise BadLayer("a character device 0:0, which overlayfs takes for a removal", where=shown(path), mend=_HOSTILE)
        try:
            self._create(path, partial(os.mknod, name, _SPECIAL[entry.kind] | 0o600, device), parent)
        except PermissionError:
            if self._user_xattr and entry.kind != FIFO:
                # A user namespace cannot make devices; containers need none, the runtime gives the usual ones. The layer keeps the entry all the same.
                self._left_out.add(path)
                return
            raise
        self._dress(parent, name, entry)

    def _dress(self, parent: bytes, name: bytes, entry: Entry) -> None:
        """Owner, attributes and time of what cannot be opened."""
        fd = self._directories.fd(parent)
        os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        if entry.kind != SYMLINK:
            os.chmod(name, entry.mode, dir_fd=fd)
        if entry.xattrs:
            place = b"/proc/self/fd/%d/%b" % (fd, name)
            apply_xattrs(entry.xattrs, lambda key, value: os.setxattr(place, key, value, follow_symlinks=False))
        mtime_ns = keepable_time(entry.mtime_ns)
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _white_out(self, parent: bytes, name: bytes, path: bytes) -> None:
        if self._paths.white_out(path):
            os.mknod(name, WHITEOUT_MODE, WHITEOUT_DEVICE, dir_fd=self._directories.fd(parent))

    def _link(self, entry: Entry, parent: bytes, name: bytes, path: bytes) -> None:
        target = self._paths.target(entry.link)
        if target == path:
            raise BadLayer("a hard link to itself", where=shown(path), mend=_HOSTILE)
        if target in self._left_out and not self._paths.is_here(target):
            self._left_out.add(path)
            return
        if not self._paths.is_here(target):
            self._late_links[path] = entry
            return
        self._link_here(target, parent, name, path)

    def _link_here(self, target: bytes, parent: bytes, name: bytes, path: bytes) -> None:
        paths = self._paths
        if target in paths.directories:
            raise BadLayer("a hard link to a directory", where=shown(path), mend=_HOSTILE)
        above, _, base = target.rpartition(b"/")
        # The first descriptor may be closed when the second is asked for.
        with _Closing(os.dup(self._directories.fd(above))) as source:
            self._create(path, partial(_link_to, source, base, name), parent)
        if (symlink := paths.symlinks.get(target)) is not None:
            paths.symlinks[path] = symlink

    def _link_late(self, entry: Entry) -> None:
        parent, name = self._paths.parent(entry)
        path = parent + b"/" + name if parent else name
        target = self._paths.target(entry.link)
        if self._paths.is_here(target) or target in self._copied:
            self._link_here(self._copied.get(target, target), parent, name, path)
            return
        if self._below is None:
            raise NeedsBelow
        hidden = self._paths.is_hidden(target) or self._paths.ends_here(target)
        found = None if hidden else self._below.lookup(target)
        if found is None or found.kind == DIRECTORY:
            raise BadLayer(f"a hard link to {shown(entry.link)}, which is not there", where=shown(entry.path), mend=_HOSTILE)
        if found.kind in (FILE, HARDLINK):
            self._copy(target, parent, name, path)
        else:
            self._place(found._replace(path=path), cast(BinaryIO, None))
        self._copied[target] = path

    def _copy(self, target: bytes, parent: bytes, name: bytes, path: bytes) -> None:
        source = open_lower(self._lower_trees, target, user_xattr=self._user_xattr)
        if source is None:
            raise BadLayer(f"a hard link to {shown(target)}, which no lower layer has", where=shown(path), mend=_HOSTILE)
        with _Closing(source):
            self._paths.clear(path)
            with _Closing(os.open(name, _CREATE, 0o600, dir_fd=self._directories.fd(parent))) as fd:
                copy_fully(source, fd)
                _dress_open(fd, _entry_of(source))

    def _hide_below_root(self) -> None:
        """An opaque root: overlayfs does not look for the mark there, so each name of the layers below is hidden by itself."""
        if b"" not in self._paths.opaque:
            return
        if self._below is None:
            raise NeedsBelow
        for name in self._below.children(b""):
            self._white_out(b"", name, name)

    def _drop_needless_whiteouts(self) -> None:
        for path in self._paths.needless_whiteouts():
            if not self._paths.is_here(path):
                parent, _, name = path.rpartition(b"/")
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._directories.fd(parent))

    def _finish_directory(self, path: bytes, entry: Entry) -> None:
        fd = self._directories.fd(path)
        if path and path in self._paths.opaque:
            os.setxattr(fd, overlay_name("opaque", user_xattr=self._user_xattr), b"y")
        _dress_open(fd, entry)


class _Closing:
    """Closes a descriptor at the end of the block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _link_to(source: int, base: bytes, name: bytes, *, dir_fd: int) -> None:
    os.link(base, name, src_dir_fd=source, dst_dir_fd=dir_fd, follow_symlinks=False)


def _dress_open(fd: int, entry: Entry) -> None:
    """Owner, mode, attributes and time, in the order in which none undoes another."""
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    if entry.xattrs:
        apply_xattrs(entry.xattrs, partial(os.setxattr, fd))
    mtime_ns = keepable_time(entry.mtime_ns)
    os.utime(fd, ns=(mtime_ns, mtime_ns))


def _entry_of(fd: int) -> Entry:
    """The metadata of an open file."""
    found = os.fstat(fd)
    names = [os.fsencode(name) for name in os.listxattr(fd)]
    xattrs = tuple((name, os.getxattr(fd, name)) for name in names if is_kept(name))
    return Entry(b"", FILE, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns, xattrs=xattrs)


def _failed(path: bytes, error: OSError) -> Exception:
    """What an error of the system means for whoever wanted the tree."""
    where = shown(path)
    if isinstance(error, UnfitXattr):
        mend = "the image is damaged, or was made on another file system: put the store on xfs or btrfs (LAYERWRIGHT_HOME) if so"
        return BadLayer(f"an extended attribute that the file system refuses ({error.strerror})", where=where, mend=mend)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return error
    if error.errno in (errno.EPERM, errno.EINVAL, errno.EACCES):
        mend = "run as root, or give the user a range of ids that covers the image's owners in /etc/subuid and /etc/subgid"
        return MachineLacks(f"the rights to make this as the image has it ({error.strerror})", where=where, mend=mend)
    if error.errno in (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
        return BadLayer(f"an entry that the file system refuses: {error.strerror}", where=where, mend=_HOSTILE)
    return CannotUnpack(f"could not be written: {error.strerror}", where=where, mend="look for the cause in the system's log, then build again")
