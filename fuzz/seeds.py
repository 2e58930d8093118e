#!/usr/bin/env python3
"""Makes the seeds that fuzzing starts from: a small file for each thing that a reader knows. Equal on every machine.

python -m fuzz.seeds DIRECTORY
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from layerwright.layers.compress import Compressor
from layerwright.layers.index import encode_index
from layerwright.layers.scan import index_tar

_HEAD_BYTES = 22  # of a stored index, before its deflate stream: magic, version, part, half a hash
_DIGEST = "sha256:" + "ab" * 32


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", *, link: str = "", form: int = tarfile.GNU_FORMAT, **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(form, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512)


def pax(name: str, records: Mapping[str, str], **more: object) -> bytes:
    return member(name, form=tarfile.PAX_FORMAT, pax_headers=dict(records), **more)


def tars() -> Iterator[tuple[str, bytes]]:
    directory, symlink, hard = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    yield "empty", b""
    yield "file", member("a", content=b"text")
    yield "tree", member("d", directory, mode=0o755) + member("d/x", content=b"1") + member("d/s", symlink, link="x") + member("d/h", hard, link="d/x")
    yield "long", member("n" * 120 + "/" + "m" * 120) + member("s", symlink, link="t" * 300)
    yield "devices", member("c", tarfile.CHRTYPE, devmajor=1, devminor=3) + member("b", tarfile.BLKTYPE, devmajor=8) + member("p", tarfile.FIFOTYPE)
    yield "removed", member("d", directory) + member("d/.wh.x") + member("d/.wh..wh..opq") + member(".wh.e")
    yield "aufs", member(".wh..wh.plnk/1.2") + member(".wh..wh.aufs")
    yield "numbers", pax("a", {"uid": "3000000", "gid": "3000000", "mtime": "-1.5", "size": "0"}) + member("b", uid=2**30, size=0)
    yield "attributes", pax("a", {"SCHILY.xattr.user.a": "1", "LIBARCHIVE.xattr.user.b": "MQ", "SCHILY.xattr.trusted.overlay.opaque": "y"})
    yield "global", tarfile.TarInfo.create_pax_global_header({"comment": "x", "mtime": "5"}) + member("a")
    yield "out", member("../x") + member("/OUTSIDE/y")
    yield "through", member("o", symlink, link="/OUTSIDE") + member("o/planted", content=b"1") + member("o/.wh.victim")
    yield "loop", member("a", symlink, link="b") + member("b", symlink, link="a") + member("a/x")
    yield (
        "twice",
        member("a", content=b"1") + member("a", symlink, link="/OUTSIDE/victim") + member("a", content=b"22") + member("a", directory) + member("a/b"),
    )
    yield "links", member("h", hard, link="h") + member("i", hard, link="later") + member("later") + member("j", hard, link="../x")
    yield "deep", member("/".join("d" * 60) + "/f", content=b"x")
    yield "sparse", member("s", tarfile.GNUTYPE_SPARSE) + pax("g", {"GNU.sparse.major": "1"})
    yield "texts", member("etc/passwd", content=b"root:x:0:0::/:/bin/sh\n") + member("etc/group", content=b"root:x:0:\n")


def manifests() -> Iterator[tuple[str, bytes]]:
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": _DIGEST, "size": 5}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 5, "urls": ["http://x"]}
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    image = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer], "annotations": {"a": "b"}}
    yield "image", json.dumps(image).encode()
    yield "index", json.dumps({"schemaVersion": 2, "manifests": [{**layer, "platform": platform}]}).encode()
    yield "schema1", b'{"schemaVersion": 1, "fsLayers": []}'
    settings = {"Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": None, "Volumes": {"/v": {}}, "ExposedPorts": {"1/tcp": {}}, "Labels": {"l": "m"}, "User": "1:1"}
    settings |= {"WorkingDir": "/w", "StopSignal": "9", "Healthcheck": {"Test": ["NONE"]}, "OnBuild": ["RUN x"], "Shell": ["sh"]}
    history = [{"created": "2020-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}]
    full = {"os": "linux", "architecture": "amd64", "config": settings, "rootfs": {"type": "layers", "diff_ids": [_DIGEST]}, "history": history, "author": "me"}
    yield "config", json.dumps(full).encode()
    yield "escapes", b'{"config": {"User": "\\ud800\\u0000", "Labels": {"\\u001b": 1e5}}, "os": null}'


def indexes() -> Iterator[tuple[str, bytes]]:
    for name, tar in tars():
        try:
            parts = encode_index(index_tar(io.BytesIO(tar)))
        except Exception:
            continue  # a seed of what is refused
        for part, content in parts.items():
            yield f"{name}-{part}", b"\0" + zlib.decompress(content[_HEAD_BYTES:])


def zstd(content: bytes) -> bytes:
    out = io.BytesIO()
    compressor = Compressor("zstd", out)
    compressor.write(content)
    compressor.close()
    return out.getvalue()


def compressed() -> Iterator[tuple[str, bytes]]:
    text = b"text " * 50
    yield "plain", text
    yield "gzip", gzip.compress(text, mtime=0)
    yield "members", gzip.compress(text, mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(b"x", mtime=0) + bytes(20)
    yield "zstd", zstd(text) + zstd(b"y")
    yield "skippable", b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(text)
    yield "bzip2", b"BZh91AY"


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """(target, name, bytes) of every seed."""
    for name, tar in tars():
        for target in ("tar", "unpack"):
            yield target, name, b"\1" + tar + bytes(1024)
    yield "unpack", "two", b"\3" + b"".join(tar for _, tar in tars() if b"../" not in tar)[:65536]
    for target, made in (("manifest", manifests()), ("index", indexes()), ("compressed", compressed())):
        for name, content in made:
            yield target, name, content


def write_seeds(directory: Path) -> int:
    count = 0
    for target, name, content in seeds():
        (directory / target).mkdir(parents=True, exist_ok=True)
        (directory / target / name).write_bytes(content)
        count += 1
    return count


if __name__ == "__main__":
    print(f"{write_seeds(Path(sys.argv[1]))} seeds")
