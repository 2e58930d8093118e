from __future__ import annotations

import pytest

from layerwright.registry.endpoint import auth_keys, endpoint_of, is_loopback, may_lack_tls
from layerwright.registry.options import RegistryOptions


@pytest.mark.parametrize(
    ("registry", "base"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("ghcr.io", "https://ghcr.io"),
        ("registry.example:5000", "https://registry.example:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.255.1.2", "http://127.255.1.2"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("localhost", "http://localhost"),
        ("LOCALHOST:5000", "http://LOCALHOST:5000"),
        ("localhost.example", "https://localhost.example"),
        ("127.evil.example", "https://127.evil.example"),
        ("127.0.0.1.example:80", "https://127.0.0.1.example:80"),
    ],
)
def test_only_loopback_is_spoken_to_in_plain_http(registry: str, base: str) -> None:
    assert endpoint_of(registry, RegistryOptions()).base == base


def test_plain_http_and_tls_where_asked() -> None:
    options = RegistryOptions(insecure=("registry.example:5000", "any.example"), tls=("127.0.0.1:5001", "::1"))
    assert endpoint_of("registry.example:5000", options).is_plain
    assert not endpoint_of("registry.example", options).is_plain
    assert endpoint_of("any.example:8080", options).is_plain
    assert not endpoint_of("127.0.0.1:5001", options).is_plain
    assert endpoint_of("127.0.0.1:5002", options).is_plain
    assert not endpoint_of("[::1]:1", options).is_plain


def test_with_a_star_the_server_tells() -> None:
    options = RegistryOptions(insecure=("*", "plain.example"), tls=("tls.example",))
    assert may_lack_tls("docker.io", options)
    assert not endpoint_of("docker.io", options).is_plain
    for decided in ("127.0.0.1:5000", "plain.example", "tls.example:1"):
        assert not may_lack_tls(decided, options)
    assert not may_lack_tls("docker.io", RegistryOptions())


def test_docker_hub_has_its_own_key() -> None:
    assert auth_keys("docker.io")[0] == "https://index.docker.io/v1/"
    assert auth_keys("ghcr.io") == ("ghcr.io",)
    assert not is_loopback("docker.io")
