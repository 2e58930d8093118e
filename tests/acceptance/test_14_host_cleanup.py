"""`layerwright host`: the store of a host is cut to a limit while builds run, purged, checked and healed; and cleaned up by itself after a build."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.commandline import CommandLine
from tests.support.exported import read_layout
from tests.support.processes import await_that, start
from tests.support.project import Project
from tests.support.unprivileged import Unprivileged
from tools.base_image import make_busybox_tar, write_layout

IMAGES = 200
PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
NAMES = [f"i{number:03d}" for number in range(IMAGES)]


def load_base(lw: CommandLine, place: Path) -> str:
    """A base image that only the store has; how werf.yaml writes it, by its digest, so that no registry is asked."""
    write_layout(place, [make_busybox_tar()], {"Cmd": ["sh"], "Env": [PATH]})
    digest = lw("image", "load", str(place), "--name", "base.test/busybox:1").stdout.split()[2]
    return f"base.test/busybox:1@{digest}"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store with 200 images, each with a file of its own, and the project. The hundred that was built first was used last."""
    place = tmp_path_factory.mktemp("many")
    project = Project(place / "project")
    lw = CommandLine(home=place / "home", user_home=place, directory=project.path)
    base = load_base(lw, place / "base")
    content = random.Random(14)
    for name in NAMES:
        project.write(f"files/{name}", content.randbytes(20_000))
    project.werf("---\n".join(f"image: {name}\nfrom: {base}\ngit: [{{add: /files/{name}, to: /file}}]\n" for name in NAMES), project="many")
    project.commit()
    lw("build", "-q")
    lw("build", "-q", "i0??")
    return lw.home, project.path


@pytest.fixture
def store(many: tuple[Path, Path], tmp_path: Path) -> CommandLine:
    """The command line on a copy of that store."""
    home, project = many
    subprocess.run(("cp", "--archive", home, tmp_path / "home"), check=True)
    (tmp_path / "user").mkdir()
    return CommandLine(home=tmp_path / "home", user_home=tmp_path / "user", directory=project)


def size_of(home: Path) -> int:
    return int(subprocess.run(("du", "--summarize", "--block-size=1", home), check=True, capture_output=True, text=True).stdout.split()[0])


def limited(size: int) -> tuple[str, ...]:
    return ("--allowed-local-cache-volume-usage", f"{size}B", "--allowed-local-cache-volume-usage-margin", "0B")


def cleaned(lw: CommandLine, *arguments: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(lw("host", "cleanup", "--json", *arguments).stdout)
    return shown


def names_of(entries: list[dict[str, Any]], kind: str = "image") -> set[str]:
    return {one["image"].partition("/")[2] for one in entries if one["kind"] == kind}


@contextmanager
def blocked_build(lw: CommandLine, project: Project, base: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], None]]]:
    """A build whose command waits in its container, over an image with a layer of its own, until it is let go."""
    project.write("werf-giterminism.yaml", "giterminismConfigVersion: 1\nconfig: {stapel: {mount: {allowBuildDir: true}}}\n")
    project.write("source", "source\n")
    project.werf(f"""
        image: app
        from: {base}
        git: [{{add: /source, to: /source}}]
        mount: [{{from: build_dir, to: /cache}}]
        shell:
          beforeInstall: echo first > /first
          install: mkfifo /cache/gate; read -r word < /cache/gate; cat /first /source > /all; echo "$word" >> /all
        """)
    project.commit()
    with (lw.user_home / "build.log").open("wb") as log:
        build = start(lw, "build", "--dir", str(project.path), stdout=log, stderr=log)
    try:
        await_that(lambda: list(lw.home.glob("mounts/*/*/gate")) or build.poll() is not None)
        assert build.poll() is None, (lw.user_home / "build.log").read_text()
        (gate,) = lw.home.glob("mounts/*/*/gate")
        yield build, lambda: gate.write_text("word\n") and None
    finally:
        build.kill()
        build.wait()


@pytest.mark.needs_runtime
def test_a_store_of_200_images_is_cut_to_half_while_a_build_runs(store: CommandLine, project: Project) -> None:
    """What was used least recently goes, what the build uses stays, and the build ends right."""
    base = (store.directory / "werf.yaml").read_text().partition("from: ")[2].split()[0]
    before = size_of(store.home)
    assert len(list(store.home.glob("records/image/*/*.json"))) == IMAGES
    with blocked_build(store, project, base) as (build, let_go):
        half = before // 2
        done = cleaned(store, *limited(half))
        assert size_of(store.home) <= half
        assert done["short_bytes"] == 0
        gone = names_of(done["removed"])
        assert 80 < len(gone) < IMAGES - 10
        assert all(name >= "i100" for name in gone) or gone >= set(NAMES[100:]), "the first hundred was used last"
        assert {one["reason"] for one in done["kept"] if one["image"] == "test/app"} == {f"in use by process {build.pid}"}
        let_go()
        assert build.wait() == 0, (store.user_home / "build.log").read_text()
    log = (store.user_home / "build.log").read_text()
    assert "made again" not in log
    assert store("run", "-q", "app", "--", "cat", "/all", directory=project.path).stdout == "first\nsource\nword\n"
    kept = sorted(set(NAMES) - gone)
    again = store("build", *kept[:3], *sorted(gone)[:2]).stdout
    for name in kept[:3]:
        assert f"Building stage {name}/" not in again
    for name in sorted(gone)[:2]:
        assert f"Building stage {name}/gitArchive" in again
    store("export", kept[0], "--to", f"oci:{store.user_home / 'kept'}")
    assert read_layout(store.user_home / "kept").contents["file"] == (store.directory / "files" / kept[0]).read_bytes()
    assert store("host", "check").code == 0


def test_a_dry_run_removes_nothing_and_gives_reasons(store: CommandLine) -> None:
    before = sorted(str(path) for path in store.home.rglob("*") if "work" not in path.parts)
    shown = cleaned(store, "--dry-run", *limited(size_of(store.home) * 2 // 3))
    assert sorted(str(path) for path in store.home.rglob("*") if "work" not in path.parts and path.name != "gate") == [
        one for one in before if not one.endswith("/gate")
    ]
    assert shown["dry_run"]
    assert shown["freed_bytes"] >= shown["to_free_bytes"] > 0
    assert {one["reason"] for one in shown["removed"]} == {"least recently used"}
    images = [one["image"] for one in shown["removed"] if one["kind"] == "image"]
    assert images
    assert all(one >= "many/i100" for one in images)
    assert all(one["size_bytes"] > 0 and one["last_use"].startswith("20") for one in shown["removed"])
    reasons = {one["kind"]: one["reason"] for one in shown["kept"]}
    assert "loaded from a file" in reasons["reference"]
    assert "more recently" in reasons["image"]
    table = store("host", "cleanup", "--dry-run", "--log-verbose", *limited(size_of(store.home) * 2 // 3)).stdout
    assert "least recently used" in table
    assert "would be freed" in table
    assert "loaded from a file" in table
    done = cleaned(store, *limited(size_of(store.home) * 2 // 3))
    assert [one["name"] for one in done["removed"]] == [one["name"] for one in shown["removed"]], "what was said is what is done"


def test_under_the_limit_only_what_nothing_needs_goes(store: CommandLine) -> None:
    blob = store.home / "blobs" / "sha256" / "ab" / ("ab" * 32)
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(b"nothing names this")
    dead = store.home / "work" / "0123456789abcdef"
    dead.mkdir(parents=True)
    (dead / "half").write_bytes(b"written")
    done = cleaned(store, *limited(size_of(store.home) * 2))
    assert {one["kind"]: one["reason"] for one in done["removed"]} == {"blob": "nothing needs it", "leftover": "left behind by a process that died"}
    assert not blob.exists()
    assert not dead.exists()
    assert not done["over"]
    assert cleaned(store, *limited(size_of(store.home) * 2))["removed"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--allowed-local-cache-volume-usage", "many"), "neither a percentage nor a size"),
        (("--allowed-local-cache-volume-usage", "101"), "more than 100"),
        (("--allowed-local-cache-volume-usage", "10QB"), "no unit"),
        (("--allowed-local-cache-volume-usage", "10GB", "--allowed-local-cache-volume-usage-margin", "5"), "both as percentages or both as sizes"),
        (("--allowed-backend-storage-volume-usage", "-3"), "neither"),
    ],
)
def test_a_wrong_limit_is_a_usage_error(lw: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    for command in (("host", "cleanup"), ("build",)):
        assert said in lw(*command, *arguments, code=2).stderr


def test_werfs_variables_are_honoured(store: CommandLine) -> None:
    half = str(size_of(store.home) // 2)
    env = {"WERF_ALLOWED_BACKEND_STORAGE_VOLUME_USAGE": f"{half}B", "WERF_ALLOWED_BACKEND_STORAGE_VOLUME_USAGE_MARGIN": "0B", "WERF_DRY_RUN": "1"}
    shown = json.loads(store("host", "cleanup", "--json", env=env).stdout)
    assert shown["limit"] == {"unit": "bytes", "allowed": float(half), "target": int(half)}
    assert shown["dry_run"]
    assert shown["freed_bytes"] > 0


# By itself, after a build.


def test_a_build_cleans_up_after_itself_when_over_the_limit(lw: CommandLine, project: Project, tmp_path: Path) -> None:
    base = load_base(lw, tmp_path / "base")
    project.werf(f"image: app\nfrom: {base}\ngit: [{{add: /file, to: /file}}]\n")

    def commit(number: int) -> None:
        project.write("file", random.Random(number).randbytes(200_000))
        project.commit()

    commit(1)
    lw("build", "-q")
    size = size_of(lw.home)
    for number in (2, 3):
        commit(number)
        ran = lw("build", "-q", "--disable-auto-host-cleanup", *limited(size))
        assert ran.stderr == ""
    assert len(list(lw.home.glob("records/image/*/*.json"))) == 3
    commit(4)
    ran = lw("build", *limited(size + 300_000))
    assert "Host clean-up: " in ran.stderr
    assert size_of(lw.home) <= size + 300_000
    assert "Building" not in lw("build").stdout, "what was just built is still there"
    commit(5)
    ran = lw("build", *limited(1000))
    assert "is over the limit by" in ran.stderr, "what a build has just made it does not take away"
    assert "Building" not in lw("build", *limited(1000)).stdout
    assert lw("build", *limited(1000)).stderr == "", "in vain once, not again after each build"


# Purge.


@pytest.mark.needs_runtime
def test_purge_removes_all_of_a_store_but_not_while_a_build_runs(lw: CommandLine, project: Project, tmp_path: Path) -> None:
    base = load_base(lw, tmp_path / "base")
    with blocked_build(lw, project, base) as (build, let_go):
        ran = lw("host", "purge", code=1)
        assert str(build.pid) in ran.stderr
        assert "would be freed" in lw("host", "purge", "--dry-run", "--force").stdout
        let_go()
        assert build.wait() == 0
    assert lw("run", "-q", "app", "--", "cat", "/all").stdout == "first\nsource\nword\n"
    (lw.home / "mine").write_text("not layerwright's")
    assert "freed" in lw("host", "purge").stdout
    assert os.listdir(lw.home) == ["mine"]
    load_base(lw, tmp_path / "base")
    (lw.home / "mine").unlink()
    lw("host", "purge")
    assert not lw.home.exists()
    assert "nothing to do" in lw("host", "purge").stderr


def test_purge_of_a_project_leaves_what_is_of_others(lw: CommandLine, project: Project, new_project: Callable[[str], Project], tmp_path: Path) -> None:
    base = load_base(lw, tmp_path / "base")
    other = new_project("other")
    for one, name in ((project, "first"), (other, "second")):
        one.write("file", f"of {name}\n" * 1000)
        one.werf(f"image: app\nfrom: {base}\ngit: [{{add: /file, to: /{name}}}]\n", project=name)
        one.commit()
        lw("build", "-q", directory=one.path)
    shown = json.loads(lw("host", "purge", "-N", "first", "--dry-run", "--json").stdout)
    assert {one["image"] for one in shown["removed"]} == {"first/app"}
    lw("host", "purge", "--project-name", "first")
    assert "Building" not in lw("build", directory=other.path).stdout
    assert "Building stage app/gitArchive" in lw("build").stdout
    assert lw("host", "check").code == 0


# Check.


def flip(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def largest(paths: Iterator[Path]) -> Path:
    return max((path for path in paths if path.is_file() and not path.is_symlink()), key=lambda path: path.stat().st_size)


def change_in_place(path: Path) -> None:
    """Other bytes, with the size, the mode and the times of before."""
    found = path.stat()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[::-1])
    path.chmod(found.st_mode & 0o7777)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.needs_runtime
def test_check_finds_and_heals(lw: CommandLine, project: Project, tmp_path: Path) -> None:
    base = load_base(lw, tmp_path / "base")
    project.write("source", "source\n" * 500)
    project.werf(f"image: app\nfrom: {base}\ngit: [{{add: /source, to: /source}}]\nshell: {{install: 'echo made > /made; cat /source > /copy'}}\n")
    project.commit()
    lw("build", "-q")
    assert "All is whole" in lw("host", "check").stdout
    show = ("run", "-q", "app", "--", "sh", "-c", "cat /made /copy | md5sum; md5sum < /bin/busybox")
    wanted = lw(*show).stdout
    lw("export", "-q", "app", "--to", f"oci:{tmp_path / 'packed'}")
    groups: list[dict[str, Callable[[Path], object]]] = [
        {"blob": lambda home: flip(largest(home.glob("blobs/sha256/*/*")))},
        {
            "tree": lambda home: change_in_place(next(home.glob("trees.*/*/made"))),
            "memo": lambda home: flip(next(home.glob("memo/*.json"))),
        },
        {
            "tree": lambda home: change_in_place(next(home.glob("trees.*/*/usr/bin/busybox"))),
            "index": lambda home: os.truncate(index_of(home, b"source"), 40),
        },
        {
            "tree": lambda home: next(home.glob("trees.*/*/copy")).unlink(),
            "record": lambda home: next(home.glob("records/image/*/*.json")).write_text("garbage"),
            "reference": lambda home: flip(next(home.glob("images/*.json"))),
            "holding": lambda home: flip(next(home.glob("layers/*.json"))),
        },
    ]
    for number, damages in enumerate(groups):
        one = lw.with_home(tmp_path / f"damaged {number}")
        subprocess.run(("cp", "--archive", lw.home, one.home), check=True)
        for damage in damages.values():
            damage(one.home)
        listed = json.loads(one("host", "check", "--dry-run", "--json", code=1).stdout)
        assert damages.keys() <= {found["kind"] for found in listed["damaged"]}, listed
        assert all(found["means"] and not found["done"] for found in listed["damaged"])
        healed = one("host", "check", code=1).stdout
        assert all(f"damaged: {kind} " in healed for kind in damages)
        assert ("made again from the layer" in healed and "unpacked again" in healed) == ("index" in damages)
        assert one("host", "check").code == 0, healed
        if damages.keys() & {"blob", "reference"}:
            load_base(one, tmp_path / "base")
        assert one(*show).stdout == wanted, healed
        shutil.rmtree(one.home)


def index_of(home: Path, name: bytes) -> Path:
    """The part with the files of the layer whose tar is in the store and holds a file of this name."""
    (blob,) = [path for path in home.glob("blobs/sha256/*/*") if path.read_bytes()[: len(name) + 1] == name + b"\0"]
    return home / "indexes" / f"{blob.name}.files"


# Killed.


def test_killed_at_any_moment_a_build_goes_on(store: CommandLine) -> None:
    """Kills spread over the length of a clean-up; after each, what is named is whole."""
    before = size_of(store.home)
    moments = random.Random(5)
    for number in range(8):
        cleanup = start(store, "host", "cleanup", *limited(before * (9 - number) // 12))
        started = time.monotonic()
        until = moments.uniform(0.15, 0.6)
        while cleanup.poll() is None and time.monotonic() - started < until:
            time.sleep(0.005)
        cleanup.kill()
        cleanup.wait()
        assert json.loads(store("host", "check", "--dry-run", "--json").stdout)["damaged"] == []
    built = store("build", "i000", "i199")
    store("export", "-q", "i000", "--to", f"oci:{store.user_home / 'out'}")
    assert read_layout(store.user_home / "out").contents["file"] == (store.directory / "files" / "i000").read_bytes()
    assert list((store.home / "work").iterdir()) == [], built
    cleaned(store, *limited(before // 4))
    assert size_of(store.home) <= max(before // 4, size_of(store.home / "blobs") + 1_000_000)


@pytest.mark.needs_runtime
def test_what_stands_on_a_base_that_was_lost_follows_its_new_edition(lw: CommandLine, project: Project, tmp_path: Path) -> None:
    """The derived image is found by its inputs, but the base it holds is not the one that there is now."""
    base = load_base(lw, tmp_path / "base")
    project.werf(
        f"image: base\nfrom: {base}\nshell: {{install: 'cat /proc/sys/kernel/random/uuid > /once'}}\n---\nimage: app\nfrom: base\ndocker: {{ENV: {{A: b}}}}\n"
    )
    project.commit()
    lw("build", "-q")
    show = ("--", "cat", "/once")
    first = lw("run", "-q", "app", *show).stdout
    assert first == lw("run", "-q", "base", *show).stdout
    for record in lw.home.glob("records/*/*/*.json"):
        if json.loads(record.read_text().splitlines()[0])["image"] == "base":
            record.write_text("garbage")
    assert "record" in lw("host", "check", code=1).stdout
    lw("build", "-q")
    again = lw("run", "-q", "base", *show).stdout
    assert again != first
    assert lw("run", "-q", "app", *show).stdout == again
    assert "Building" not in lw("build").stdout


# Without root.


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_a_user_cleans_up_files_that_belong_to_mapped_ids(project: Project, tmp_path: Path) -> None:
    """Unpacked layers hold directories that the user himself may neither read nor remove."""
    compiled = tmp_path / "compiled"
    user = Unprivileged(place=tmp_path / "his").settle()
    user.own(compiled)
    (tmp_path / "base").mkdir()
    lw = CommandLine(
        home=user.home / "store",
        user_home=user.home,
        directory=project.path,
        more={"PYTHONPYCACHEPREFIX": str(compiled)},
        prefix=user.prefix([tmp_path, compiled]),
    )
    base = load_base(lw, tmp_path / "base")
    close = "mkdir -m 700 /closed; head -c 100000 /dev/urandom > /closed/large; chown -R 33:33 /closed"
    project.werf(f"image: app\nfrom: {base}\nshell: {{install: '{close}'}}\n")
    project.commit()
    lw("build", "-q")
    assert "All is whole" in lw("host", "check").stdout
    (large,) = lw.home.glob("trees.*/*/closed/large")
    size = sum(path.lstat().st_blocks * 512 for path in [large.parent.parent, *large.parent.parent.rglob("*")])
    shown = cleaned(lw, "--dry-run", *limited(0))
    assert any(f"trees.{part}" in name for one in shown["removed"] for name in one["with"] for part in ["user"])
    assert max(one["size_bytes"] for one in shown["removed"]) >= size
    change_in_place(large)
    assert "closed/large has other contents" in lw("host", "check", code=1).stdout
    assert lw("host", "check").code == 0
    lw("build", "-q")
    assert lw("run", "-q", "app", "--", "sh", "-c", "wc -c < /closed/large").stdout.split() == ["100000"]
    cleaned(lw, *limited(0))
    assert not list(lw.home.glob("trees.*/*/closed"))
    lw("build", "-q")
    lw("host", "purge")
    assert not lw.home.exists()
