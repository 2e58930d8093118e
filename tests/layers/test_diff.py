"""The upper directories of real overlays, after real commands."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Collection
from pathlib import Path

import pytest

from layerwright.errors import BugError
from layerwright.layers.diff import read_upper
from layerwright.layers.entry import CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.index import FileIndex
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import LayerSummary, UnwritableEntry
from layerwright.layers.tree import tree_matches
from layerwright.layers.unpack import unpack
from tests.layers.images import shown_by
from tests.layers.tars import in_overlay, index_of, new_file, unpack_stack, write

pytestmark = pytest.mark.needs_root

TIME = 1_600_000_000 * 10**9
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def a_base() -> bytes:
    tar, _ = write(
        Entry(b"bin", DIRECTORY, 0o755, mtime_ns=TIME),
        new_file("bin/tool", b"tool", mode=0o4755, uid=3, mtime_ns=TIME, xattrs=((b"security.capability", CAPABILITY), (b"user.a", b"1"))),
        Entry(b"bin/tool2", HARDLINK, 0o4755, 3, 0, TIME, link=b"bin/tool"),
        Entry(b"d", DIRECTORY, 0o1777, 1, 2, TIME, xattrs=((b"user.d", b"1"),)),
        Entry(b"d/e", DIRECTORY, 0o755, mtime_ns=TIME),
        new_file("d/e/x", b"x" * 5000, mtime_ns=TIME),
        new_file("d/e/y", b"y", mtime_ns=TIME),
        Entry(b"d/link", SYMLINK, 0o755, 4, 5, TIME, link=b"e/x"),
        Entry(b"etc", DIRECTORY, 0o755, mtime_ns=TIME),
        new_file("etc/hosts", b"", mtime_ns=TIME),
        Entry(b"fifo", FIFO, 0o600, mtime_ns=TIME),
        Entry(b"null", CHAR, 0o666, device=(1, 3), mtime_ns=TIME),
        new_file("plain", b"plain", mtime_ns=TIME),
    )
    return tar


class Stage:
    """A stage on `layers`: runs a script in the overlay, reads the upper, writes the layer."""

    def __init__(self, directory: Path, *layers: bytes) -> None:
        self.directory = directory
        self.upper = directory / "upper"
        self.trees, self.below = unpack_stack(layers, directory)
        self.notices: list[str] = []

    def run(self, script: str, created_mount_points: Collection[bytes] = ()) -> list[tuple[bytes, str]]:
        in_overlay(self.trees, self.upper, script)
        self.made = read_upper(str(self.upper), self.below, created_mount_points=created_mount_points, notice=self.notices.append)
        return [(new.entry.path, new.entry.kind) for new in self.made]

    def layer(self) -> tuple[bytes, LayerSummary]:
        """The layer's tar, after the upper was seen to be its tree."""
        tar, summary = write(*self.made)
        assert tree_matches(str(self.upper), FileIndex(summary.diff_id, summary.entries)) is None
        return tar, summary

    def check(self) -> None:
        """What the overlay shows is what the layers say, unpacked anew too."""
        shown = in_overlay([*self.trees, str(self.upper)], self.directory / "again", LISTING)
        tar, summary = self.layer()
        view = self.below.on_top(FileIndex(summary.diff_id, summary.entries))
        assert sorted(line.split(" ", 1)[0] for line in shown.splitlines()) == sorted("./" + entry.path.decode() for entry in view.walk() if entry.path)
        fresh = self.directory / "fresh"
        fresh.mkdir()
        unpack(io.BytesIO(tar), str(fresh), below=self.below, lower_trees=self.trees[::-1])
        assert in_overlay([*self.trees, str(fresh)], self.directory / "anew", LISTING) == shown


LISTING = "find . -mindepth 1 -printf '%p %y %m %U %G %T@ %l ' \\( -type f -exec sha256sum {} \\; -o -printf '\\n' \\) | sort"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, a_base())


def test_a_command_that_does_nothing_makes_an_empty_layer(stage: Stage) -> None:
    assert stage.run("true") == []
    assert stage.layer()[1].size == 1024


def test_changes_come_in_the_order_of_layers(stage: Stage) -> None:
    made = stage.run(
        "echo new > d/e/new; rm d/e/x; rm -r bin; mkdir bin; echo > bin/tool; mkdir -p z/b z/a; ln -s /x z/a-; mknod z/zero c 1 5; mkfifo z/fifo; rm plain; echo > Z"
    )
    assert made == [
        (b"plain", WHITEOUT),
        (b"Z", FILE),
        (b"bin", DIRECTORY),
        (b"bin", OPAQUE),
        (b"bin/tool", FILE),
        (b"d", DIRECTORY),
        (b"d/e", DIRECTORY),
        (b"d/e/x", WHITEOUT),
        (b"d/e/new", FILE),
        (b"z", DIRECTORY),
        (b"z/a", DIRECTORY),
        (b"z/a-", SYMLINK),
        (b"z/b", DIRECTORY),
        (b"z/fifo", FIFO),
        (b"z/zero", CHAR),
    ]
    assert stage.made[-1].entry.device == (1, 5)
    stage.check()


@pytest.mark.parametrize(
    "script",
    [
        "chown -R 3:0 bin/tool; setcap cap_net_bind_service=ep bin/tool; chmod 4755 bin/tool",
        "chmod -R u+rw d plain etc",
        "chown -h 4:5 d/link; chown 0 fifo null; chmod 666 null",
        "mv plain p; cp -a p plain; rm p; touch -d @1600000000 plain",
        "cat plain > /tmp/plain.$$; cat /tmp/plain.$$ > plain; rm /tmp/plain.$$; touch -d @1600000000 plain",
        "mkdir d/e/new; rmdir d/e/new; touch -d @1600000000 d/e",
        "setfattr -n user.d -v 1 d; setfattr -n user.new -v 1 d; setfattr -x user.new d",
    ],
)
def test_what_ends_as_it_was_is_left_out_and_removed(stage: Stage, script: str) -> None:
    assert stage.run(script) == []
    assert os.listdir(stage.upper) == []


@pytest.mark.parametrize(
    ("script", "changed"),
    [
        ("printf plaiN > plain; touch -d @1600000000 plain", b"plain"),
        ("touch plain", b"plain"),
        ("touch -d @1600000000.5 plain", b"plain"),
        ("chmod 600 plain", b"plain"),
        ("chown 9 plain", b"plain"),
        ("setfattr -n user.a -v 2 plain", b"plain"),
        ("setcap -r bin/tool", b"bin/tool"),
        ("touch -h d/link", b"d/link"),
        ("ln -sfn e/y d/link; touch -h -d @1600000000 d/link; chown -h 4:5 d/link", b"d/link"),
        ("chmod 700 d/e", b"d/e"),
        ("touch d/e", b"d/e"),
        ("rm fifo; echo > fifo", b"fifo"),
        ("rm null; mknod null c 1 5; chmod 666 null; touch -d @1600000000 null", b"null"),
    ],
)
def test_any_other_change_is_kept_with_its_parents(stage: Stage, script: str, changed: bytes) -> None:
    parents = [changed[:at] for at in range(len(changed)) if changed[at : at + 1] == b"/"]
    assert [path for path, _ in stage.run(script)] == [*parents, changed]
    stage.check()


def test_the_times_of_parents_that_stay_are_not_disturbed_by_what_is_left_out(stage: Stage) -> None:
    stage.run("chmod -R u+rw d; chmod 600 d/e/x")
    assert {new.entry.path: new.entry.mtime_ns for new in stage.made} == {b"d": TIME, b"d/e": TIME, b"d/e/x": TIME}
    assert not (stage.upper / "d/e/y").exists()
    stage.check()


def test_times_are_cut_to_seconds_in_the_tree_too(stage: Stage) -> None:
    stage.run("mkdir n; echo > n/f; touch -d @1700000000.987654321 n/f n")
    assert (stage.upper / "n/f").stat().st_mtime_ns == 1_700_000_000 * 10**9
    assert (stage.upper / "n").stat().st_mtime_ns == 1_700_000_000 * 10**9
    stage.check()


def test_links_made_by_the_stage_stay_links(stage: Stage) -> None:
    stage.run("ln d/e/y d/e/z; ln d/e/y a; echo 1 > n1; ln n1 n2; ln n1 d/e/n3; cp --preserve=all bin/tool bin/tool3; ln -P d/link d/link2")
    links = {new.entry.path: new.entry.link for new in stage.made if new.entry.kind == HARDLINK}
    assert links == {b"d/e/y": b"a", b"d/e/z": b"a", b"d/link2": b"d/link", b"n1": b"d/e/n3", b"n2": b"d/e/n3"}
    stage.check()


def test_a_hard_link_below_that_is_only_touched_is_left_out(stage: Stage) -> None:
    assert stage.run("chown 3 bin/tool2; chmod 4755 bin/tool2; setcap cap_net_bind_service=ep bin/tool2") == []
    stage.run("chown 9 bin/tool2")
    assert [new.entry.path for new in stage.made] == [b"bin", b"bin/tool2"]
    stage.check()


def test_what_an_opaque_directory_holds_is_compared_with_nothing(stage: Stage) -> None:
    made = stage.run("cp -a d saved; rm -r d; mv saved d")
    assert made == [(b"d", DIRECTORY), (b"d", OPAQUE), (b"d/e", DIRECTORY), (b"d/e/x", FILE), (b"d/e/y", FILE), (b"d/link", SYMLINK)]
    stage.check()


def test_kinds_change_into_each_other(stage: Stage) -> None:
    made = stage.run("rm -r d; echo > d; rm plain; mkdir plain; echo > plain/x; rm bin/tool; ln -s x bin/tool; rm -r etc; ln -s d etc")
    assert made == [(b"bin", DIRECTORY), (b"bin/tool", SYMLINK), (b"d", FILE), (b"etc", SYMLINK), (b"plain", DIRECTORY), (b"plain/x", FILE)]
    stage.check()


def test_a_directory_in_place_of_a_removed_empty_one_needs_no_mark(tmp_path: Path) -> None:
    base, _ = write(Entry(b"empty", DIRECTORY, 0o755, mtime_ns=TIME))
    stage = Stage(tmp_path, base)
    assert stage.run("rmdir empty; mkdir empty; echo > empty/x") == [(b"empty", DIRECTORY), (b"empty/x", FILE)]
    assert os.listxattr(stage.upper / "empty") == []
    stage.check()


def test_sockets_are_skipped_with_a_notice(stage: Stage) -> None:
    code = "import socket; socket.socket(socket.AF_UNIX).bind('d/e/socket')"
    assert stage.run(f'python3 -c "{code}"; touch -d @1600000000 d/e') == []
    assert stage.notices == ["/d/e/socket is a socket, which no layer can hold: left out"]
    assert os.listdir(stage.upper) == []


def test_sparse_files_are_files(stage: Stage) -> None:
    stage.run("truncate -s 3M sparse; echo end >> sparse")
    tar, summary = stage.layer()
    (entry,) = summary.entries
    assert tar[entry.offset : entry.offset + entry.size] == bytes(3 << 20) + b"end\n"


def test_mount_points_made_for_the_run_are_removed(stage: Stage) -> None:
    points = [b"etc/resolv.conf", b"proc", b"run", b"run/secrets", b"run/secrets/a", b"etc/hosts", b"d", b"work"]
    made = stage.run("echo -n > etc/resolv.conf; mkdir -p proc run/secrets work; touch run/secrets/a; echo own > work/file; touch etc", points)
    assert made == [(b"work", DIRECTORY), (b"work/file", FILE)]
    assert sorted(os.listdir(stage.upper)) == ["work"]
    assert (stage.upper / "work").stat().st_mtime_ns == stage.made[0].entry.mtime_ns
    stage.check()


def test_a_mount_point_that_is_a_symlink_by_now_leads_nowhere(stage: Stage, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "empty").touch()
    stage.run(f"ln -s {victim} trap", [b"trap/empty", b"trap"])
    assert (victim / "empty").exists()
    assert [new.entry.path for new in stage.made] == [b"trap"]


def test_the_root_enters_the_layer_only_when_it_was_changed(stage: Stage) -> None:
    assert stage.run("touch .") == []
    assert stage.run("chmod 700 .; chown 3 .") == [(b"", DIRECTORY)]
    assert stage.made[0].entry[2:5] == (0o700, 3, 0)


def test_a_file_named_like_a_whiteout_is_an_error_naming_it(stage: Stage) -> None:
    stage.run("echo > d/.wh.x")
    with pytest.raises(UnwritableEntry, match=r"/d/\.wh\.x"):
        stage.layer()


def test_an_overlay_with_redirections_is_our_own_fault(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "trusted.overlay.redirect", b"/x")
    with pytest.raises(BugError):
        read_upper(str(tmp_path), StackedIndex(()))


def test_marks_of_a_user_namespace_are_read_only_there(tmp_path: Path) -> None:
    below = StackedIndex([index_of(write(Entry(b"d", DIRECTORY, 0o755), new_file("d/x"))[0])])
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    upper.chmod(0o755)
    os.setxattr(upper / "d", "user.overlay.opaque", b"y")
    assert [new.entry.kind for new in read_upper(str(upper), below)] == [DIRECTORY]
    assert [new.entry.kind for new in read_upper(str(upper), below, user_xattr=True)] == [DIRECTORY, OPAQUE]


def test_a_user_namespace_shows_no_trusted_attributes_and_they_are_no_change(tmp_path: Path) -> None:
    trusted = ((b"trusted.t", b"1"),)
    tar = write(Entry(b"d", DIRECTORY, 0o755, xattrs=trusted), Entry(b"d/p", FIFO, 0o640, xattrs=trusted))[0]
    below = StackedIndex([index_of(tar)])
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    os.mkfifo(upper / "d/p")
    for path, mode in (("d/p", 0o640), ("d", 0o755), ("", 0o755)):
        (upper / path).chmod(mode)
        os.utime(upper / path, ns=(0, 0))
    assert read_upper(str(upper), below, user_xattr=True) == []


def test_stages_build_on_each_other(tmp_path: Path) -> None:
    """Random commands, stage after stage: each layer, unpacked, shows what the commands left."""
    layers = [a_base()]
    rng = random.Random(7)
    for number in range(4):
        directory = tmp_path / str(number)
        directory.mkdir()
        stage = Stage(directory, *layers)
        stage.run("\n".join(random_command(rng) for _ in range(25)))
        stage.check()
        layers.append(stage.layer()[0])


def random_command(rng: random.Random) -> str:
    def path() -> str:
        return "/".join(rng.choice(["d", "e", "bin", "n"]) for _ in range(rng.randint(0, 2))) + rng.choice(["/x", "/y", "/tool", "/d", "/e"])

    a, b = "./" + path().lstrip("/"), "./" + path().lstrip("/")
    return (
        rng.choice(
            [
                f"mkdir -p {a}",
                f"rm -rf {a}",
                f"echo {rng.randint(0, 9)} > {a}",
                f"ln -s {b} {a}",
                f"ln -P {b} {a}",
                f"mv -T {a} {b}",
                f"cp -a {a} {b}",
                f"chmod {rng.choice(['700', '644', '1777'])} {a}",
                f"chown -R {rng.randint(0, 2)} {a}",
                f"touch {a}",
            ]
        )
        + " 2>/dev/null || true"
    )


@pytest.mark.parametrize("tool", ["umoci", "podman"])
def test_other_tools_see_the_same_in_our_layers(tmp_path: Path, tool: str) -> None:
    """File, directory and symlink in each other's place, removals, opaque directories and links."""
    stage = Stage(tmp_path, a_base())
    stage.run(
        "rm -r d; echo > d; rm plain; mkdir plain; echo > plain/x; rm bin/tool; ln -s x bin/tool; rm -r etc; ln -s d etc; rm fifo;"
        "mkdir -p keep/a; echo 1 > keep/a/имя; ln keep/a/имя keep/link; echo long > keep/$(printf %0150d 0)"
    )
    layers = [a_base(), stage.layer()[0]]
    (tmp_path / "next").mkdir()
    following = Stage(tmp_path / "next", *layers)
    following.run("rm -r keep; mkdir keep; echo 2 > keep/b; rm d; mkdir d; echo > d/again; rm -r plain")
    layers.append(following.layer()[0])
    shown = in_overlay([*following.trees, str(following.upper)], tmp_path / "again", FACTS)
    assert shown_by(tool, layers, tmp_path, FACTS) == shown


FACTS = "find . -mindepth 1 ! -path './proc*' ! -path './sys*' ! -path './dev*' ! -path './run*' -printf '%p %y %m %U %G %Ts %l\\n' | sort"
