"""Registries as people have them, seen from outside: TLS with authorities of their own, logins of every kind, mirrors and proxies. No output shows a secret."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine, Ran
from tests.support.front import Front
from tests.support.layouts import skopeo
from tests.support.machine import unused_port
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.registry_server import RegistryServer
from tests.support.tls import Authority
from tests.support.token_server import TokenServer

USER, PASSWORD = "ann", "correct-horse-battery"
LIFE_S = 2  # of a token that is to run out
BASIC = b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def private(registry: RegistryServer, base_images: BaseImages, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """The same images behind TLS, for `USER` only."""
    certificate = authority.certificate("private", "IP:127.0.0.1", "registry.test")
    with RegistryServer(tmp_path_factory.mktemp("private"), users={USER: PASSWORD}, certificate=certificate, storage=registry.storage) as server:
        yield server


def settings(lw: CommandLine) -> Path:
    """~/.config of the user."""
    return lw.user_home / ".config"


def trust(lw: CommandLine, registry: str, authority: Authority) -> Path:
    """Let the user trust the authority for one registry; returns the directory for it."""
    directory = settings(lw) / "containers" / "certs.d" / registry
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(authority.path.read_bytes())
    return directory


def log_in(lw: CommandLine, registry: str, password: str = PASSWORD, *, code: int = 0, env: dict[str, str] | None = None) -> Ran:
    return lw("cr", "login", registry, "-u", USER, code=code, env={"LAYERWRIGHT_PASSWORD": password, **(env or {})})


def config_file(lw: CommandLine) -> Path:
    return lw.user_home / ".docker" / "config.json"


def uses(project: Project, base: str) -> None:
    """One image that needs the base's manifest, configuration and layers, and no container."""
    project.write("hello", "hello\n")
    project.werf(f"image: app\nfrom: {base}\ngit: [{{add: /hello, to: /hello}}]\n")
    project.commit()


def shows_no_secret(lw: CommandLine, *runs: Ran) -> None:
    for ran in runs:
        for secret in (PASSWORD, BASIC):
            assert secret not in ran.stdout + ran.stderr, ran.argv
    found = subprocess.run(("grep", "-rlaF", "-e", PASSWORD, "-e", BASIC, str(lw.home)), capture_output=True, text=True, check=False)
    assert found.stdout == "", "the store holds no login"


# Logging in and out.


def test_a_login_is_proved_kept_and_removed(lw: CommandLine, project: Project, private: RegistryServer, authority: Authority) -> None:
    certificates = trust(lw, private.address, authority)
    config_file(lw).parent.mkdir()
    config_file(lw).write_text('{"psFormat": "table", "auths": {"other.example": {"auth": "eDp5"}}}')
    refused = log_in(lw, private.address, "wrong-password", code=1)
    assert f"{private.address}: cannot log in: {private.address} answers 401 Unauthorized: UNAUTHORIZED: authentication required" in refused.stderr
    assert "wrong-password" not in refused.stderr
    assert json.loads(config_file(lw).read_text()) == {"psFormat": "table", "auths": {"other.example": {"auth": "eDp5"}}}

    done = log_in(lw, f"https://{private.address}/v2/")
    assert done.stdout == "Successful login\n"
    assert json.loads(config_file(lw).read_text()) == {"psFormat": "table", "auths": {"other.example": {"auth": "eDp5"}, private.address: {"auth": BASIC}}}
    assert stat.S_IMODE(config_file(lw).stat().st_mode) == 0o600
    listed = skopeo("list-tags", f"--authfile={config_file(lw)}", f"--cert-dir={certificates}", f"docker://{private.address}/base/busybox")
    assert "entrypoint" in json.loads(listed)["Tags"], "other tools read the login, too"

    uses(project, private.reference("base/busybox:1"))
    built = lw("build")
    out = lw("cr", "logout", private.address)
    assert out.stdout == "Successful logout\n"
    assert json.loads(config_file(lw).read_text()) == {"psFormat": "table", "auths": {"other.example": {"auth": "eDp5"}}}
    project.werf(f"image: app\nfrom: {private.reference('base/busybox:bare')}\ngit: [{{add: /hello, to: /hello}}]\n")
    project.commit()
    stranger = lw("build", code=1)
    assert "UNAUTHORIZED: authentication required" in stranger.stderr
    assert f"layerwright cr login {private.address}" in stranger.stderr
    shows_no_secret(lw, refused, done, built, out, stranger)


def test_where_the_password_comes_from(lw: CommandLine, private: RegistryServer, authority: Authority) -> None:
    trust(lw, private.address, authority)
    for arguments, said in (
        (("-u", USER), "no password, and there is no terminal to ask for it"),
        (("-p", PASSWORD), "no username"),
        (("-u", USER, "-p", PASSWORD, "--password-stdin"), "exclude one another"),
        (("-u", USER, "--password-stdin"), "standard input holds no password"),
    ):
        assert said in lw("cr", "login", private.address, *arguments, code=2).stderr
    assert not config_file(lw).exists()
    shown = lw("cr", "login", private.address, "-u", USER, "-p", PASSWORD)
    assert "--password-stdin" in shown.stderr
    assert shown.stdout == "Successful login\n"
    argv = (sys.executable, "-m", "layerwright", "cr", "login", private.address, "-u", USER, "--password-stdin")
    done = subprocess.run(argv, env=lw.environment(), input=f"{PASSWORD}\n", capture_output=True, text=True, check=True)
    assert done.stdout == "Successful login\n"
    assert PASSWORD not in shown.stderr + done.stderr


def test_a_password_is_typed_unseen(lw: CommandLine, private: RegistryServer, authority: Authority) -> None:
    trust(lw, private.address, authority)
    argv = (sys.executable, "-m", "layerwright", "cr", "login", private.address)
    main, terminal = os.openpty()
    try:
        with subprocess.Popen(argv, env=lw.environment(), stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True) as process:
            os.close(terminal)
            seen = _talk(main, (("Username: ", USER), ("Password: ", PASSWORD)))
            assert process.wait(60) == 0, seen
    finally:
        os.close(main)
    assert "Successful login" in seen
    assert PASSWORD not in seen


def _talk(terminal: int, answers: tuple[tuple[str, str], ...]) -> str:
    """Give each answer once its question is there; all that was shown, to the end."""
    seen = ""
    waiting = list(answers)
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            return seen
        seen += piece.decode()
        if waiting and waiting[0][0] in seen:
            os.write(terminal, f"{waiting.pop(0)[1]}\n".encode())


def test_a_helper_keeps_the_login(lw: CommandLine, project: Project, private: RegistryServer, authority: Authority, tmp_path: Path) -> None:
    trust(lw, private.address, authority)
    box = tmp_path / "box"
    box.mkdir()
    helper = tmp_path / "bin" / "docker-credential-box"
    helper.parent.mkdir()
    helper.write_text(f"""#!/bin/sh
        case $1 in
        store) cat >{box}/login ;;
        get) cat >/dev/null; test -e {box}/login && cat {box}/login || {{ echo credentials not found in native keychain; exit 1; }} ;;
        erase) cat >/dev/null; rm -f {box}/login ;;
        esac
        """)
    helper.chmod(0o755)
    lw = replace(lw, more={"PATH": f"{helper.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"})
    config_file(lw).parent.mkdir()
    config_file(lw).write_text(json.dumps({"credHelpers": {private.address: "box"}}))
    uses(project, private.reference("base/busybox:1"))
    done = log_in(lw, private.address)
    assert json.loads((box / "login").read_text()) == {"ServerURL": private.address, "Username": USER, "Secret": PASSWORD}
    assert json.loads(config_file(lw).read_text()) == {"credHelpers": {private.address: "box"}, "auths": {private.address: {}}}
    built = lw("build")
    lw("cr", "logout", private.address)
    assert not (box / "login").exists()

    helper.write_text(f'#!/bin/sh\ncat >/dev/null; echo \'{{"Secret": "{PASSWORD}"}}\'; echo the key ring is locked >&2; exit 2\n')
    broken = lw.with_home(tmp_path / "another")("build", code=1)
    assert "docker-credential-box failed with exit code 2" in broken.stderr
    assert "the key ring is locked" in broken.stderr
    helper.unlink()
    missing = lw.with_home(tmp_path / "another")("build", code=3)
    assert "docker-credential-box" in missing.stderr
    shows_no_secret(lw, done, built, broken, missing)


# TLS.


def test_an_authority_is_trusted_for_one_host(lw: CommandLine, project: Project, private: RegistryServer, authority: Authority) -> None:
    uses(project, private.reference("base/busybox:1"))
    directory = trust(lw, private.address, authority)
    authority_file = directory / "ca.crt"
    log_in(lw, private.address)
    authority_file.unlink()
    untrusted = lw("build", code=1)
    assert f"the certificate of {private.address} cannot be trusted" in untrusted.stderr
    assert f"/etc/docker/certs.d/{private.address}/ca.crt" in untrusted.stderr
    (directory / "client.cert").write_text("half a pair")
    assert "client.cert has no key" in lw("build", code=2).stderr
    (directory / "client.cert").unlink()
    directory.rmdir()
    lw("build", env={"SSL_CERT_FILE": str(authority.path)})
    lw.with_home(lw.home / "unchecked")("build", "--skip-tls-verify-registry")


def test_a_client_shows_its_certificate(
    lw: CommandLine, project: Project, registry: RegistryServer, base_images: BaseImages, authority: Authority, tmp_path: Path
) -> None:
    server = authority.certificate("front", "IP:127.0.0.1")
    with RegistryServer(tmp_path / "guarded", certificate=server, client_authority=authority.path, storage=registry.storage) as guarded:
        directory = trust(lw, guarded.address, authority)
        uses(project, guarded.reference("base/busybox:1"))
        stranger = lw("build", code=1)
        assert f"{guarded.address} wants a client certificate" in stranger.stderr
        client = authority.certificate("client")
        (directory / "client.cert").write_bytes(client.path.read_bytes())
        (directory / "client.key").write_bytes(client.key.read_bytes())
        lw("build")


@pytest.mark.needs_root
def test_the_machines_own_settings_are_read(
    lw: CommandLine, project: Project, private: RegistryServer, registry: RegistryServer, authority: Authority, tmp_path: Path
) -> None:
    """Files below /etc, laid over it where only this run sees them."""
    machine = tmp_path / "machine"
    (machine / "docker/certs.d" / private.address).mkdir(parents=True)
    (machine / "docker/certs.d" / private.address / "ca.crt").write_bytes(authority.path.read_bytes())
    (machine / "docker/daemon.json").write_text(json.dumps({"registry-mirrors": [f"http://{registry.address}"]}))
    (machine / "containers").mkdir()
    (machine / "containers/registries.conf").write_text(f'[[registry]]\nprefix = "registry.test"\nlocation = "{private.address}"\n')
    over = f'mount -t overlay overlay -o lowerdir={machine}:/etc /etc && exec "$@"'
    lw = replace(lw, prefix=("unshare", "--mount", "sh", "-c", over, "sh"))
    log_in(lw, private.address)
    project.werf("image: hub\nfrom: base/busybox:1\n---\nimage: moved\nfrom: registry.test/base/busybox:1\n")
    project.commit()
    lw("build")


# Tokens.


def test_tokens_are_renewed_in_the_middle(lw: CommandLine, project: Project, registry: RegistryServer, base_images: BaseImages, tmp_path: Path) -> None:
    """Each second request finds its token run out: the registry refuses it, in the middle of a pull and of a push."""
    with (
        TokenServer(tmp_path / "tokens", users={USER: PASSWORD}, public="base") as tokens,
        RegistryServer(tmp_path / "guarded", tokens=tokens, storage=registry.storage) as guarded,
        Front(guarded, fault=_stale_at_first) as front,
    ):
        address = front.reference("")[:-1]
        refused = log_in(lw, address, "wrong-password", code=1)
        assert "the token server does not know this password" in refused.stderr
        uses(project, f"{address}/base/busybox:1")
        built = lw("build")
        pulling = [one for one in tokens.asked if one.scopes == ("repository:base/busybox:pull",)]
        assert len(pulling) > 2, "one to begin with, and one each time it had run out"
        assert all(one.user == "" for one in pulling), "an anonymous token is enough to pull"

        stranger = lw("export", "app", "--to", f"docker://{address}/own/app:1", code=1)
        assert "DENIED" in stranger.stderr or "UNAUTHORIZED" in stranger.stderr
        logged_in = log_in(lw, address)
        before = len(tokens.asked)
        exported = lw("export", "app", "--to", f"docker://{address}/own/app:1")
        pushing = tokens.asked[before:]
        assert len(pushing) > 2
        assert {one.user for one in pushing} == {USER}
        assert sum("repository:own/app:pull,push" in one.scopes for one in pushing) > 1
        runs = (refused, built, stranger, logged_in, exported)
        shows_no_secret(lw, *runs)
        assert not [token for token in tokens.tokens for ran in runs if token in ran.stdout + ran.stderr]
    skopeo("inspect", "--tls-verify=false", f"docker://{registry.reference('own/app:1')}")


def _stale_at_first(path: str, count: int) -> str:
    return "stale" if count == 1 and path != "/v2/" else ""


@pytest.mark.parametrize("claimed_s", [300, LIFE_S])
def test_tokens_run_out_by_the_clock(
    lw: CommandLine, project: Project, registry: RegistryServer, base_images: BaseImages, tmp_path: Path, claimed_s: int
) -> None:
    """Tokens that live two seconds, and transfers that take longer. docker-registry itself refuses those that have run out.

    Of tokens that claim a longer life the registry's 401 says so; those that tell the truth are renewed before anybody refuses them.
    """
    with (
        TokenServer(tmp_path / "tokens", users={USER: PASSWORD}, life_s=claimed_s, true_life_s=LIFE_S) as tokens,
        RegistryServer(tmp_path / "guarded", tokens=tokens, storage=registry.storage) as guarded,
        Front(guarded, bytes_per_s=250_000, fault=_cut_in_the_middle_of_a_large_blob()) as front,
    ):
        address = front.reference("")[:-1]
        log_in(lw, address)
        project.write("large", os.urandom(1_000_000))
        project.werf(f"image: app\nfrom: {address}/base/busybox:1\ngit: [{{add: /large, to: /large}}]\n")
        project.commit()
        lw("image", "pull", f"{address}/base/busybox:1")
        pulling = tokens.asked[:]
        assert sum("repository:base/busybox:pull" in one.scopes for one in pulling) > 1, "one at first, one to go on after the cut"
        refused = [line for line in guarded.log.splitlines() if "token expired" in line or "token to have expired" in line or "invalid token" in line]
        assert bool(refused) == (claimed_s > LIFE_S), guarded.log
        digest = lw("export", "app", "--to", f"docker://{address}/own/clock-{claimed_s}:1").stdout.strip()
        pushing = Counter(one.scopes for one in tokens.asked[len(pulling) :] if f"repository:own/clock-{claimed_s}:pull,push" in one.scopes)
        assert max(pushing.values()) > 1, "one to begin with, and one for what came after the large layer"
    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{registry.reference(f'own/clock-{claimed_s}:1')}"))
    assert shown["Digest"] == digest


def _cut_in_the_middle_of_a_large_blob() -> Callable[[str, int], str]:
    """The first answer for each blob ends in its middle."""
    return lambda path, count: "cut" if "/base/busybox/blobs/sha256:" in path and count == 1 else ""


def test_an_identity_token_is_exchanged(lw: CommandLine, project: Project, registry: RegistryServer, base_images: BaseImages, tmp_path: Path) -> None:
    """Podman's auth.json, a login for a part of the registry only, and OAuth2's form."""
    with (
        TokenServer(tmp_path / "tokens", users={USER: PASSWORD}, life_s=1) as tokens,
        RegistryServer(tmp_path / "guarded", tokens=tokens, storage=registry.storage) as guarded,
    ):
        file = settings(lw) / "containers" / "auth.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"auths": {f"{guarded.address}/base": {"identitytoken": f"refresh-{USER}"}, f"{guarded.address}/other": {"auth": "eDp5"}}}))
        uses(project, guarded.reference("base/busybox:1"))
        built = lw("build")
        assert {(one.method, one.user) for one in tokens.asked} == {("POST", USER)}
        assert f"refresh-{USER}" not in built.stdout + built.stderr


# Mirrors.


def registries_conf(lw: CommandLine, text: str) -> None:
    path = settings(lw) / "containers" / "registries.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_mirror_stands_in_for_an_origin_that_is_down(lw: CommandLine, project: Project, registry: RegistryServer, base_images: BaseImages) -> None:
    down = f"127.0.0.1:{unused_port()}"
    config_file(lw).parent.mkdir()
    config_file(lw).write_text(json.dumps({"auths": {"registry.test": {"auth": BASIC}}}))
    registries_conf(
        lw,
        f"""
        [[registry]]
        prefix = "registry.test/team"
        location = "{down}/moved"

        [[registry.mirror]]
        location = "{down}"

        [[registry.mirror]]
        location = "{registry.address}/base"
        """,
    )
    uses(project, "registry.test/team/busybox:1")
    seen = len(registry.log)
    built = lw("build", "--log-verbose")
    requests = registry.log[seen:]
    assert "GET /v2/base/busybox/manifests/1 " in requests
    shows_no_secret(lw, built)
    registries_conf(lw, "")
    without = lw.with_home(lw.home / "elsewhere")("build", code=1)
    assert "no address is known for registry.test" in without.stderr


def test_the_name_of_an_image_stays_the_same_with_mirrors(lw: CommandLine, project: Project, registry: RegistryServer, base_images: BaseImages) -> None:
    uses(project, base_images.busybox)
    lw("build")
    name = lw("stage", "image", "app").stdout
    other = lw.with_home(lw.home / "other")
    registries_conf(lw, f'[[registry]]\nlocation = "{registry.address}"\n[[registry.mirror]]\nlocation = "localhost:{registry.address.partition(":")[2]}"\n')
    seen = len(registry.log)
    other("build")
    assert 'http.request.host="localhost:' in registry.log[seen:]
    assert other("stage", "image", "app").stdout == name


def test_docker_hub_has_mirrors_of_its_own(lw: CommandLine, project: Project, registry: RegistryServer, base_images: BaseImages) -> None:
    uses(project, "base/busybox:1")
    daemon = settings(lw) / "docker" / "daemon.json"
    daemon.parent.mkdir(parents=True)
    daemon.write_text(json.dumps({"registry-mirrors": [f"http://127.0.0.1:{unused_port()}", f"http://{registry.address}/"]}))
    lw("build")
    daemon.unlink()
    other = lw.with_home(lw.home / "other")
    other("build", "--container-registry-mirror", registry.address)
    lw.with_home(lw.home / "third")("build", env={"WERF_CONTAINER_REGISTRY_MIRROR_1": f"http://{registry.address}"})


def test_a_mirror_that_gives_wrong_bytes_is_left(lw: CommandLine, project: Project, registry: RegistryServer, base_images: BaseImages) -> None:
    """The registry itself is asked for what a mirror lacks, refuses, or gives damaged."""
    for number, fault in enumerate(("503", "cut", "damage")):
        with Front(registry, fault=lambda path, count, fault=fault: fault if "blobs" in path else "") as mirror:
            address = mirror.reference("")[:-1]
            registries_conf(lw, f'[[registry]]\nlocation = "{registry.address}"\n[[registry.mirror]]\nlocation = "{address}"\n')
            uses(project, base_images.busybox)
            lw.with_home(lw.home / str(number))("build")
            assert mirror.asked, fault


def test_settings_that_are_wrong_are_told_by_line(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    uses(project, base_images.busybox)
    registries_conf(lw, '[[registry]]\nlocation = "a.example"\n\n[[registry]]\nlocation = 7\n')
    assert "containers/registries.conf:4: location is not a text" in lw("build", code=2).stderr
    registries_conf(lw, f'[[registry]]\nlocation = "{base_images.registry.address}"\nblocked = true\n')
    assert "is blocked by" in lw("build", code=1).stderr
    registries_conf(lw, "")
    daemon = settings(lw) / "docker" / "daemon.json"
    daemon.parent.mkdir(parents=True)
    daemon.write_text('{\n  "registry-mirrors": [\n}')
    assert "docker/daemon.json:3: it is not JSON" in lw("build", code=2).stderr


# Proxies.


def test_a_proxy_stands_between(lw: CommandLine, project: Project, private: RegistryServer, authority: Authority) -> None:
    """registry.test has no address here: only the proxy knows where it is."""
    trust(lw, "registry.test", authority)
    uses(project, "registry.test/base/busybox:1")
    with Proxy({"registry.test:443": private.address}, login=f"bob:{PASSWORD}") as proxy:
        env = {"HTTPS_PROXY": f"http://bob:{PASSWORD}@{proxy.address}", "no_proxy": "other.test,10.0.0.0/8"}
        log_in(lw, "registry.test", env=env)
        built = lw("build", env=env)
        assert set(proxy.asked) == {"CONNECT registry.test:443"}
        before = len(proxy.asked)
        other = lw.with_home(lw.home / "other")
        unproxied = other("build", code=1, env={**env, "no_proxy": ".test"})
        assert len(proxy.asked) == before
        assert "no address is known for registry.test" in unproxied.stderr
        refused = other("build", code=1, env={"HTTPS_PROXY": f"http://bob:mistaken-word@{proxy.address}"})
        assert f"through the proxy {proxy.address} (HTTPS_PROXY)" in refused.stderr
        assert "407" in refused.stderr
        assert "mistaken-word" not in refused.stderr
    down = other("build", code=1, env=env)
    assert f"through the proxy {proxy.address} (HTTPS_PROXY): Connection refused" in down.stderr
    shows_no_secret(lw, built, unproxied, refused, down)


def test_what_is_on_this_machine_is_never_asked_through_a_proxy(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    uses(project, base_images.busybox)
    lw("build", env={"HTTP_PROXY": f"http://127.0.0.1:{unused_port()}", "ALL_PROXY": "http://nowhere.invalid"})
