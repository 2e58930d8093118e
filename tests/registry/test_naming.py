from __future__ import annotations

import json

import pytest

from layerwright.limits import MANIFEST_BYTES
from layerwright.oci.digest import digest_of
from layerwright.oci.manifest import OCI_MANIFEST
from layerwright.registry.client import Registry
from layerwright.registry.errors import BlobsMissing, NameTaken, RegistryError, Unauthorized, WrongBytes
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import at

PUT, HEAD = "PUT /v2/a/b/manifests/1", "HEAD /v2/a/b/manifests/1"
ECR = "The image tag '1' already exists in the 'a/b' repository and cannot be overwritten because the repository is immutable."
TAKEN = [
    (400, "TAG_INVALID", ECR),
    (400, "TAG_IMMUTABLE", "tag 1 is immutable"),
    (412, "PRECONDITION", "Failed to process request due to 'b:1' configured as immutable."),
    (409, "CONFLICT", "conflict"),
    (403, "DENIED", "tag immutability is enabled: cannot update tag 1"),
    (405, "UNSUPPORTED", "manifest already exists and cannot be overwritten"),
]


def body(*errors: object) -> bytes:
    return json.dumps({"errors": errors}).encode()


def test_a_manifest_is_named_by_tag_or_digest(faulty: FaultyServer, client: Registry) -> None:
    content = b'{"schemaVersion": 2}'
    digest = digest_of(content)
    for name, path in (("a/b:1", "1"), (f"a/b:1@{digest}", "1"), (f"a/b@{digest}", digest)):
        faulty.on(f"PUT /v2/a/b/manifests/{path}", Say(status=503), Say(status=201, headers={"Docker-Content-Digest": digest}))
        assert client.put_manifest(at(faulty.address, name), content, OCI_MANIFEST) == digest
        assert faulty.asked[-1].body == content
        assert faulty.asked[-1].headers["content-type"] == OCI_MANIFEST


def test_a_manifest_that_cannot_be_is_not_pushed(faulty: FaultyServer, client: Registry) -> None:
    with pytest.raises(RegistryError, match="over the limit"):
        client.put_manifest(at(faulty.address, "a/b:1"), b" " * (MANIFEST_BYTES + 1), OCI_MANIFEST)
    with pytest.raises(WrongBytes):
        client.put_manifest(at(faulty.address, f"a/b@{digest_of(b'x')}"), b"y", OCI_MANIFEST)
    assert faulty.asked == []


def test_a_registry_that_changes_manifests_is_told(faulty: FaultyServer, client: Registry) -> None:
    faulty.on("PUT /v2/a/b/manifests/1", Say(status=201, headers={"Docker-Content-Digest": digest_of(b"other")}))
    with pytest.raises(WrongBytes, match="the registry keeps the manifest as"):
        client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST)


@pytest.mark.parametrize(("status", "code"), [(400, "MANIFEST_BLOB_UNKNOWN"), (404, "BLOB_UNKNOWN")])
def test_a_manifest_that_misses_a_blob_is_told_in_the_registrys_words(faulty: FaultyServer, client: Registry, status: int, code: str) -> None:
    faulty.on(PUT, Say(status=status, body=body({"code": code, "message": "blob unknown to registry"}, {"code": "MANIFEST_INVALID"}, 7)))
    with pytest.raises(BlobsMissing, match=f"{code}: blob unknown to registry; MANIFEST_INVALID; 7 .tried 3 times"):
        client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST)
    assert faulty.lines == [PUT] * 3


def test_a_blob_that_is_seen_late_is_no_error(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PUT, Say(status=400, body=body({"code": "MANIFEST_BLOB_UNKNOWN"})), Say(status=201))
    assert client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST) == digest_of(b"{}")


@pytest.mark.parametrize(("status", "code", "message"), TAKEN)
def test_a_name_that_is_not_moved_is_told_at_once(faulty: FaultyServer, client: Registry, status: int, code: str, message: str) -> None:
    faulty.on(PUT, Say(status=status, body=body({"code": code, "message": message})))
    faulty.on(HEAD, Say(headers={"Docker-Content-Digest": digest_of(b"other")}))
    with pytest.raises(NameTaken) as caught:
        client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST)
    assert f"{code}: {message}" in caught.value.what
    assert caught.value.mend
    assert faulty.lines == [PUT, HEAD]


@pytest.mark.parametrize(("status", "code", "message"), TAKEN)
def test_a_name_that_stands_for_this_manifest_already_is_no_error(faulty: FaultyServer, client: Registry, status: int, code: str, message: str) -> None:
    """As after an answer that was lost: what was pushed the first time cannot be pushed again."""
    faulty.on(PUT, Say(silent=True), Say(status=status, body=body({"code": code, "message": message})))
    faulty.on(HEAD, Say(headers={"Docker-Content-Digest": digest_of(b"{}")}))
    assert client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST) == digest_of(b"{}")
    assert faulty.lines == [PUT, PUT, HEAD]


def test_a_name_that_may_not_be_looked_at_is_taken(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PUT, Say(status=409))
    faulty.on(HEAD, Say(status=403))
    with pytest.raises(NameTaken):
        client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [(403, "requested access to the resource is denied", Unauthorized), (412, "quota exceeded", RegistryError), (400, "manifest invalid", RegistryError)],
)
def test_another_refusal_takes_no_name(faulty: FaultyServer, client: Registry, status: int, message: str, kind: type[RegistryError]) -> None:
    faulty.on(PUT, Say(status=status, body=body({"code": "DENIED", "message": message})))
    with pytest.raises(kind, match=message) as caught:
        client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST)
    assert not isinstance(caught.value, NameTaken)


def test_a_digest_is_never_taken(faulty: FaultyServer, client: Registry) -> None:
    digest = digest_of(b"{}")
    faulty.on(f"PUT /v2/a/b/manifests/{digest}", Say(status=409, body=body({"code": "CONFLICT"})))
    with pytest.raises(RegistryError, match="CONFLICT") as caught:
        client.put_manifest(at(faulty.address, f"a/b@{digest}"), b"{}", OCI_MANIFEST)
    assert not isinstance(caught.value, NameTaken)
