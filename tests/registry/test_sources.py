from __future__ import annotations

import io
from pathlib import Path

import pytest

from layerwright.registry.client import Registry
from layerwright.registry.errors import NotFound, RegistryError, Unreachable
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import AMD64, LARGE, LAYER, Connect, at, image_of, of, quick
from tests.registry.test_auth import basic, write
from tests.support.machine import unused_port

CONTENT = image_of(AMD64).encode()
FOUND = Say(body=CONTENT, headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
MANIFEST, BLOB = "GET /v2/a/b/manifests/1", f"GET /v2/a/b/blobs/{of(LARGE).digest}"
BY_DIGEST = f"GET /v2/a/b/manifests/{of(CONTENT).digest}"


def mirrored(connect: Connect, directory: Path, origin: str, *mirrors: str, more: str = "", **options: object) -> Registry:
    """A client that has `mirrors` for `origin`."""
    (directory / "containers").mkdir(exist_ok=True)
    listed = "".join(f"[[registry.mirror]]\nlocation = '{one}'\n{more}" for one in mirrors)
    (directory / "containers/registries.conf").write_text(f"[[registry]]\nlocation = '{origin}'\n{listed}")
    return connect(quick(system_dir=str(directory), **options))


def test_a_mirror_is_asked_instead_of_the_registry(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    storage.on(MANIFEST, FOUND)
    client = mirrored(connect, tmp_path, faulty.address, storage.address)
    assert client.manifest(at(faulty.address, "a/b:1")).content == CONTENT
    assert faulty.asked == []


@pytest.mark.parametrize("bad", [Say(status=404), Say(status=503), Say(status=401), Say(status=403), Say(status=429), Say(silent=True), Say(body=b"<html>")])
def test_the_registry_is_asked_for_what_a_mirror_does_not_give(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect, bad: Say) -> None:
    storage.on(BY_DIGEST, bad)
    faulty.on(BY_DIGEST, FOUND)
    client = mirrored(connect, tmp_path, faulty.address, f"127.0.0.1:{unused_port()}", storage.address)
    assert client.manifest(at(faulty.address, f"a/b@{of(CONTENT).digest}")).content == CONTENT
    assert storage.lines == [BY_DIGEST]


def test_nothing_under_the_name_is_what_the_registry_says(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    client = mirrored(connect, tmp_path, faulty.address, storage.address)
    assert client.head(at(faulty.address, "a/b:1")) is None
    assert (len(faulty.asked), len(storage.asked)) == (1, 1)
    with pytest.raises(NotFound, match=f"mirrors asked before: {storage.address}"):
        client.manifest(at(faulty.address, "a/b:1"))


def test_a_mirror_that_fails_twice_is_left_alone(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    storage.on(MANIFEST, Say(status=503))
    faulty.on(MANIFEST, FOUND)
    client = mirrored(connect, tmp_path, faulty.address, storage.address)
    for _ in range(4):
        client.manifest(at(faulty.address, "a/b:1"))
    assert (len(storage.asked), len(faulty.asked)) == (2, 4)


def test_a_blob_that_a_mirror_damages_comes_from_the_registry(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    storage.on(BLOB, Say(body=LARGE[:-1] + b"!"))
    faulty.on(BLOB, Say(body=LARGE))
    client = mirrored(connect, tmp_path, faulty.address, storage.address)
    assert client.read_blob(at(faulty.address, "a/b:1"), of(LARGE), lambda stream: stream.read()) == LARGE
    assert (len(storage.asked), len(faulty.asked)) == (1, 1)


def test_a_blob_that_a_mirror_cuts_is_ended_by_the_registry(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    storage.on(BLOB, Say(body=LARGE, cut=2_000_000), Say(status=500))
    cut_at = []

    def rest(asked):  # type: ignore[no-untyped-def]
        cut_at.append(int(asked.headers["range"].removeprefix("bytes=").removesuffix("-")))
        return Say(status=206, body=LARGE[cut_at[0] :], headers={"Content-Range": f"bytes {cut_at[0]}-{len(LARGE) - 1}/{len(LARGE)}"})

    faulty.on(BLOB, rest)
    client = mirrored(connect, tmp_path, faulty.address, storage.address)
    assert client.read_blob(at(faulty.address, "a/b:1"), of(LARGE), lambda stream: stream.read()) == LARGE
    assert cut_at[0] > 0


def test_the_registrys_login_does_not_go_to_a_mirror(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    write(tmp_path, {"auths": {faulty.address: {"auth": basic("ann:hunter2")}}})
    refused = Say(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    storage.on(MANIFEST, refused)
    faulty.on(MANIFEST, refused, FOUND)
    client = mirrored(connect, tmp_path, faulty.address, storage.address, config_dir=str(tmp_path))
    client.manifest(at(faulty.address, "a/b:1"))
    assert [one.headers.get("authorization") for one in storage.asked] == [None]
    assert [one.headers.get("authorization") for one in faulty.asked] == [None, f"Basic {basic('ann:hunter2')}"]


def test_what_is_pushed_goes_to_the_registry_alone(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    client = mirrored(connect, tmp_path, faulty.address, storage.address)
    with pytest.raises(RegistryError):
        client.put_blob(at(faulty.address, "a/b:1"), of(LAYER), lambda: io.BytesIO(LAYER))
    assert not client.has_blob(at(faulty.address, "a/b:1"), of(LAYER).digest)
    assert storage.asked == []
    assert len(faulty.asked) >= 3


def test_a_mirror_for_digests_is_asked_for_no_tag(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    for server in (faulty, storage):
        server.on(MANIFEST, FOUND)
        server.on(BY_DIGEST, FOUND)
    client = mirrored(connect, tmp_path, faulty.address, storage.address, more="pull-from-mirror = 'digest-only'\n")
    client.manifest(at(faulty.address, "a/b:1"))
    client.manifest(at(faulty.address, f"a/b@{of(CONTENT).digest}"))
    assert (faulty.lines, storage.lines) == ([MANIFEST], [BY_DIGEST])


def test_a_mirror_for_tags_gives_what_its_tag_named(tmp_path: Path, faulty: FaultyServer, storage: FaultyServer, connect: Connect) -> None:
    for server in (faulty, storage):
        server.on(MANIFEST, FOUND)
        server.on(BY_DIGEST, FOUND)
    client = mirrored(connect, tmp_path, faulty.address, storage.address, more="pull-from-mirror = 'tag-only'\n")
    client.manifest(at(faulty.address, f"a/b@{of(CONTENT).digest}"))
    client.manifest(at(faulty.address, "a/b:1"))
    client.manifest(at(faulty.address, f"a/b@{of(CONTENT).digest}"))
    assert (faulty.lines, storage.lines) == ([BY_DIGEST], [MANIFEST, BY_DIGEST])


def test_all_that_failed_is_told(tmp_path: Path, connect: Connect) -> None:
    mirror, origin = f"127.0.0.1:{unused_port()}", f"localhost:{unused_port()}"
    with pytest.raises(Unreachable, match=rf"cannot connect to {origin}: .*; mirrors asked before: {mirror}: .*cannot connect to {mirror}"):
        mirrored(connect, tmp_path, origin, mirror).manifest(at(origin, "a/b:1"))
