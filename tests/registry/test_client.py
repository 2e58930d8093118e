"""Against a real registry, and against what skopeo pushes and pulls."""

from __future__ import annotations

import io
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwright.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX
from layerwright.oci.platform import Platform
from layerwright.oci.reference import Reference
from layerwright.registry.client import Registry
from layerwright.registry.errors import BlobsMissing, NotFound, Unauthorized
from layerwright.registry.pull import fetch_config, resolve
from tests.registry.images import AMD64, LARGE, LAYER, Connect, at, image_of, of, push_image, push_index, quick
from tests.registry.test_auth import basic, write
from tests.support.machine import find_program
from tests.support.registry_server import RegistryServer

ARM64 = Platform("linux", "arm64")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("open")) as one:
        yield one


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("guarded"), users={"ann": "hunter2"}) as one:
        yield one


def skopeo(*arguments: str) -> bytes:
    return subprocess.run([find_program("skopeo"), "--insecure-policy", *arguments], check=True, capture_output=True).stdout


def test_what_was_pushed_is_pulled(server: RegistryServer, client: Registry) -> None:
    reference = at(server.address, "own/image:1")
    assert client.head(reference) is None
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN: manifest unknown"):
        client.manifest(reference)
    pushed = push_image(client, reference)
    assert client.head(reference) is not None
    found = resolve(client, reference, AMD64)
    assert found.digest == pushed.digest
    assert found.manifest == image_of(AMD64)
    with client.blob(found.pinned, found.manifest.layers[0]) as stream:
        assert stream.read() == LAYER
    assert fetch_config(client, found, AMD64)[0].platform == AMD64


def test_a_second_push_sends_no_blob(server: RegistryServer, client: Registry) -> None:
    reference = at(server.address, "own/twice:1")
    push_image(client, reference)
    sent, requests = client.bytes_out, client.requests
    push_image(client, reference)
    assert client.requests - requests == 3
    assert client.bytes_out - sent == len(image_of(AMD64).encode())


def test_a_platform_is_chosen_from_an_index(server: RegistryServer, client: Registry) -> None:
    reference = at(server.address, "own/many:1")
    amd64, arm64 = push_image(client, reference, AMD64), push_image(client, reference, ARM64)
    index = push_index(client, reference, amd64, arm64)
    head = client.head(reference)
    assert head is not None
    assert (head.digest, head.media_type) == (index.digest, OCI_INDEX)
    found = resolve(client, reference, ARM64)
    assert (found.digest, found.descriptor.digest) == (index.digest, arm64.digest)
    assert fetch_config(client, found, ARM64)[0].platform == ARM64


def test_a_blob_is_mounted_from_another_repository(server: RegistryServer, client: Registry) -> None:
    push_image(client, at(server.address, "own/source:1"))
    target = at(server.address, "own/target:1")
    assert not client.has_blob(target, of(LAYER).digest)
    assert client.mount_blob(target, of(LAYER).digest, "own/source")
    assert client.has_blob(target, of(LAYER).digest)
    assert not client.mount_blob(target, of(b"nowhere").digest, "own/source")
    assert '"DELETE /v2/own/target/blobs/uploads/' in server.log


def test_a_large_blob_goes_there_and_back(server: RegistryServer, client: Registry) -> None:
    content = LARGE * 3
    reference = at(server.address, "own/large:1")
    client.put_blob(reference, of(content), lambda: io.BytesIO(content))
    assert client.read_blob(reference, of(content), lambda stream: stream.read()) == content


def test_an_empty_blob_goes_there_and_back(server: RegistryServer, client: Registry) -> None:
    reference = at(server.address, "own/empty:1")
    client.put_blob(reference, of(b""), lambda: io.BytesIO(b""))
    assert client.blob_bytes(reference, of(b"")) == b""


def test_that_pushing_is_allowed_leaves_no_upload_there(server: RegistryServer, guarded: RegistryServer, client: Registry) -> None:
    client.check_push(at(server.address, "own/fresh:1"))
    assert client.requests == 2
    assert '"DELETE /v2/own/fresh/blobs/uploads/' in server.log
    assert not list(server.storage.glob("docker/registry/v2/repositories/own/fresh/_uploads/*/startedat"))
    with pytest.raises(Unauthorized, match=r"cannot push to .*/own/fresh: .* UNAUTHORIZED: authentication required") as caught:
        client.check_push(at(guarded.address, "own/fresh:1"))
    assert f"layerwright cr login {guarded.address}" in caught.value.mend


def test_a_blob_known_to_be_new_may_be_there_all_the_same(server: RegistryServer, client: Registry) -> None:
    reference = at(server.address, "own/new:1")
    for _ in range(2):
        client.put_blob(reference, of(LAYER), lambda: io.BytesIO(LAYER), may_exist=False)
    assert client.requests == 4
    assert client.blob_bytes(reference, of(LAYER)) == LAYER


def test_a_manifest_whose_blob_is_not_there_can_be_healed(server: RegistryServer, client: Registry) -> None:
    reference, manifest = at(server.address, "own/healed:1"), image_of(AMD64)
    with pytest.raises(BlobsMissing, match="MANIFEST_BLOB_UNKNOWN"):
        client.put_manifest(reference, manifest.encode(), manifest.media_type)
    push_image(client, reference)
    assert client.manifest(reference).content == manifest.encode()


def test_threads_share_one_client(server: RegistryServer, client: Registry) -> None:
    failed: list[BaseException] = []

    def push(number: int) -> None:
        try:
            content = LARGE + bytes([number])
            reference = at(server.address, f"own/thread-{number % 2}:1")
            client.put_blob(reference, of(content), lambda: io.BytesIO(content))
            assert client.read_blob(reference, of(content), lambda stream: stream.read()) == content
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []
    assert client.bytes_in == client.bytes_out == 8 * (len(LARGE) + 1)


@pytest.mark.parametrize(("format", "media_type"), [("v2s2", DOCKER_MANIFEST), ("oci", "application/vnd.oci.image.manifest.v1+json")])
def test_what_skopeo_pushed_is_pulled(tmp_path: Path, server: RegistryServer, client: Registry, format: str, media_type: str) -> None:
    push_image(client, at(server.address, f"theirs/{format}:0"))
    source, target = (f"docker://{server.address}/theirs/{format}:{tag}" for tag in (0, 1))
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", format, source, f"dir:{tmp_path / 'copy'}")
    skopeo("copy", "--dest-tls-verify=false", f"dir:{tmp_path / 'copy'}", target)
    found = resolve(client, at(server.address, f"theirs/{format}:1"), AMD64)
    assert found.manifest.media_type == media_type
    assert client.blob_bytes(found.reference, found.manifest.layers[0]) == LAYER
    assert fetch_config(client, found, AMD64)[0].platform == AMD64


def test_a_docker_list_is_pulled(server: RegistryServer, client: Registry) -> None:
    reference = at(server.address, "own/list:1")
    found = docker_image(client, reference)
    listed = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [found]}
    client.put_manifest(reference, json.dumps(listed).encode(), DOCKER_LIST)
    resolved = resolve(client, reference, AMD64)
    assert resolved.manifest.media_type == DOCKER_MANIFEST
    assert resolved.descriptor.digest == found["digest"]


def docker_image(client: Registry, reference: Reference) -> dict[str, object]:
    push_image(client, reference)
    manifest = json.loads(image_of(AMD64).encode()) | {"mediaType": DOCKER_MANIFEST}
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    content = json.dumps(manifest).encode()
    digest = client.put_manifest(reference, content, DOCKER_MANIFEST)
    return {"mediaType": DOCKER_MANIFEST, "digest": digest, "size": len(content), "platform": {"os": "linux", "architecture": "amd64"}}


def test_what_we_pushed_is_read_by_skopeo(server: RegistryServer, client: Registry) -> None:
    pushed = push_image(client, at(server.address, "own/shared:1"))
    read = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{server.address}/own/shared:1"))
    assert read["Digest"] == pushed.digest
    assert read["Layers"] == [of(LAYER).digest]


def test_a_guarded_registry_wants_the_login(tmp_path: Path, guarded: RegistryServer, connect: Connect) -> None:
    reference = at(guarded.address, "own/secret:1")
    directory = write(tmp_path, {"auths": {guarded.address: {"auth": basic("ann:hunter2")}}})
    client = connect(quick(config_dir=str(directory)))
    pushed = push_image(client, reference)
    assert resolve(client, reference, AMD64).digest == pushed.digest
    for stranger in (connect(quick()), connect(quick(config_dir=str(write(tmp_path, {"auths": {guarded.address: {"auth": basic("ann:hunter3")}}}))))):
        with pytest.raises(Unauthorized, match="UNAUTHORIZED: authentication required") as caught:
            stranger.manifest(reference)
        assert str(caught.value).startswith(str(reference))
        assert f"layerwright cr login {guarded.address}" in caught.value.mend
        assert "hunter" not in str(caught.value)
        with pytest.raises(Unauthorized):
            stranger.put_blob(reference, of(LAYER), lambda: io.BytesIO(LAYER))


def test_the_login_is_found_by_the_environment(tmp_path: Path, guarded: RegistryServer, connect: Connect) -> None:
    (tmp_path / ".docker").mkdir()
    write(tmp_path / ".docker", {"auths": {guarded.address: {"auth": basic("ann:hunter2")}}})
    assert connect(quick(config_dir="", env={"HOME": str(tmp_path)})).head(at(guarded.address, "own/none:1")) is None
    assert connect(quick(config_dir="", env={"DOCKER_CONFIG": str(tmp_path / ".docker")})).head(at(guarded.address, "own/none:1")) is None
