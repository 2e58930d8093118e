from __future__ import annotations

import json
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from layerwright.registry.endpoint import Endpoint
from layerwright.registry.errors import RegistryError, Unauthorized, Unreachable
from layerwright.registry.http import Http
from layerwright.registry.login import Challenge, Login, merged_scopes, parse_challenges
from tests.registry.faulty import Asked, FaultyServer, Say
from tests.registry.images import AMD64, LAYER, Connect, at, image_of, of, quick
from tests.registry.test_auth import write

CONTENT = image_of(AMD64).encode()
FOUND = Say(body=CONTENT, headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"})


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('Basic realm="a"', [Challenge("basic", {"realm": "a"})]),
        ("Negotiate", [Challenge("negotiate", {})]),
        (
            'Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push"',
            [Challenge("bearer", {"realm": "https://auth.example/token", "service": "r.example", "scope": "repository:a/b:pull,push"})],
        ),
        (
            'Basic realm="a \\"b\\", c", Bearer Realm=x , service = "y"',
            [Challenge("basic", {"realm": 'a "b", c'}), Challenge("bearer", {"realm": "x", "service": "y"})],
        ),
        ("=====", []),
        ("", []),
    ],
)
def test_challenges_are_read(header: str, challenges: list[Challenge]) -> None:
    assert list(parse_challenges([header])) == challenges


def test_scopes_of_one_resource_become_one() -> None:
    assert merged_scopes(["repository:b:pull", "repository:a:pull", "repository:b:push,pull", "catalog"]) == (
        "catalog",
        "repository:a:pull",
        "repository:b:pull,push",
    )


def guard(faulty: FaultyServer, tokens: FaultyServer, *accepted: str) -> None:
    """The registry asks for a bearer token of `tokens`; the manifest a/b:1 is given for the accepted ones only."""
    refused = Say(status=401, body=b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}', headers=challenge(tokens))

    def answer(asked: Asked) -> Say:
        return FOUND if asked.headers.get("authorization") in accepted else refused

    faulty.on("GET /v2/a/b/manifests/1", answer)
    faulty.on("GET /v2/c/d/manifests/1", answer)


def challenge(tokens: FaultyServer) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer realm="http://{tokens.address}/token?x=1",service="r.example",scope="repository:a/b:pull"'}


def token(text: str, **more: object) -> Say:
    return Say(body=json.dumps({"token": text, **more}).encode())


def login(directory: Path, faulty: FaultyServer, entry: dict[str, str]) -> str:
    return str(write(directory, {"auths": {faulty.address: entry}}))


def basic(text: str) -> str:
    return b64encode(text.encode()).decode()


def test_an_anonymous_token_is_fetched_once_for_each_scope(faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage, "Bearer t1")
    storage.on("GET /token", token("t1", expires_in=300))
    client = connect(quick())
    for _ in range(3):
        assert client.manifest(at(faulty.address, "a/b:1")).content == CONTENT
    assert len(storage.asked) == 1
    asked = storage.asked[0]
    assert parse_qs(urlsplit(asked.path).query) == {"x": ["1"], "service": ["r.example"], "scope": ["repository:a/b:pull"]}
    assert "authorization" not in asked.headers
    client.manifest(at(faulty.address, "c/d:1"))
    assert parse_qs(urlsplit(storage.asked[1].path).query)["scope"] == ["repository:c/d:pull"]
    assert client.requests == 5 + 1 + 1


def test_many_threads_fetch_one_token(faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage, "Bearer t1")
    storage.on("GET /token", Say(body=b'{"access_token": "t1"}', wait_s=0.1))
    client = connect(quick())
    threads = [threading.Thread(target=client.manifest, args=(at(faulty.address, "a/b:1"),)) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(storage.asked) == 1


def test_the_password_goes_to_the_token_server_only(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage, "Bearer t1")
    storage.on("GET /token", token("t1"))
    client = connect(quick(config_dir=login(tmp_path, faulty, {"auth": basic("ann:hunter2")})))
    client.manifest(at(faulty.address, "a/b:1"))
    assert storage.asked[0].headers["authorization"] == f"Basic {basic('ann:hunter2')}"
    assert "account=ann" in storage.asked[0].path
    assert [one.headers.get("authorization") for one in faulty.asked] == [None, "Bearer t1"]


def test_a_token_that_is_refused_is_renewed_once(faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    accepted = ["Bearer t1"]
    refused = Say(status=401, headers=challenge(storage))
    faulty.on("GET /v2/a/b/manifests/1", lambda asked: FOUND if asked.headers.get("authorization") in accepted else refused)
    storage.on("GET /token", token("t1", expires_in=3600), token("t2", expires_in=3600))
    client = connect(quick())
    client.manifest(at(faulty.address, "a/b:1"))
    accepted[0] = "Bearer t2"
    client.manifest(at(faulty.address, "a/b:1"))
    accepted[0] = "Bearer t3"
    with pytest.raises(Unauthorized):
        client.manifest(at(faulty.address, "a/b:1"))
    assert len(storage.asked) == 3


def test_an_identity_token_is_exchanged(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage, "Bearer t1")
    storage.on("POST /token", Say(body=b'{"access_token": "t1"}'))
    client = connect(quick(config_dir=login(tmp_path, faulty, {"identitytoken": "hunter2"})))
    client.manifest(at(faulty.address, "a/b:1"))
    assert parse_qs(storage.asked[0].body.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["hunter2"],
        "client_id": ["layerwright"],
        "service": ["r.example"],
        "scope": ["repository:a/b:pull"],
    }


def test_a_registry_token_is_sent_as_it_is(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage, "Bearer given")
    client = connect(quick(config_dir=login(tmp_path, faulty, {"registrytoken": "given"})))
    client.manifest(at(faulty.address, "a/b:1"))
    assert storage.asked == []


def test_a_refused_login_is_told_without_its_password(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage)
    storage.on("GET /token", Say(status=401, body=b'{"details": "incorrect password hunter2 for ann"}'))
    client = connect(quick(config_dir=login(tmp_path, faulty, {"auth": basic("ann:hunter2")})))
    with pytest.raises(Unauthorized, match=r"cannot log in.*incorrect password \*\*\* for ann") as caught:
        client.manifest(at(faulty.address, "a/b:1"))
    assert "hunter2" not in str(caught.value)
    assert f"layerwright cr login {faulty.address}" in caught.value.mend
    assert str(caught.value).startswith(f"{faulty.address}/a/b:1: ")


def test_basic_is_answered_and_a_missing_login_told(tmp_path: Path, faulty: FaultyServer, connect: Connect) -> None:
    header = f"Basic {basic('ann:hunter2')}"
    refused = Say(status=401, body=b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}', headers={"WWW-Authenticate": 'Basic realm="x"'})
    faulty.on("GET /v2/a/b/manifests/1", lambda asked: FOUND if asked.headers.get("authorization") == header else refused)
    client = connect(quick(config_dir=login(tmp_path, faulty, {"auth": basic("ann:hunter2")})))
    client.manifest(at(faulty.address, "a/b:1"))
    client.manifest(at(faulty.address, "a/b:1"))
    assert [one.headers.get("authorization") for one in faulty.asked] == [None, header, header]
    with pytest.raises(Unauthorized, match="who are you") as caught:
        connect(quick()).manifest(at(faulty.address, "a/b:1"))
    assert "no login" in caught.value.mend
    wrong = connect(quick(config_dir=login(tmp_path, faulty, {"auth": basic("ann:hunter3")})))
    with pytest.raises(Unauthorized, match="who are you") as caught:
        wrong.manifest(at(faulty.address, "a/b:1"))
    assert "config.json was used" in caught.value.mend


def test_a_login_is_never_sent_in_the_clear_for_a_registry_with_tls(faulty: FaultyServer, connect: Connect) -> None:
    from layerwright.registry.endpoint import Endpoint
    from layerwright.registry.http import Http
    from layerwright.registry.login import Login

    options = quick()
    door = Login(Endpoint("r.example", "https://r.example"), Http(options), options)
    with pytest.raises(RegistryError, match=r"sent to auth\.example over plain HTTP"):
        door.answer((Challenge("bearer", {"realm": "http://auth.example/token"}),), at("r.example", "a:1"), ("repository:a:pull",), None, "r.example/a:1")
    with pytest.raises(RegistryError, match="as the place to log in"):
        door.answer((Challenge("bearer", {"realm": "file:///etc/passwd"}),), at("r.example", "a:1"), ("repository:a:pull",), None, "r.example/a:1")


@pytest.mark.parametrize("body", [b"secret-token", b"{}", b'{"token": 7}', b"[]"])
def test_a_login_server_without_a_token_is_told(faulty: FaultyServer, storage: FaultyServer, connect: Connect, body: bytes) -> None:
    guard(faulty, storage)
    storage.on("GET /token", Say(body=body))
    with pytest.raises(RegistryError, match="gave no token") as caught:
        connect(quick()).manifest(at(faulty.address, "a/b:1"))
    assert "secret" not in str(caught.value)


def test_a_login_server_that_is_busy_is_asked_again(faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage, "Bearer t1")
    storage.on("GET /token", Say(status=503), Say(status=429, headers={"Retry-After": "0"}), token("t1"))
    connect(quick()).manifest(at(faulty.address, "a/b:1"))
    storage.on("GET /token", Say(status=503))
    with pytest.raises(Unreachable, match="cannot log in"):
        connect(quick()).manifest(at(faulty.address, "a/b:1"))


def test_a_push_asks_for_the_right_to_push(faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    refused = Say(status=401, headers=challenge(storage))
    faulty.on(f"HEAD /v2/a/b/blobs/{of(LAYER).digest}", lambda asked: Say() if asked.headers.get("authorization") else refused)
    storage.on("GET /token", token("t1"))
    connect(quick()).put_blob(at(faulty.address, "a/b:1"), of(LAYER), lambda: pytest.fail("it is there"))
    assert parse_qs(urlsplit(storage.asked[0].path).query)["scope"] == ["repository:a/b:pull,push"]


def test_a_token_is_not_used_beyond_its_life(faulty: FaultyServer, storage: FaultyServer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("layerwright.registry.login.time.monotonic", lambda: now[0])
    guard(faulty, storage, "Bearer t1", "Bearer t2")
    storage.on("GET /token", token("t1", expires_in=20), token("t2"), token("t2"))
    client = connect(quick())
    sent = []
    for passed_s in (0, 17, 2, 53, 2):
        now[0] += passed_s
        faulty.asked.clear()
        client.manifest(at(faulty.address, "a/b:1"))
        sent.append([one.headers.get("authorization") for one in faulty.asked])
    assert sent == [[None, "Bearer t1"], ["Bearer t1"], ["Bearer t2"], ["Bearer t2"], ["Bearer t2"]], "asked for anew before the registry has to refuse"
    assert len(storage.asked) == 3, "one without a life time lives 60 s"


def test_a_renewed_identity_token_is_used_next(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage, "Bearer t1")
    storage.on("POST /token", Say(body=b'{"access_token": "t1", "refresh_token": "second"}'))
    client = connect(quick(config_dir=login(tmp_path, faulty, {"identitytoken": "first"})))
    client.manifest(at(faulty.address, "a/b:1"))
    faulty.on("GET /v2/a/b/manifests/1", Say(status=401, headers=challenge(storage)))
    with pytest.raises(Unauthorized):
        client.manifest(at(faulty.address, "a/b:1"))
    assert [parse_qs(one.body.decode())["refresh_token"] for one in storage.asked] == [["first"], ["second"]]


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_knows_oauth2_only_gets_its_form(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect, status: int) -> None:
    guard(faulty, storage, "Bearer t1")
    storage.on("GET /token", Say(status=status))
    storage.on("POST /token", Say(body=b'{"access_token": "t1"}'))
    connect(quick(config_dir=login(tmp_path, faulty, {"auth": basic("ann:hunter2")}))).manifest(at(faulty.address, "a/b:1"))
    form = parse_qs(storage.asked[1].body.decode())
    assert (form["grant_type"], form["username"], form["password"]) == (["password"], ["ann"], ["hunter2"])


def test_a_mount_asks_for_both_repositories(faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    refused = Say(status=401, headers=challenge(storage))
    line = f"POST /v2/c/d/blobs/uploads/?mount={of(LAYER).digest}&from=a%2Fb".replace(":", "%3A")
    faulty.on(line, lambda asked: Say(status=201) if asked.headers.get("authorization") == "Bearer t1" else refused)
    storage.on("GET /token", token("t1"))
    assert connect(quick()).mount_blob(at(faulty.address, "c/d:1"), of(LAYER).digest, "a/b")
    assert parse_qs(urlsplit(storage.asked[0].path).query)["scope"] == ["repository:a/b:pull", "repository:c/d:pull,push"]


def test_each_repository_may_have_a_login_of_its_own(tmp_path: Path, faulty: FaultyServer, connect: Connect) -> None:
    refused = Say(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    faulty.on("GET /v2/a/b/manifests/1", refused, FOUND)
    faulty.on("GET /v2/c/d/manifests/1", FOUND)
    auths = {f"{faulty.address}/a": {"auth": basic("ann:x")}, f"{faulty.address}/c": {"auth": basic("cid:y")}}
    client = connect(quick(config_dir=str(write(tmp_path, {"auths": auths}))))
    client.manifest(at(faulty.address, "a/b:1"))
    client.manifest(at(faulty.address, "c/d:1"))
    assert [one.headers.get("authorization") for one in faulty.asked] == [None, f"Basic {basic('ann:x')}", f"Basic {basic('cid:y')}"]


def test_a_refused_head_is_told_in_the_registrys_words(faulty: FaultyServer, connect: Connect) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}'
    for method in ("HEAD", "GET"):
        faulty.on(f"{method} /v2/a/b/manifests/1", Say(status=403, body=body))
    with pytest.raises(Unauthorized, match="DENIED: requested access"):
        connect(quick()).head(at(faulty.address, "a/b:1"))
    assert faulty.lines == ["HEAD /v2/a/b/manifests/1", "GET /v2/a/b/manifests/1"]


@pytest.mark.parametrize(
    ("realm", "is_trusted"),
    [
        ("https://127.0.0.1:5001/token", True),
        ("https://127.0.0.1:5000@auth.example/token", False),
        ("https://127.0.0.1@auth.example/token", False),
        ("https://listed.example@auth.example/token", False),
        ("https://listed.example/token", True),
    ],
)
def test_who_is_named_before_the_host_does_not_lower_what_is_asked_of_it(realm: str, *, is_trusted: bool) -> None:
    options = quick()
    endpoint = Endpoint("127.0.0.1:5000", "https://127.0.0.1:5000", verify=False)
    login = Login(endpoint, Http(options), options, is_insecure=lambda host: host.partition(":")[0] == "listed.example")
    assert login._verify(realm) is not is_trusted


def test_a_life_longer_than_numbers_can_say_is_a_day(faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    guard(faulty, storage, "Bearer t1")
    storage.on("GET /token", Say(body=b'{"token": "t1", "expires_in": 1' + b"0" * 400 + b"}"))
    assert connect(quick()).manifest(at(faulty.address, "a/b:1")).content == CONTENT


def test_a_token_that_is_here_is_used_while_another_is_waited_for(faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    client = connect(quick(read_timeout_s=60.0))
    guard(faulty, storage, "Bearer t1")
    waits, goes_on = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Say:
        waits.set()
        assert goes_on.wait(20)
        return token("t1")

    storage.on("GET /token", token("t1"), slow)
    assert client.manifest(at(faulty.address, "a/b:1")).content == CONTENT
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(client.manifest, at(faulty.address, "c/d:1"))
        try:
            assert waits.wait(20)
            assert pool.submit(client.manifest, at(faulty.address, "a/b:1")).result(10).content == CONTENT
        finally:
            goes_on.set()
        assert other.result(20).content == CONTENT
