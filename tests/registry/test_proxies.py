from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

import pytest

from layerwright.errors import UsageError
from layerwright.registry.errors import Unreachable
from layerwright.registry.proxies import parse_proxy, proxy_for
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import Connect, at, quick
from tests.support.machine import unused_port


@pytest.mark.parametrize(
    ("url", "env", "proxy"),
    [
        ("https://r.example/v2/", {}, ""),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ("https://r.example/v2/", {"https_proxy": "p:3128", "HTTPS_PROXY": "http://q"}, "http://p:3128"),
        ("https://r.example/v2/", {"HTTP_PROXY": "http://p"}, ""),
        ("http://r.example/v2/", {"http_proxy": "http://p"}, "http://p"),
        ("http://r.example/v2/", {"ALL_PROXY": "http://p"}, "http://p"),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p", "NO_PROXY": "other.example, .example"}, ""),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "*"}, ""),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "*.example"}, ""),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "ample,r.example:5000"}, "http://p"),
        ("https://r.example:5000/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "r.example:5000"}, ""),
        ("https://10.1.2.3/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "10.0.0.0/8"}, ""),
        ("https://11.1.2.3/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "10.0.0.0/8,nonsense/x"}, "http://p"),
        ("http://127.0.0.1:5000/v2/", {"HTTP_PROXY": "http://p"}, ""),
        ("http://[::1]:5000/v2/", {"HTTP_PROXY": "http://p"}, ""),
        ("http://localhost/v2/", {"ALL_PROXY": "http://p"}, ""),
    ],
)
def test_the_environment_names_the_proxy(url: str, env: Mapping[str, str], proxy: str) -> None:
    found = proxy_for(url, env)
    assert (found.url if found else "") == proxy


def test_a_proxy_gets_its_login_and_the_whole_address(faulty: FaultyServer, connect: Connect) -> None:
    client = connect(quick(env={"http_proxy": f"http://ann:s%40crt@{faulty.address}"}, insecure=("r.example",)))
    assert client.head(at("r.example", "a/b:1")) is None
    assert faulty.lines == ["HEAD http://r.example/v2/a/b/manifests/1"]
    assert faulty.asked[0].headers["proxy-authorization"] == f"Basic {b64encode(b'ann:s@crt').decode()}"
    client = connect(quick(env={"http_proxy": f"http://ann:%E2%82%AC@{faulty.address}"}, insecure=("r.example",)))
    assert client.head(at("r.example", "a/b:1")) is None
    assert faulty.asked[-1].headers["proxy-authorization"] == f"Basic {b64encode('ann:€'.encode()).decode()}"


def test_a_broken_proxy_is_told_without_its_login(connect: Connect) -> None:
    client = connect(quick(env={"http_proxy": f"http://ann:hunter2@127.0.0.1:{unused_port()}"}, insecure=("r.example",)))
    with pytest.raises(Unreachable, match=r"cannot reach r\.example through the proxy 127\.0\.0\.1:\d+ \(http_proxy\): Connection refused") as caught:
        client.head(at("r.example", "a/b:1"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["http://", "http://ann:hunter2@:3128", "http://ann:hunter2@p:port", "socks5://ann:hunter2@p:1080"])
def test_a_variable_that_names_no_proxy_is_told_without_its_login(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        proxy_for("https://r.example/", {"https_proxy": text})
    assert caught.value.where == "https_proxy"
    assert "hunter2" not in str(caught.value)


def test_a_proxys_login_is_kept_apart() -> None:
    found = parse_proxy("https://ann:s%40crt@[::1]:3128/x", "HTTPS_PROXY")
    assert (found.url, found.login, found.host) == ("https://[::1]:3128", "ann:s@crt", "[::1]:3128")
    assert "crt" not in repr(found)


@pytest.mark.parametrize(
    ("entry", "url", "proxied"),
    [
        ("r.example:443", "https://r.example/", False),
        ("r.example:80", "https://r.example/", True),
        ("r.example:80", "http://r.example/", False),
        ("[fd00::1]:443", "https://[fd00::1]/", False),
        ("fd00::/8", "https://[fd00::1]/", False),
        ("R.Example.", "https://r.example/", False),
        (" , ", "https://r.example/", True),
    ],
)
def test_ports_and_addresses_in_no_proxy(entry: str, url: str, *, proxied: bool) -> None:
    env = {"HTTPS_PROXY": "http://p", "HTTP_PROXY": "http://p", "NO_PROXY": entry}
    assert (proxy_for(url, env) is not None) is proxied


def test_a_proxy_that_wants_a_login_is_told(faulty: FaultyServer, connect: Connect) -> None:
    faulty.on("CONNECT r.example:443", Say(status=407))
    with pytest.raises(Unreachable, match=r"cannot reach r\.example through the proxy .* \(HTTPS_PROXY\)"):
        connect(quick(env={"HTTPS_PROXY": f"http://{faulty.address}"})).head(at("r.example", "a/b:1"))
