from __future__ import annotations

from dataclasses import replace

import pytest

from layerwright.limits import MANIFEST_BYTES
from layerwright.oci.digest import digest_of
from layerwright.oci.manifest import OCI_MANIFEST
from layerwright.registry.client import Registry
from layerwright.registry.errors import NotFound, RegistryError, Unauthorized, Unreachable, WrongBytes
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import AMD64, Connect, at, image_of, of, quick

CONTENT = image_of(AMD64).encode()
DIGEST = digest_of(CONTENT)
TYPE = {"Content-Type": OCI_MANIFEST}
WHOLE = Say(body=CONTENT, headers=TYPE | {"Docker-Content-Digest": DIGEST})
GET = "GET /v2/a/b/manifests/1"
HEAD = "HEAD /v2/a/b/manifests/1"


def test_all_four_kinds_are_accepted(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(GET, WHOLE)
    assert client.manifest(at(faulty.address, "a/b:1")).descriptor == of(CONTENT, OCI_MANIFEST)
    accept = faulty.asked[0].headers["accept"]
    for kind in ("oci.image.index.v1", "oci.image.manifest.v1", "docker.distribution.manifest.list.v2", "docker.distribution.manifest.v2"):
        assert f"application/vnd.{kind}+json" in accept


def test_a_head_is_enough_where_it_says_all(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(HEAD, WHOLE)
    assert client.head(at(faulty.address, "a/b:1")) == of(CONTENT, OCI_MANIFEST)
    assert faulty.lines == [HEAD]


@pytest.mark.parametrize("answer", [Say(body=CONTENT, headers=TYPE), Say(status=405), replace(WHOLE, headers={"Docker-Content-Digest": DIGEST})])
def test_a_head_that_says_too_little_is_followed_by_a_get(faulty: FaultyServer, client: Registry, answer: Say) -> None:
    faulty.on(HEAD, answer)
    faulty.on(GET, Say(body=CONTENT, headers=TYPE))
    assert client.head(at(faulty.address, "a/b:1")) == of(CONTENT, OCI_MANIFEST)
    assert faulty.lines == [HEAD, GET]


def test_what_is_not_there(faulty: FaultyServer, client: Registry) -> None:
    assert client.head(at(faulty.address, "a/b:1")) is None
    faulty.on(HEAD, Say(status=405))
    assert client.head(at(faulty.address, "a/b:1")) is None
    faulty.on(GET, Say(status=404, body=b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest\\u001b[31m unknown", "detail": {"Tag": "1"}}]}'))
    with pytest.raises(NotFound) as caught:
        client.manifest(at(faulty.address, "a/b:1"))
    assert caught.value.where == f"{faulty.address}/a/b:1"
    assert caught.value.what == f'cannot read the manifest: {faulty.address} answers 404 Not Found: MANIFEST_UNKNOWN: manifest [31m unknown ({{"Tag":"1"}})'


def test_a_denial_is_told_in_the_registrys_words(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(GET, Say(status=403, body=b'{"errors": [{"code": "DENIED", "message": "pull access denied"}]}'))
    with pytest.raises(Unauthorized, match="DENIED: pull access denied"):
        client.manifest(at(faulty.address, "a/b:1"))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_registry_is_asked_again(faulty: FaultyServer, client: Registry, status: int) -> None:
    faulty.on(GET, Say(status=status), Say(status=status, headers={"Retry-After": "0"}), WHOLE)
    assert client.manifest(at(faulty.address, "a/b:1")).content == CONTENT
    faulty.on(GET, Say(status=status, body=b'{"errors": [{"code": "TOOMANYREQUESTS"}]}'))
    with pytest.raises(Unreachable, match=rf"answers {status} .*TOOMANYREQUESTS \(tried 3 times in \d+ s\)"):
        client.manifest(at(faulty.address, "a/b:1"))


@pytest.mark.parametrize("status", [400, 418, 501])
def test_a_refusal_is_not_asked_again(faulty: FaultyServer, client: Registry, status: int) -> None:
    faulty.on(GET, Say(status=status, body=b"<html>\x00"))
    with pytest.raises(RegistryError, match=f"answers {status}"):
        client.manifest(at(faulty.address, "a/b:1"))
    assert len(faulty.asked) == 1


def test_a_manifest_asked_by_digest_is_held_against_it(faulty: FaultyServer, client: Registry) -> None:
    path = f"GET /v2/a/b/manifests/{DIGEST}"
    faulty.on(path, Say(body=CONTENT + b" ", headers=TYPE), WHOLE)
    assert client.manifest(at(faulty.address, f"a/b:1@{DIGEST}")).content == CONTENT
    assert faulty.lines == [path, path]
    faulty.on(path, Say(body=CONTENT + b" ", headers=TYPE | {"Docker-Content-Digest": digest_of(CONTENT + b" ")}))
    with pytest.raises(WrongBytes, match=f"came damaged: it has digest {digest_of(CONTENT + b' ')}") as caught:
        client.manifest(at(faulty.address, f"a/b:1@{DIGEST}"))
    assert caught.value.where.endswith(f"/a/b:1@{DIGEST}")


def test_a_manifest_asked_by_tag_is_held_against_what_the_registry_says(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(GET, replace(WHOLE, body=CONTENT[:-1] + b"]"), WHOLE)
    assert client.manifest(at(faulty.address, "a/b:1")).content == CONTENT


def test_a_head_by_digest_is_held_against_it(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(f"HEAD /v2/a/b/manifests/{DIGEST}", Say(body=b"x", headers=TYPE | {"Docker-Content-Digest": digest_of(b"x")}))
    with pytest.raises(WrongBytes):
        client.head(at(faulty.address, f"a/b@{DIGEST}"))


def test_a_manifest_without_end_is_not_read(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(GET, Say(body=b" " * (MANIFEST_BYTES + 1), headers=TYPE))
    with pytest.raises(RegistryError, match="over the limit"):
        client.manifest(at(faulty.address, "a/b:1"))


def test_the_type_in_the_manifest_goes_before_the_header(faulty: FaultyServer, connect: Connect) -> None:
    faulty.on(GET, Say(body=CONTENT, headers={"Content-Type": "application/json; charset=utf-8"}), Say(body=b'{"x": 1}', headers={"Content-Type": "a/b; c=d"}))
    client = connect(quick())
    assert client.manifest(at(faulty.address, "a/b:1")).descriptor.media_type == OCI_MANIFEST
    assert client.manifest(at(faulty.address, "a/b:1")).descriptor.media_type == "a/b"
