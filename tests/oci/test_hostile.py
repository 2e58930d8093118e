"""Manifests and configs that no tool writes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from layerwright.oci.image_config import decode_image_config
from layerwright.oci.manifest import BadManifest, Manifest, check_image, decode_json, decode_manifest

DIGEST = "sha256:" + "a" * 64
LAYER: dict[str, Any] = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 1}
CONFIG: dict[str, Any] = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 1}
IMAGE: dict[str, Any] = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}


def encoded(**more: object) -> bytes:
    return json.dumps(IMAGE | more).encode()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[" * 100_000, "nests more than 64"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nests more than 64"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1e999}', "1e999 is no number"),
        (b'{"a": "\\ud800"}', "is not JSON"),
        (b'{"a": "\xed\xa0\x80"}', "is not JSON"),
        (b"\xff\xfe{\x00}\x00", "is not JSON"),
        (b"9" * 5000, "is not JSON"),
        (b" " * (4 << 20) + b"1", "over the limit"),
    ],
)
def test_json_that_readers_take_differently_is_refused(content: bytes, what: str) -> None:
    with pytest.raises(BadManifest, match=what) as caught:
        decode_json(content, what="it", where="here")
    assert caught.value.where == "here"
    assert "\n" not in caught.value.what


def test_a_name_that_stands_twice_among_many_is_found_at_once() -> None:
    """One of 4 MiB took an hour once."""
    content = b"{" + b",".join(b'"%x":0' % number for number in range(60_000)) + b',"0":1}'
    begun = time.process_time()
    with pytest.raises(BadManifest, match="'0' stands twice"):
        decode_json(content, what="it", where="here")
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (encoded(manifests=[]), "an index and an image at once"),
        (encoded(layers=[LAYER | {"size": True}]), "lacks a sha256 digest or a size"),
        (encoded(layers=[LAYER | {"size": 1 << 50}]), "over the limit"),
        (encoded(layers=[LAYER | {"mediaType": 5}]), "is not a string"),
        (encoded(layers=[LAYER] * 1001), "1,001 layers"),
        (encoded(layers={"a": 1}), "layers is not a list"),
        (encoded(config=LAYER | {"platform": {"os": "a/b", "architecture": "c"}}), "a platform that is none"),
        (encoded(schemaVersion={"x": "y" * 500}), "schemaVersion"),
    ],
)
def test_manifests_are_refused(content: bytes, what: str) -> None:
    with pytest.raises(BadManifest, match=what):
        decode_manifest(content)


@pytest.mark.parametrize(
    "config",
    [
        {"config": {"Labels": [1]}},
        {"config": {"Volumes": ["/a", 1]}},
        {"config": {"Env": "A=b"}},
        {"config": {"Env": ["A=\0"]}},
        {"config": {"User": 5}},
        {"config": {"Healthcheck": "no"}},
        {"config": "x"},
        {"history": 5},
        {"os": ["linux"]},
        {"architecture": "../x"},
        {"rootfs": {"diff_ids": ["sha256:1"]}},
        {"rootfs": {"diff_ids": [DIGEST] * 1001}},
    ],
)
def test_configs_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(BadManifest):
        decode_image_config(json.dumps(config).encode())


def test_only_images_whose_parts_can_be_read_are_images() -> None:
    def check(**more: object) -> None:
        found = decode_manifest(encoded(**more))
        assert isinstance(found, Manifest)
        check_image(found)

    check()
    check(config=CONFIG | {"mediaType": ""}, layers=[LAYER | {"mediaType": "application/octet-stream"}])
    for more in (
        {"config": CONFIG | {"mediaType": "application/vnd.cncf.helm.config.v1+json"}},
        {"layers": [LAYER | {"mediaType": "application/vnd.in-toto+json"}]},
        {"layers": [LAYER | {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"}]},
    ):
        with pytest.raises(BadManifest):
            check(**more)
