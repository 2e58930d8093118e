"""Who is trusted: what a builder publishes where he may write is never taken by those who do not read there; and nobody's credentials are shown or kept."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.base_images import push_layout
from tests.support.commandline import CommandLine, Ran
from tests.support.layouts import tar_of
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import Requests, names_in
from tests.support.token_server import TokenServer
from tools.base_image import make_busybox_tar, write_layout

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

TEAM, GUEST = ("team", "the team's secret 4711"), ("guest", "the guest's secret 0815")
BASE = "base/system:1"
WERF = """
image: app
from: {base}
git:
- add: /src
  to: /app
  stageDependencies:
    install: deps.txt
shell:
  install:
  - cat /planted /app/deps.txt > /installed 2>/dev/null || cp /app/deps.txt /installed
imageSpec:
  config:
    cmd: [cat, /app/hello.txt]
---
image: web
from: {base}
import:
- image: app
  add: /installed
  to: /taken
  after: install
"""


def login(lw: CommandLine, user_home: Path, who: tuple[str, str], address: str) -> CommandLine:
    """The command line of somebody else, with a store and logins of his own."""
    (user_home / ".docker").mkdir(parents=True)
    auths = {address: {"auth": basic(who)}}
    (user_home / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
    return CommandLine(home=user_home / "store", user_home=user_home, directory=lw.directory)


def basic(who: tuple[str, str]) -> str:
    return base64.b64encode(":".join(who).encode()).decode()


def push_base(registry: RegistryServer, directory: Path, *planted: str) -> str:
    """The base image, with a file that somebody planted in it or without."""
    layers = [make_busybox_tar(), *(tar_of({"planted": text.encode()}) for text in planted)]
    write_layout(directory, layers, {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]})
    return push_layout(registry, directory, BASE)


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    """Of a registry where the guest may read what the team has, and write only below guest/."""
    rights = {GUEST[0]: {"team": "pull", "guest": "pull,push"}, TEAM[0]: {"team": "pull,push"}}
    with TokenServer(tmp_path / "tokens", users=dict((TEAM, GUEST)), rights=rights) as server:
        yield server


@pytest.fixture
def guarded(tokens: TokenServer, tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "guarded", tokens=tokens) as server:
        yield server


@pytest.fixture
def shop(project: Project, tmp_path: Path) -> Iterator[RegistryServer]:
    """A project, and the registry of its base image, which everybody reads."""
    with RegistryServer(tmp_path / "open") as server:
        project.werf(WERF.format(base=push_base(server, tmp_path / "clean")))
        commit(project, "one")
        yield server


def commit(project: Project, word: str) -> None:
    project.write("src/hello.txt", f"hello {word}\n")
    project.write("src/deps.txt", f"{word}\n")
    project.commit()


def contents(lw: CommandLine, repo: str) -> tuple[str, str]:
    """What the two images hold that commands and imports made."""
    ran = lw("run", "app", "--repo", repo, "--", "sh", "-c", "cat /installed; ls /planted 2>/dev/null; true")
    return ran.stdout, lw("run", "web", "--repo", repo, "--", "cat", "/taken").stdout


def test_what_a_builder_without_trust_publishes_is_never_taken(
    shop: RegistryServer, guarded: RegistryServer, project: Project, lw: CommandLine, tmp_path: Path
) -> None:
    ours, his = guarded.reference("team/shop"), guarded.reference("guest/shop")
    team = login(lw, tmp_path / "team", TEAM, guarded.address)
    guest = login(lw, tmp_path / "guest", GUEST, guarded.address)
    team("build", "--repo", ours)

    # He takes the team's images instead of building them, and leaves nothing there.
    asked = Requests(guarded, "team/shop")
    ran = guest("build", "--repo", his, "--secondary-repo", ours)
    assert "0 stages built" in ran.stdout
    assert [str(one) for one in asked.all if one.method not in ("GET", "HEAD")] == []
    ran = guest("build", "--repo", ours.replace("shop", "new"), code=1)
    assert "Building stage" not in ran.stdout

    # Of the next commit he is the first to publish every name: made upon a base that he has changed for as long as he builds.
    commit(project, "two")
    push_base(shop, tmp_path / "evil", "planted\n")
    evil = CommandLine(home=tmp_path / "guest" / "evil-store", user_home=guest.user_home, directory=guest.directory)
    theirs = guarded.reference("guest/evil")
    published = names_in(evil("build", "--repo", theirs).stdout)
    assert contents(evil, theirs) == ("planted\ntwo\n/planted\n", "planted\ntwo\n"), "the images are evil indeed"
    push_base(shop, tmp_path / "clean-again")

    # The team's next build would find them all by their names. It does not look there.
    asked, guests = Requests(guarded, "team/shop"), Requests(guarded, "guest")
    again = login(lw, tmp_path / "team-again", TEAM, guarded.address)
    built = names_in(again("build", "--repo", ours).stdout)
    assert guests.all == []
    assert {name: full.rpartition(":")[2] for name, (full, _) in built.items()} == {name: full.rpartition(":")[2] for name, (full, _) in published.items()}
    assert all(built[name][1] != digest for name, (_, digest) in published.items())
    assert [one for one in asked.all if "guest" in one.path] == [], "nor is a blob mounted from there"
    assert contents(login(lw, tmp_path / "reader", TEAM, guarded.address), ours) == ("two\n", "two\n")

    # Nor does he get his own in the team's place later on.
    his_view = CommandLine(home=tmp_path / "guest" / "third-store", user_home=guest.user_home, directory=guest.directory)
    ran = his_view("build", "--repo", guarded.reference("guest/later"), "--secondary-repo", ours)
    assert {name: digest for name, (_, digest) in names_in(ran.stdout).items()} == {name: digest for name, (_, digest) in built.items()}


def test_a_login_that_may_only_read_is_told_before_the_work(
    shop: RegistryServer, guarded: RegistryServer, project: Project, lw: CommandLine, tmp_path: Path
) -> None:
    guest = login(lw, tmp_path / "guest", GUEST, guarded.address)
    ran = guest("build", "--repo", guarded.reference("team/shop"), code=1)
    assert "team/shop" in ran.stderr
    assert "Building stage" not in ran.stdout
    assert not (tmp_path / "guarded/storage/docker/registry/v2/repositories/team").exists()


# Credentials.


@contextmanager
def watched_command_lines() -> Iterator[Callable[[], str]]:
    """Every command line of every process of the machine while the block runs; what it gives returns them."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            done.wait(0.003)
            for pid in filter(str.isdigit, (one.name for one in Path("/proc").iterdir())):
                try:
                    seen.add(Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: "\n".join(sorted(seen))
    finally:
        done.set()
        watcher.join()


def unpacked(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return b""


def places_with(secrets: Mapping[str, bytes], texts: Mapping[str, bytes]) -> list[str]:
    return [f"{name} in {place}" for place, text in texts.items() for name, secret in secrets.items() if secret in text or secret in unpacked(text)]


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file() and not path.is_symlink()}


def everywhere(ran: Ran, *more: Path) -> dict[str, bytes]:
    found = {"stdout": ran.stdout.encode(), "stderr": ran.stderr.encode()}
    for directory in more:
        found |= {f"{directory.name}/{name}": content for name, content in files_below(directory).items()}
    return found


@pytest.mark.parametrize("kind", ["token", "basic"])
def test_credentials_are_nowhere(kind: str, shop: RegistryServer, project: Project, lw: CommandLine, tmp_path: Path) -> None:
    project.werf(WERF.format(base=shop.reference(BASE)) + "---\nimage: slow\nfrom: app\nshell: {install: [env; cat /proc/*/cmdline; sleep 0.5]}\n")
    project.commit()
    with ExitStack() as undo:
        tokens = undo.enter_context(TokenServer(tmp_path / "token-server", users=dict((TEAM,)))) if kind == "token" else None
        guarded = undo.enter_context(RegistryServer(tmp_path / "registry", tokens=tokens, users=None if tokens else dict((TEAM,))))
        team = login(lw, tmp_path / "team", TEAM, guarded.address)
        repo, report = guarded.reference("team/shop"), tmp_path / "reports"
        report.mkdir()
        extra = (
            "--secondary-repo",
            guarded.reference("team/other"),
            "--cache-repo",
            guarded.reference("team/cache"),
            "--final-repo",
            guarded.reference("team/final"),
        )
        with watched_command_lines() as command_lines:
            saved = ("--save-build-report", "--build-report-path")
            first = team("build", "--repo", repo, *extra, "--add-custom-tag", "%image%-x", "--log-debug", *saved, str(report / "report.json"))
            found = team("build", "--repo", repo, *extra, "--log-debug", "--log-format", "json", *saved, str(report / "report.env"))
            run = team("run", "app", "--repo", repo, "--log-debug", "--", "env")
            team("export", "app", "--repo", repo, "--log-debug", "--to", f"docker://{guarded.reference('team/exported')}:1")
        secrets = {"the password": TEAM[1].encode(), "the header": basic(TEAM).encode()}
        if tokens is not None:
            assert tokens.tokens
            secrets |= {f"token {number}": token.encode() for number, token in enumerate(tokens.tokens)}
        for ran in (first, found, run):
            assert places_with(secrets, everywhere(ran)) == []
        assert "[registry]" in first.stdout, "what is asked of registries is told"
        assert places_with(secrets, everywhere(first, report, guarded.storage, team.home)) == []
        assert "layerwright" in command_lines()
        assert places_with(secrets, {"command lines": command_lines().encode()}) == []


def test_credentials_of_a_refused_login_are_not_told(lw: CommandLine, shop: RegistryServer, guarded: RegistryServer, project: Project, tmp_path: Path) -> None:
    wrong = login(lw, tmp_path / "wrong", (TEAM[0], "not the team's secret"), guarded.address)
    repo = guarded.reference("team/shop")
    ran = wrong("build", "--repo", repo, "--log-debug", code=1)
    assert places_with({"password": b"not the team's secret", "header": basic((TEAM[0], "not the team's secret")).encode()}, everywhere(ran)) == []
    assert f"layerwright cr login {guarded.address}" in ran.stderr
    for option in ("--repo", "--secondary-repo", "--cache-repo", "--final-repo"):
        given = ("--repo", repo, option, f"anna:hidden@{repo}") if option != "--repo" else (option, f"anna:hidden@{repo}")
        ran = wrong("build", *given, code=2)
        assert f"{option}: " in ran.stderr
        assert "hidden" not in ran.stdout + ran.stderr
