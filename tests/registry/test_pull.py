from __future__ import annotations

from dataclasses import replace

import pytest

from layerwright.oci.manifest import OCI_INDEX, OCI_MANIFEST, BadManifest, Descriptor, Index
from layerwright.oci.platform import Platform
from layerwright.registry.client import Registry
from layerwright.registry.errors import NoSuchPlatform, NotFound, WrongBytes
from layerwright.registry.pull import fetch_config, ranked, resolve
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import AMD64, at, config_bytes, image_of, of

ARM64 = Platform("linux", "arm64")
UNKNOWN = Platform("unknown", "unknown")


def offer(*texts: str) -> list[Descriptor]:
    return [of(text.encode(), OCI_MANIFEST, Platform(*text.split("/"))) for text in texts]


@pytest.mark.parametrize(
    ("wanted", "offered", "order"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], ["linux/amd64"]),
        ("linux/amd64", ["windows/amd64"], []),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64/v1", "linux/amd64/v2"], ["linux/amd64/v1", "linux/amd64/v2", "linux/amd64/v3"]),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64"], ["linux/amd64", "linux/amd64/v2"]),
        ("linux/arm/v7", ["linux/arm", "linux/arm/v6", "linux/arm/v7"], ["linux/arm/v7", "linux/arm"]),
        ("linux/arm", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], ["linux/arm/v7", "linux/arm/v5", "linux/arm/v6"]),
        ("linux/arm64", ["linux/arm64/v9", "linux/arm64/v8"], ["linux/arm64/v8", "linux/arm64/v9"]),
    ],
)
def test_the_best_offer_comes_first(wanted: str, offered: list[str], order: list[str]) -> None:
    assert [str(one.platform) for one in ranked(offer(*offered), Platform(*wanted.split("/")))] == order


def serve(faulty: FaultyServer, content: bytes, media_type: str, tag: str = "") -> None:
    faulty.on(f"GET /v2/a/b/manifests/{tag or of(content).digest}", Say(body=content, headers={"Content-Type": media_type}))


def serve_image(faulty: FaultyServer, platform: Platform, *, named: Platform | None = None) -> Descriptor:
    manifest = image_of(platform)
    serve(faulty, manifest.encode(), OCI_MANIFEST)
    faulty.on(f"GET /v2/a/b/blobs/{manifest.config.digest}", Say(body=config_bytes(platform)))
    return of(manifest.encode(), OCI_MANIFEST, named or platform)


def serve_index(faulty: FaultyServer, *manifests: Descriptor, tag: str = "") -> Descriptor:
    index = Index(manifests=manifests)
    serve(faulty, index.encode(), OCI_INDEX, tag)
    return of(index.encode(), OCI_INDEX)


def test_a_manifest_is_resolved_and_its_config_read(faulty: FaultyServer, client: Registry) -> None:
    serve_image(faulty, AMD64)
    serve(faulty, image_of(AMD64).encode(), OCI_MANIFEST, "1")
    found = resolve(client, at(faulty.address, "a/b:1"), AMD64)
    assert found.manifest == image_of(AMD64)
    assert found.manifest_bytes == image_of(AMD64).encode()
    assert found.digest == found.descriptor.digest == of(found.manifest_bytes).digest
    assert str(found.pinned) == f"{faulty.address}/a/b@{found.digest}"
    assert fetch_config(client, found, AMD64)[1] == config_bytes(AMD64)
    with pytest.raises(NoSuchPlatform, match="there is no image for linux/arm64: it exists for linux/amd64"):
        fetch_config(client, found, ARM64)


def test_an_index_gives_the_platforms_manifest_and_its_own_digest(faulty: FaultyServer, client: Registry) -> None:
    index = serve_index(faulty, serve_image(faulty, ARM64), arm := serve_image(faulty, AMD64), tag="1")
    found = resolve(client, at(faulty.address, "a/b:1"), AMD64)
    assert found.digest == index.digest
    assert found.descriptor.digest == arm.digest
    assert str(found.reference) == f"{faulty.address}/a/b:1"


def test_the_word_of_an_index_stands(faulty: FaultyServer, client: Registry) -> None:
    serve_index(faulty, serve_image(faulty, ARM64, named=AMD64), tag="1")
    found = resolve(client, at(faulty.address, "a/b:1"), AMD64)
    assert fetch_config(client, found, AMD64)[0].platform == ARM64


def test_an_index_without_the_platform_names_those_it_has(faulty: FaultyServer, client: Registry) -> None:
    attestation = replace(serve_image(faulty, AMD64), platform=UNKNOWN)
    serve_index(faulty, serve_image(faulty, Platform("linux", "s390x")), serve_image(faulty, ARM64), attestation, tag="1")
    with pytest.raises(NoSuchPlatform) as caught:
        resolve(client, at(faulty.address, "a/b:1"), AMD64)
    assert caught.value.what == "there is no image for linux/amd64: it exists for linux/arm64, linux/s390x"
    assert caught.value.where == f"{faulty.address}/a/b:1"


def test_an_index_inside_an_index_is_looked_into(faulty: FaultyServer, client: Registry) -> None:
    inner = serve_index(faulty, wanted := serve_image(faulty, AMD64))
    other = serve_index(faulty, serve_image(faulty, ARM64))
    serve_index(faulty, serve_image(faulty, Platform("linux", "s390x")), other, inner, tag="1")
    assert resolve(client, at(faulty.address, "a/b:1"), AMD64).descriptor.digest == wanted.digest
    with pytest.raises(NoSuchPlatform, match="linux/amd64, linux/arm64, linux/s390x"):
        resolve(client, at(faulty.address, "a/b:1"), Platform("linux", "riscv64"))


def test_a_manifest_without_a_platform_may_be_for_any(faulty: FaultyServer, client: Registry) -> None:
    nameless = replace(serve_image(faulty, AMD64), platform=None)
    serve_index(faulty, nameless, tag="1")
    assert resolve(client, at(faulty.address, "a/b:1"), AMD64).descriptor.digest == nameless.digest


def test_indexes_without_end_are_not_followed(faulty: FaultyServer, client: Registry) -> None:
    inner = serve_index(faulty, serve_image(faulty, AMD64))
    for _ in range(4):
        inner = serve_index(faulty, inner)
    serve_index(faulty, inner, tag="1")
    with pytest.raises(BadManifest, match="no image within 3 levels"):
        resolve(client, at(faulty.address, "a/b:1"), AMD64)
    many = [serve_index(faulty, replace(serve_image(faulty, ARM64), annotations={"n": str(number)})) for number in range(20)]
    serve_index(faulty, *many, tag="2")
    with pytest.raises(BadManifest, match="more than 16 others"):
        resolve(client, at(faulty.address, "a/b:2"), AMD64)


def test_an_index_that_misses_its_manifest_is_told(faulty: FaultyServer, client: Registry) -> None:
    serve_index(faulty, of(b"nowhere", OCI_MANIFEST, AMD64), tag="1")
    with pytest.raises(NotFound) as caught:
        resolve(client, at(faulty.address, "a/b:1"), AMD64)
    assert of(b"nowhere").digest in str(caught.value)


def test_an_index_that_lies_about_a_size_is_told(faulty: FaultyServer, client: Registry) -> None:
    serve_index(faulty, replace(serve_image(faulty, AMD64), size=7), tag="1")
    with pytest.raises(WrongBytes, match="its index says 7"):
        resolve(client, at(faulty.address, "a/b:1"), AMD64)


def test_what_is_no_image_is_told(faulty: FaultyServer, client: Registry) -> None:
    serve(faulty, b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+prettyjws", "1")
    with pytest.raises(BadManifest, match="schemaVersion 1"):
        resolve(client, at(faulty.address, "a/b:1"), AMD64)


def test_a_config_without_end_is_not_read(faulty: FaultyServer, client: Registry) -> None:
    manifest = image_of(AMD64)
    manifest = replace(manifest, config=replace(manifest.config, size=1 << 40))
    serve(faulty, manifest.encode(), OCI_MANIFEST, "1")
    with pytest.raises(BadManifest, match="over the limit"):
        fetch_config(client, resolve(client, at(faulty.address, "a/b:1"), AMD64), AMD64)
