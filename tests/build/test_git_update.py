"""What an update of sources adds, removes, and blames on a stage: a table of who had touched the path last, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pytest

from layerwright.build.git_update import ARCHIVE, Chain, GitFile, Owner, Update, changes_between, landed, plan_update
from layerwright.git.values import EXECUTABLE, FILE, SYMLINK, BlobId, TreeEntry
from layerwright.layers.compose import PathBlocked
from layerwright.layers.entry import DIRECTORY, WHITEOUT, Entry
from layerwright.layers.entry import FILE as FILE_ENTRY
from layerwright.layers.entry import SYMLINK as LINK_ENTRY
from layerwright.layers.index import FileIndex
from layerwright.layers.stack import StackedIndex
from layerwright.oci.digest import DiffId, digest_of
from layerwright.storage.records import LayerKind, LayerRef

Layer = tuple[LayerKind, str, Sequence[Entry]]  # who made it, in which stage, what is in it
ROOT = Owner(to=b"", uid=0, gid=0)
TIME_S = 1_700_000_000


def at(path: str, content: str = "", *, mode: int = 0o644, uid: int = 0) -> Entry:
    return Entry(path.encode(), FILE_ENTRY, mode, uid, uid, size=len(content), digest=digest_of(content.encode()))


def directory(path: str, *, mode: int = 0o755, uid: int = 0) -> Entry:
    return Entry(path.encode(), DIRECTORY, mode, uid, uid)


def pointing(path: str, target: str, *, uid: int = 0) -> Entry:
    return Entry(path.encode(), LINK_ENTRY, 0o777, uid, uid, link=target.encode())


def gone(path: str) -> Entry:
    return Entry(path.encode(), WHITEOUT)


def base(*entries: Entry) -> Layer:
    return "base", "from", entries


def archive(*entries: Entry) -> Layer:
    return "git", ARCHIVE, entries


def install(*entries: Entry) -> Layer:
    return "commands", "install", entries


def patched(*entries: Entry) -> Layer:
    return "git", "gitCache", entries


def imported(*entries: Entry) -> Layer:
    return "imports", "dependenciesAfterInstall", entries


def file(content: str, mode: int = FILE, mapping: int = 0) -> GitFile:
    return GitFile(mapping, TreeEntry(b"", mode, BlobId(hashlib.sha1(content.encode()).hexdigest())))


Sources = Mapping[str, GitFile | str]


def placed(sources: Sources) -> dict[bytes, GitFile]:
    return {path.encode(): file(one) if isinstance(one, str) else one for path, one in sources.items()}


def chain_of(layers: Sequence[Layer]) -> Chain:
    refs = tuple(LayerRef(DiffId(f"sha256:{number:064}"), kind, stage, "", 0, 0) for number, (kind, stage, _) in enumerate(layers))
    indexes = [FileIndex(ref.diff_id, layer[2]) for ref, layer in zip(refs, layers, strict=True)]
    first = next((number for number, ref in enumerate(refs) if ref.stage == ARCHIVE), len(refs))
    return Chain(refs, StackedIndex(indexes), StackedIndex(indexes[:first]), first)


def update(layers: Sequence[Layer], old: Sources, new: Sources, owners: Sequence[Owner] = (ROOT,)) -> Update:
    chain = chain_of(layers)
    wanted = landed(placed(new), chain.below_git)
    return plan_update(changes_between(landed(placed(old), chain.below_git), wanted), wanted, chain, owners, time_s=TIME_S)


def added(found: Update) -> list[str]:
    return [entry.path.decode() + ("/" if entry.kind == DIRECTORY else "") for entry, _ in found.adds]


def blamed(found: Update) -> dict[str, list[str]]:
    return {stage: [path.decode() for path in paths] for stage, paths in found.conflicts.items()}


A, B = {"a": "1"}, {"a": "2"}

# name: layers, old sources, new sources -> added, removed, blamed
TABLE: dict[str, tuple[Sequence[Layer], Sources, Sources, list[str], list[str], dict[str, list[str]]]] = {
    "git alone: changed": ([archive(at("a", "1"))], A, B, ["a"], [], {}),
    "git alone: removed": ([archive(at("a", "1"), at("k"))], A | {"k": ""}, {"k": ""}, [], ["a"], {}),
    "git alone: nothing": ([archive(at("a", "1"))], A, A, [], [], {}),
    "the same content, another mode": ([archive(at("a", "1"))], A, {"a": file("1", EXECUTABLE)}, ["a"], [], {}),
    "a directory goes with its last file": (
        [archive(directory("d"), directory("d/e"), at("d/e/f"), at("k"))],
        {"d/e/f": "", "k": ""},
        {"k": ""},
        [],
        ["d/e/f", "d/e", "d"],
        {},
    ),
    "a directory of the base stays": ([base(directory("d")), archive(directory("d"), at("d/f"))], {"d/f": ""}, {}, [], ["d/f"], {}),
    "a directory with a command's file stays": (
        [archive(directory("d"), at("d/f")), install(directory("d"), at("d/made"))],
        {"d/f": ""},
        {},
        [],
        ["d/f"],
        {},
    ),
    "a new directory comes with its file": ([archive(at("k"))], {"k": ""}, {"k": "", "d/e/f": ""}, ["d/", "d/e/", "d/e/f"], [], {}),
    # file, directory, symlink
    "file to directory": ([archive(at("d", "1"))], {"d": "1"}, {"d/f": "1"}, ["d/", "d/f"], [], {}),
    "directory to file": ([archive(directory("d"), at("d/f", "1"))], {"d/f": "1"}, {"d": "1"}, ["d"], [], {}),
    "symlink to directory": ([archive(pointing("d", "x"))], {"d": file("x", SYMLINK)}, {"d/f": "1"}, ["d/", "d/f"], [], {}),
    "file to symlink": ([archive(at("d", "1"))], {"d": "1"}, {"d": file("x", SYMLINK)}, ["d"], [], {}),
    # the base uncovered
    "over a file of the base: changed": ([base(at("a", "b")), archive(at("a", "1"))], A, B, ["a"], [], {}),
    "over a file of the base: removed": ([base(at("a", "b")), archive(at("a", "1"))], A, {}, [], [], {ARCHIVE: ["a"]}),
    "over a directory of the base: removed": ([base(directory("a"), at("a/x")), archive(at("a", "1"))], A, {}, [], [], {ARCHIVE: ["a"]}),
    "over a symlink of the base: removed": ([base(pointing("a", "x")), archive(at("a", "1"))], A, {}, [], [], {ARCHIVE: ["a"]}),
    "a directory over a file of the base, its last file removed": (
        [base(at("d", "b")), archive(directory("d"), at("d/f", "1"))],
        {"d/f": "1"},
        {},
        [],
        [],
        {ARCHIVE: ["d/f"]},
    ),
    "a directory over a file of the base, another file stays": (
        [base(at("d", "b")), archive(directory("d"), at("d/f", "1"), at("d/g", "1"))],
        {"d/f": "1", "d/g": "1"},
        {"d/g": "1"},
        [],
        ["d/f"],
        {},
    ),
    # symlinks of the base are followed
    "through a symlink of the base: added": (
        [base(directory("usr"), pointing("bin", "usr")), archive(at("k"))],
        {"k": ""},
        {"k": "", "bin/f": "1"},
        ["usr/f"],
        [],
        {},
    ),
    "through a symlink of the base: removed": ([base(directory("usr"), pointing("bin", "usr")), archive(at("usr/f"))], {"bin/f": ""}, {}, [], ["usr/f"], {}),
    "a file in place of a symlink that led others": (
        [base(directory("usr"), pointing("bin", "usr")), archive(at("usr/f"))],
        {"bin/f": ""},
        {"bin": "1"},
        ["bin"],
        ["usr/f"],
        {},
    ),
    "through a symlink that leads nowhere, and back": (
        [base(pointing("bin", "usr/new")), archive(directory("usr"), directory("usr/new"), at("usr/new/f"))],
        {"bin/f": ""},
        {},
        [],
        ["usr/new/f", "usr/new", "usr"],
        {},
    ),
    # commands
    "a command wrote it": ([archive(at("a", "1")), install(at("a", "made"))], A, B, [], [], {"install": ["a"]}),
    "a command wrote it, git removes it": ([archive(at("a", "1")), install(at("a", "made"))], A, {}, [], [], {"install": ["a"]}),
    "a command removed it": ([archive(at("a", "1")), install(gone("a"))], A, B, [], [], {"install": ["a"]}),
    "a command removed its directory": (
        [archive(directory("d"), at("d/f", "1")), install(gone("d"))],
        {"d/f": "1"},
        {"d/f": "2"},
        [],
        [],
        {"install": ["d/f"]},
    ),
    "a command removed the directory of a new file": (
        [archive(directory("d"), at("d/f", "1")), install(gone("d"))],
        {"d/f": "1"},
        {"d/f": "1", "d/g": "1"},
        [],
        [],
        {"install": ["d/g"]},
    ),
    "a command shadowed its directory": (
        [archive(directory("d"), at("d/f", "1")), install(pointing("d", "elsewhere"))],
        {"d/f": "1"},
        {"d/f": "2"},
        [],
        [],
        {"install": ["d/f"]},
    ),
    "a command shadowed the directory of a new file": (
        [base(directory("d")), archive(at("k")), install(pointing("d", "elsewhere"))],
        {"k": ""},
        {"k": "", "d/f": "2"},
        [],
        [],
        {"install": ["d/f"]},
    ),
    "a command made what git now brings": ([archive(at("k")), install(at("a", "made"))], {"k": ""}, {"k": "", "a": "1"}, [], [], {"install": ["a"]}),
    "a command changed the owner": ([archive(at("a", "1")), install(at("a", "1", uid=33))], A, B, ["a"], [], {}),
    "a command changed the owner, git removes it": ([archive(at("a", "1")), install(at("a", "1", uid=33))], A, {}, [], ["a"], {}),
    "a command changed a symlink": ([archive(pointing("a", "x")), install(pointing("a", "y"))], {"a": file("x", SYMLINK)}, B, [], [], {"install": ["a"]}),
    "a command changed a symlink's owner": (
        [archive(pointing("a", "x")), install(pointing("a", "x", uid=33))],
        {"a": file("x", SYMLINK)},
        {"a": file("y", SYMLINK)},
        ["a"],
        [],
        {},
    ),
    "a command below the sources counts as base": ([install(at("a", "made")), archive(at("a", "1"))], A, B, ["a"], [], {}),
    # imports that come after
    "an import wrote it": ([archive(at("a", "1")), imported(at("a", "i"))], A, B, [], [], {}),
    "an import wrote it, git removes it": ([archive(at("a", "1")), imported(at("a", "i"))], A, {}, [], [], {}),
    "an import wrote a file where git needs a directory": (
        [archive(at("k")), imported(at("d", "i"))],
        {"k": ""},
        {"k": "", "d/f": ""},
        [],
        [],
        {ARCHIVE: ["d/f"]},
    ),
    "an import wrote a directory where git has a file": (
        [archive(at("k")), imported(directory("a"), at("a/i"))],
        {"k": ""},
        {"k": "", "a": "1"},
        [],
        [],
        {ARCHIVE: ["a"]},
    ),
    "a file of git's where an import put a directory over git's": (
        [archive(directory("d"), at("d/f")), imported(directory("d"), at("d/i"))],
        {"d/f": ""},
        {"d": "1"},
        [],
        ["d/f"],
        {ARCHIVE: ["d"]},
    ),
    "a symlink that an import may go through": ([archive(at("k")), imported(at("i"))], {"k": ""}, {"k": "", "l": file("x", SYMLINK)}, [], [], {ARCHIVE: ["l"]}),
    "a symlink of the base that an import may have gone through": (
        [base(pointing("a", "x")), archive(at("k")), imported(at("x/i"))],
        {"k": ""},
        {"k": ""} | A,
        [],
        [],
        {ARCHIVE: ["a"]},
    ),
    "a directory of git's that an import uses loses its files": (
        [archive(directory("d", uid=1), at("d/f"), at("k")), imported(directory("d", uid=1), at("d/i"))],
        {"d/f": "", "k": ""},
        {"k": ""},
        [],
        ["d/f"],
        {ARCHIVE: ["d/f"]},
    ),
    "accounts that an import may be given to": (
        [archive(directory("etc"), at("etc/passwd", "1")), imported(at("i"))],
        {"etc/passwd": "1"},
        {"etc/passwd": "2"},
        [],
        [],
        {ARCHIVE: ["etc/passwd"]},
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_an_update_does_depends_on_who_touched_the_path_last(case: str) -> None:
    layers, old, new, adds, removals, conflicts = TABLE[case]
    found = update(layers, old, new)
    assert (added(found), [path.decode() for path in found.removals], blamed(found)) == (adds, removals, conflicts)


def test_a_conflict_holds_the_present_state_of_the_path() -> None:
    layers = [archive(at("a", "1"), at("b", "1")), install(at("a", "made"), gone("b"))]
    assert update(layers, {"a": "1", "b": "1"}, {"a": "2"}).conflicts == {"install": {b"a": file("2").state, b"b": None}}


def test_owner_mode_and_attributes_given_by_a_command_stay_and_the_executable_bit_is_gits() -> None:
    owned = at("a", "1", mode=0o640, uid=33)._replace(xattrs=((b"user.x", b"1"),))
    for layers in ([archive(at("a", "1")), install(owned)], [archive(at("a", "1")), install(owned), patched(owned._replace(digest=digest_of(b"2")))]):
        ((entry, _),) = update(layers, A, {"a": file("3", EXECUTABLE)}).adds
        assert (entry.mode, entry.uid, entry.gid, entry.xattrs) == (0o750, 33, 33, ((b"user.x", b"1"),))
        ((entry, _),) = update(layers, {"a": file("1", EXECUTABLE)}, {"a": "3"}).adds
        assert (entry.mode, entry.uid) == (0o640, 33)


def test_a_new_directory_belongs_to_the_mapping_with_the_nearest_target() -> None:
    owners = (Owner(to=b"app", uid=1, gid=1), Owner(to=b"app/in", uid=2, gid=2))
    found = update([archive(at("k"))], {"k": ""}, {"k": "", "app/in/d/f": file("", mapping=0), "app/e/f": file("", mapping=1)}, owners)
    assert {entry.path: entry.uid for entry, source in found.adds if source is None} == {b"app": 1, b"app/in": 2, b"app/in/d": 2, b"app/e": 1}
    assert {entry.path: entry.uid for entry, source in found.adds if source is not None} == {b"app/in/d/f": 1, b"app/e/f": 2}


def test_a_path_that_goes_from_one_mapping_to_another_changes_its_owner() -> None:
    owners = (Owner(to=b"", uid=1, gid=1), Owner(to=b"", uid=2, gid=2))
    found = update([archive(at("a", "1", uid=1))], {"a": file("1", mapping=0)}, {"a": file("1", mapping=1)}, owners)
    assert [(entry.path, entry.uid) for entry, _ in found.adds] == [(b"a", 2)]


def test_of_two_files_that_land_in_one_place_the_later_counts() -> None:
    below = StackedIndex([FileIndex(DiffId("sha256:0"), [directory("usr"), pointing("bin", "usr")])])
    assert landed(placed({"usr/f": "1", "bin/f": "2"}), below) == placed({"usr/f": "2"})


@pytest.mark.parametrize("sources", [{"d": "1", "d/f": "2"}, {"usr": "1", "bin/f": "2"}])
def test_a_file_where_another_needs_a_directory_is_refused(sources: Sources) -> None:
    below = StackedIndex([FileIndex(DiffId("sha256:0"), [directory("usr"), pointing("bin", "usr")])])
    with pytest.raises(PathBlocked, match="would be inside of it"):
        landed(placed(sources), below)
