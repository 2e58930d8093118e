"""Hostile base images, seen from outside: each is refused with one clear error, what lies outside the store stays as it was, and the store still works."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.registry.faulty import FaultyServer, Say
from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine, Ran
from tests.support.machine import find_program, search_path
from tests.support.project import Project
from tools.base_image import architecture, make_busybox_tar, write_layout

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MEMORY_KIB = 400 << 10  # what one process may take at most, whatever an image holds


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", *, link: str = "", **more: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    for key, value in more.items():
        setattr(info, key, value)
    form = tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT
    return info.tobuf(form, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512)


def tar(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Canaries beside the store, and in the machine's own /etc; whatever a test does, they have to stay as they were."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "victim").write_bytes(b"untouched")
    (place / "dir").mkdir()
    watched = [place, place / "victim", place / "dir", Path("/etc/passwd"), Path("/etc/hosts")]
    before = [(path, os.lstat(path).st_ctime_ns, path.read_bytes() if path.is_file() else sorted(os.listdir(path))) for path in watched]
    yield place
    assert [(path, os.lstat(path).st_ctime_ns, path.read_bytes() if path.is_file() else sorted(os.listdir(path))) for path in watched] == before


def refused(ran: Ran) -> str:
    """The one error of a run that did not go wrong in any other way."""
    assert ran.code in (1, 2, 3), ran
    errors = [line for line in ran.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, ran
    assert "Traceback" not in ran.stderr
    assert "bug in layerwright" not in ran.stderr
    return ran.stderr


def load(lw: CommandLine, layers: Sequence[bytes], name: str = "evil:1", settings: Mapping[str, object] | None = None) -> Ran:
    directory = lw.home.parent / f"layout-{name.replace(':', '-').replace('/', '-')}"
    write_layout(directory, layers, settings)
    return lw("image", "load", str(directory), "--name", name, code=None)


def by_digest(ran: Ran) -> str:
    """The image that was loaded, named so that no registry is asked."""
    assert ran.code == 0, ran
    return f"evil@{ran.stdout.split()[2]}"


def based_on(project: Project, name: str, *, stage: str = "git: [{add: /, to: /app}]") -> None:
    project.write("file", "1")
    project.werf(f"image: app\nfrom: {name}\n{stage}\n")
    project.commit()


RUNTIMES = [name for name in ("crun", "runc") if shutil.which(name, path=search_path())]
SH = "shell: {install: [echo built]}"
DIR, SYM, HARD, CHAR = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE

REFUSED: Mapping[str, tuple[Callable[[str], bytes], str]] = {
    "dot-dot": (lambda out: tar(member("../../../planted")), "'../../../planted' leads out of the root"),
    "hard-link-out": (lambda out: tar(member("h", HARD, link=f"../../..{out}/victim")), "leads out of the root"),
    "whiteout-of-dot-dot": (lambda out: tar(member(".wh...")), "is a whiteout of nothing that can be removed"),
    "name-64k": (lambda out: tar(member("n" * 65536)), "a name of 65,536 bytes"),
    "device-number": (lambda out: tar(member("a", CHAR, devmajor=2**40)), "a device with an impossible number"),
    "checksum": (lambda out: tar(member("a")[:148] + b"0000000\0" + member("a")[156:]), "a header whose checksum is wrong"),
    "header-1g": (lambda out: _header(b"L", 1 << 30), "an extended header of 1,073,741,824 bytes"),
    "attribute": (lambda out: tar(member("a", pax_headers={"SCHILY.xattr.user.a": "x" * 70000})), "an extended attribute of 70,000 bytes"),
    "directory-with-content": (lambda out: tar(member("a/", content=member("hidden"))), "is a directory with a content"),
    "escape": (lambda out: tar(member("../\x1b]0;owned\x07\x1b[2J")), "leads out of the root"),
}


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("@")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_layers_that_no_tool_writes_are_refused_before_anything_is_unpacked(lw: CommandLine, project: Project, outside: Path) -> None:
    make_all = {name: made(str(outside)) for name, (made, _) in REFUSED.items()}
    bases = {name: by_digest(load(lw, [layer], f"evil:{name}")) for name, layer in make_all.items()}
    project.write("file", "1")
    project.werf("\n---\n".join(f"image: i-{name}\nfrom: {base}\ngit: [{{add: /, to: /app}}]" for name, base in bases.items()) + "\n")
    project.commit()
    for name, layer in make_all.items():
        ran = lw("build", f"i-{name}", code=None)
        said = refused(ran)
        assert REFUSED[name][1] in said, ran
        assert bases[name] in said, ran  # which image, and which of its layers
        assert sha(layer) in said, ran
        assert "byte " in said, ran
        assert "\x1b" not in said
    assert not (lw.home / "trees.root").exists()
    good(lw, project)


def good(lw: CommandLine, project: Project) -> None:
    """The store still builds and runs."""
    assert load(lw, [make_busybox_tar()], "good:1", {"Cmd": ["sh"]}).code == 0
    based_on(project, "good:1", stage=SH)
    lw("build")
    assert lw("run", "app", "--", "sh", "-c", "echo alive").stdout.endswith("alive\n")


UNPACKED: Mapping[str, tuple[Callable[[str], list[bytes]], str]] = {
    "self": (lambda out: [member("h", HARD, link="h")], "a hard link to itself"),
    "out": (lambda out: [member("h", HARD, link=f"{out}/victim")], "which is not there"),
    "through": (lambda out: [member("s", SYM, link=out), member("h", HARD, link="s/victim")], "which is not there"),
    "loop": (lambda out: [member("a", SYM, link="b"), member("b", SYM, link="a"), member("a/x")], "more than 40 symlinks"),
    "below-file": (lambda out: [member("etc/passwd/x")], "is meant to be a directory"),
    "zero-device": (lambda out: [member("c", CHAR)], "a character device 0:0"),
}


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_what_only_unpacking_shows_is_refused_there(lw: CommandLine, project: Project, outside: Path) -> None:
    base = make_busybox_tar()
    bases = {}
    for name, (made, _) in UNPACKED.items():
        members = made(str(outside))
        layers = [base, tar(*members)] if name != "below-file" else [base, tar(member("etc/passwd", content=b"root:x:0:0::/:/bin/sh\n"), *members)]
        bases[name] = by_digest(load(lw, layers, f"evil:{name}"))
    project.werf("\n---\n".join(f"image: i-{name}\nfrom: {base}\n{SH}" for name, base in bases.items()) + "\n")
    project.commit()
    for name, (_, what) in UNPACKED.items():
        ran = lw("build", f"i-{name}", code=None)
        assert what in refused(ran), ran
        assert bases[name] in ran.stderr, ran
    assert not [left for left in (lw.home / "work").iterdir() if (left / "tree").exists()]
    good(lw, project)


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_symlinks_of_an_image_lead_nowhere_but_into_it(lw: CommandLine, project: Project, outside: Path) -> None:
    """Unpacking through them, our own mounts on them, imports to and from them, a git mapping onto them, WORKDIR and the account files."""
    layer = tar(
        *(member("out", SYM, link=str(outside)), member("out/planted", content=b"in the image"), member("up", SYM, link="../../../../.." + str(outside))),
        *(member("cache", SYM, link="/out/dir"), member("up/also", content=b"1"), member("secrets", SYM, link="/etc")),
        *(
            member("etc/resolv.conf", SYM, link=f"../..{outside}/victim"),
            member("etc/hosts", SYM, link="/out/hosts"),
            member("work", SYM, link="/proc/self/fd/7"),
        ),
    )
    assert load(lw, [make_busybox_tar(), layer], settings={"WorkingDir": "/work", "Cmd": ["sh"]}).code == 0
    project.write("src/file", "1")
    project.werf("""
        image: tools
        from: evil:1
        ---
        image: app
        from: evil:1
        git: [{add: /src, to: /out/git}]
        mount: [{from: build_dir, to: /cache}, {from: tmp_dir, to: /up/tmp}]
        import: [{image: tools, add: /secrets/passwd, to: /up/taken, after: setup}]
        shell: {install: ["echo x > /cache/kept; echo y > /up/by-command; cat /out/planted", "test $(pwd) = /"]}
    """)
    project.write("werf-giterminism.yaml", "giterminismConfigVersion: 1\nconfig: {stapel: {mount: {allowBuildDir: true}}}\n")
    project.commit()
    ran = lw("build")
    assert "in the image" in ran.stdout
    inside = str(outside)
    ran = lw("run", "app", "--workdir", "/", "--", "sh", "-c", f"ls {inside}; head -1 {inside}/taken; cat {inside}/git/file")
    assert {"also", "by-command", "git", "planted", "taken", "root:x:0:0:root:/root:/bin/sh", "1"} <= set(ran.stdout.split())
    ran = lw("run", "app", code=None)
    assert "the working directory '/work' leads to /proc/self/fd/7" in refused(ran)


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_what_an_image_brings_is_not_for_other_users_and_its_devices_are_not_opened(lw: CommandLine, project: Project, outside: Path) -> None:
    lw.home.mkdir(mode=0o755)
    hidden = (member("deep", DIR, mode=0o755), member("deep/disk", CHAR, mode=0o666, devmajor=1, devminor=5), member("s", SYM, link="deep"))
    hidden += (member("third", HARD, link="s/disk"), member("s", SYM, link="etc"))
    layer = tar(
        *(member("disk", CHAR, mode=0o666, devmajor=1, devminor=5), member("again", HARD, link="disk"), member("su", content=b"#!/bin/sh\n", mode=0o4755)),
        *hidden,
    )
    assert load(lw, [make_busybox_tar(), layer], settings={"Cmd": ["sh"]}).code == 0
    based_on(
        project, "evil:1", stage='shell: {install: ["test $(head -c 1 /disk | wc -c) = 0", "test $(cat /again /third /deep/disk | head -c 1 | wc -c) = 0"]}'
    )
    for runtime in RUNTIMES:
        lw("build", "--runtime", runtime)
        assert lw("run", "-q", "app", "--runtime", runtime, "--", "sh", "-c", "cat /disk /again /third /deep/disk | head -c 1 | wc -c").stdout == "0\n"
        project.werf(f"image: app\nfrom: evil:1\nshell: {{install: [test $(head -c 1 /disk | wc -c) = 0, echo after {runtime}]}}\n")
        project.commit()
    assert (lw.home / "trees.root").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (lw.home / "work").iterdir())


def test_a_layer_that_another_image_claims_is_never_taken_for_it(lw: CommandLine, project: Project, base_images: BaseImages, outside: Path) -> None:
    """An image may name the diff id of another's layer beside a blob of its own."""
    true, evil = make_busybox_tar(), tar(member("etc/passwd", content=b"h4cked-by-evil:x:0:0::/:/bin/sh\n"))
    assert load(lw, [true], "good:1", {"Cmd": ["sh"]}).code == 0
    assert load(lw, [evil], "evil:1").code == 0
    based_on(project, "good:1")
    lw("build")  # from now on nothing needs to read the layer to know what is in it
    liar = lw.home.parent / "liar"
    write_layout(liar, [true])
    _replace_layer(liar, evil)
    loaded = lw("image", "load", str(liar), "--name", "liar:1", code=None)
    layout = lw.home.parent / "exported"
    lw("export", "app", "--to", f"oci:{layout}")
    (blob,) = [one for one in (layout / "blobs" / "sha256").iterdir() if sha(_plain(one.read_bytes())) == sha(true)]
    assert b"h4cked-by-evil" not in _plain(blob.read_bytes())
    if loaded.code == 0:
        based_on(project, "liar:1")
        lw("build")  # the true layer is in the store by now, and it is what the name means
        lw("export", "app", "--to", f"oci:{layout}-2")
        assert not any(b"h4cked-by-evil" in _plain(one.read_bytes()) for one in Path(f"{layout}-2").glob("blobs/sha256/*"))


def _plain(content: bytes) -> bytes:
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _replace_layer(layout: Path, layer: bytes) -> None:
    """Give the image of a layout another layer, and leave its config as it is."""
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")).read_text())
    manifest["layers"] = [_put(layout, gzip.compress(layer, mtime=0), f"{LAYER}+gzip")]
    index["manifests"] = [index["manifests"][0] | _put(layout, json.dumps(manifest).encode(), MANIFEST)]
    (layout / "index.json").write_text(json.dumps(index))


def _put(layout: Path, content: bytes, media_type: str) -> dict[str, Any]:
    (layout / "blobs" / "sha256" / sha(content)[7:]).write_bytes(content)
    return {"mediaType": media_type, "digest": sha(content), "size": len(content)}


def limited(lw: CommandLine, *arguments: str) -> tuple[Ran, int]:
    """A run, and the most memory that any process of it had, in KiB."""
    reader = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
    argv = (sys.executable, "-c", reader, sys.executable, "-m", "layerwright", *arguments)
    done = subprocess.run(argv, cwd=lw.directory, env=lw.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    return Ran(arguments, done.returncode, done.stdout, "\n".join(lines[:-1])), int(lines[-1])


def zeros_tar(size: int) -> bytes:
    """A gzip of a tar with one file of zeros: a thousandth of its size."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
        packed.write(_header(tarfile.REGTYPE, size))
        piece = bytes(1 << 20)
        for _ in range(size >> 20):
            packed.write(piece)
        packed.write(bytes(1024))
    return out.getvalue()


def raw_layout(directory: Path, layer: bytes, media_type: str, diff_id: str) -> Path:
    write_layout(directory, [b""])
    config = {"architecture": architecture(), "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _put(directory, json.dumps(config).encode(), CONFIG),
        "layers": [_put(directory, layer, media_type)],
    }
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [_put(directory, json.dumps(manifest).encode(), MANIFEST)]}))
    return directory


BOMBS: Mapping[str, tuple[Callable[[], bytes], dict[str, str], str]] = {
    "size": (lambda: zeros_tar(96 << 20), {"LAYERWRIGHT_LIMIT_LAYER_SIZE": "64M"}, "the layer is larger than 67,108,864 bytes"),
    "count": (
        lambda: gzip.compress(b"".join(member(f"f{number}") for number in range(20_000)) + bytes(1024), 1),
        {"LAYERWRIGHT_LIMIT_LAYER_ENTRIES": "10000"},
        "the layer has more than 10,000 entries",
    ),
    "parents": (lambda: gzip.compress(tar(*(member(f"{number}/" + "d/" * 2040 + "x") for number in range(100))), 1), {}, "they lie too deep"),
    "globals": (
        lambda: gzip.compress(tar(*(tarfile.TarInfo.create_pax_global_header({f"SCHILY.xattr.user.{n}": "x" * 60000}) for n in range(200))), 1),
        {},
        "more than 100 records in global extended headers",
    ),
    "attributes": (
        lambda: gzip.compress(tar(*(member(f"f{n}", pax_headers={"SCHILY.xattr.user.a": "x" * 60000}) for n in range(40))), 1),
        {"LAYERWRIGHT_LIMIT_LAYER_METADATA": "1M"},
        "names and attributes are larger than 1,048,576 bytes",
    ),
    "members": (lambda: gzip.compress(b"", mtime=0) * 20_000, {}, "empty members in a row"),
    "nested": (lambda: gzip.compress(gzip.compress(os.urandom(2048))), {}, "a checksum that is not a number"),
    "window": (lambda: _zstd_long(), {}, "zstd data is damaged"),
}


def _zstd_long() -> bytes:
    """A frame that says its window is 2 GiB."""
    return b"\x28\xb5\x2f\xfd" + bytes([0x00, (31 - 10) << 3]) + b"\x01\x00\x00"


def test_bombs_cost_little_and_are_told_with_what_allows_more(lw: CommandLine, project: Project, outside: Path) -> None:
    bases = {}
    for name, (made, _, _) in BOMBS.items():
        layout = raw_layout(lw.home.parent / f"bomb-{name}", made(), f"{LAYER}+gzip", sha(name.encode()))
        bases[name] = by_digest(lw("image", "load", str(layout), "--name", f"evil:{name}"))
    project.write("file", "1")
    project.werf("\n---\n".join(f"image: i-{name}\nfrom: {base}\ngit: [{{add: /, to: /app}}]" for name, base in bases.items()) + "\n")
    project.commit()
    for name, (_, env, what) in BOMBS.items():
        ran, memory = limited(CommandLine(home=lw.home, user_home=lw.user_home, directory=lw.directory, more=env), "build", f"i-{name}")
        assert what in refused(ran), ran
        assert all(variable in ran.stderr for variable in env), ran
        assert memory < MEMORY_KIB, (name, memory)
    assert not (lw.home / "trees.root").exists()


def test_a_limit_that_is_none_is_told(lw: CommandLine, project: Project) -> None:
    based_on(project, "good:1")
    ran = lw("build", code=2, env={"LAYERWRIGHT_LIMIT_LAYER_SIZE": "lots"})
    assert "LAYERWRIGHT_LIMIT_LAYER_SIZE is 'lots'" in ran.stderr


GOOD_CONFIG = {"architecture": architecture(), "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}


def _manifest(**more: object) -> bytes:
    config = {"mediaType": CONFIG, "digest": sha(_as_json(GOOD_CONFIG)), "size": len(_as_json(GOOD_CONFIG))}
    return _as_json({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []} | more)


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def _index_of(*manifests: Mapping[str, object]) -> bytes:
    return _as_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)})


DIGEST = "sha256:" + "1" * 64
ONE = {"mediaType": LAYER, "digest": DIGEST, "size": 1}
MANIFESTS: Mapping[str, tuple[bytes, str]] = {
    "truncated": (_manifest()[:-9], ""),
    "not-json": (b"<html>", ""),
    "huge": (b" " * (5 << 20), "over the limit of 4194304 bytes"),
    "deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, ""),
    "rather-deep": (_manifest()[:-1] + b',"a":' + b"[" * 500 + b"]" * 500 + b"}", "nests more than 64 levels"),
    "twice": (_manifest()[:-1] + b',"layers":[]}', "the name 'layers' stands twice"),
    "both": (_manifest(manifests=[]), "an index and an image at once"),
    "huge-number": (_manifest()[:-1] + b',"a":' + b"9" * 5000 + b"}", ""),
    "schema-1": (_as_json({"schemaVersion": 1, "fsLayers": []}), "schemaVersion 1"),
    "sha512": (_manifest(layers=[ONE | {"digest": "sha512:" + "1" * 128}]), "lacks a sha256 digest"),
    "negative": (_manifest(layers=[ONE | {"size": -1}]), "lacks a sha256 digest or a size"),
    "exabyte": (_manifest(layers=[ONE | {"size": 1 << 62}]), "a blob of 4,611,686,018,427,387,904 bytes"),
    "wrong-types": (_manifest(layers="all"), "layers is not a list"),
    "layers-1001": (_manifest(layers=[ONE] * 1001), "1,001 layers"),
    "artifact": (_manifest(config={"mediaType": "application/vnd.oci.empty.v1+json", "digest": DIGEST, "size": 2}), "is not an image"),
    "encrypted": (_manifest(layers=[ONE | {"mediaType": f"{LAYER}+gzip+encrypted"}]), "no layer that we can read"),
    "foreign": (
        _manifest(layers=[ONE | {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "urls": ["http://127.0.0.1:9/x"]}]),
        "layers that its registry does not hold",
    ),
    "config-not-fitting": (_manifest(layers=[ONE]), "the config names 0 layers, the manifest 1"),
    "platform": (_index_of({**ONE, "platform": {"os": "linux\x1b[2J", "architecture": "amd64"}}), "a platform that is none"),
    "list-of-10000": (_index_of(*[ONE] * 10_000), "10,000 manifests"),
}
CONFIGS: Mapping[str, tuple[object, str]] = {
    "env": ({"Env": ["A=b\0c"]}, "config.Env is not a list of strings"),
    "labels": ({"Labels": ["a"]}, "config.Labels is not an object"),
    "volumes": ({"Volumes": [1]}, "config.Volumes is not an object"),
    "half-a-pair": ({"User": "\ud800"}, "is not JSON"),
}


@pytest.fixture
def liar() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        server.on("GET /v2/", Say())
        yield server


def test_manifests_and_configs_are_refused_with_their_name(lw: CommandLine, project: Project, outside: Path, liar: FaultyServer) -> None:
    config = _as_json(GOOD_CONFIG)
    liar.on(f"GET /v2/evil/blobs/{sha(config)}", Say(body=config))
    cases = {name: (content, what) for name, (content, what) in MANIFESTS.items()}
    for name, (settings, what) in CONFIGS.items():
        content = _as_json(GOOD_CONFIG | {"config": settings})
        liar.on(f"GET /v2/evil/blobs/{sha(content)}", Say(body=content))
        cases[f"config-{name}"] = _manifest(config={"mediaType": CONFIG, "digest": sha(content), "size": len(content)}), what
    for name, (content, what) in cases.items():
        liar.on(f"GET /v2/evil/manifests/{name}", Say(body=content, headers={"Content-Type": INDEX if b"manifests" in content else MANIFEST}))
        ran = lw("image", "pull", f"{liar.address}/evil:{name}", code=None)
        assert what in refused(ran), (name, str(ran)[:2000])
        assert f"{liar.address}/evil:{name}" in ran.stderr, ran
        assert "\x1b" not in ran.stderr
    assert not [one for one in liar.lines if "127.0.0.1:9" in one]
    assert lw("image", "ls").stdout == ""


def test_indexes_within_indexes_end(lw: CommandLine, liar: FaultyServer) -> None:
    """Ten levels, each of which names the next a hundred times."""
    content = _manifest()
    for _ in range(10):
        inner = {"mediaType": INDEX, "digest": sha(content), "size": len(content)}
        content = _index_of(*[inner] * 100)
        liar.on(f"GET /v2/evil/manifests/{sha(content)}", Say(body=content, headers={"Content-Type": INDEX}))
    liar.on("GET /v2/evil/manifests/1", Say(body=content, headers={"Content-Type": INDEX}))
    ran = lw("image", "pull", f"{liar.address}/evil:1", code=None)
    assert "its index holds more than 16 others" in refused(ran)
    assert len(liar.asked) < 30


def test_archives_that_lead_elsewhere_are_refused(lw: CommandLine, project: Project, outside: Path) -> None:
    top = lw.home.parent

    def layout(name: str) -> Path:
        write_layout(top / name, [make_busybox_tar()])
        return top / name

    def archive(name: str, *members: bytes) -> Path:
        (top / name).write_bytes(tar(*members))
        return top / name

    linked = layout("linked")
    blob = max((linked / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.rename(top / "moved")
    blob.symlink_to(top / "moved")
    piped = layout("piped")
    (piped / "index.json").unlink()
    os.mkfifo(piped / "index.json")
    cyclic = layout("cyclic")
    index: dict[str, Any] = {"schemaVersion": 2, "manifests": [_put(cyclic, _index_of(), INDEX)]}
    for _ in range(8):
        index["manifests"] = [_put(cyclic, _index_of(*index["manifests"]), INDEX)] * 200
    (cyclic / "index.json").write_text(json.dumps(index))
    saved = _as_json([{"Config": f"../../..{outside}/victim", "RepoTags": ["a:1"], "Layers": []}])
    many = _as_json([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": []}] * 1001)
    loop = [member("oci-layout", content=b"{}"), member("index.json", SYM, link="b"), member("b", SYM, link="index.json")]
    for path, what in (
        (linked, "is a link out of the directory"),
        (piped, "neither an OCI layout"),
        (cyclic, "too many indexes within each other"),
        (archive("dots.tar", member("../index.json"), member("oci-layout")), "leads out of the archive"),
        (archive("docker.tar", member("manifest.json", content=saved)), "leads out of the archive"),
        (archive("many.tar", member("manifest.json", content=many), member("c.json", content=_as_json(GOOD_CONFIG))), "more than 1,000 images"),
        (archive("loop.tar", *loop), "is a link that leads nowhere"),
        (archive("long.tar", _header(b"L", 1 << 30), member("a")), "an extended header of 1,073,741,824 bytes"),
        (archive("large.tar", _header(tarfile.REGTYPE, 1 << 33)), "in an archive of"),
        (archive("escape.tar", member("/\x1b[2Jx")), "leads out of the archive"),
    ):
        ran = lw("image", "load", str(path), "--name", "a:1", code=None)
        assert what in refused(ran), ran
        assert str(path) in ran.stderr, ran
        assert "\x1b" not in ran.stderr
    assert lw("image", "ls").stdout == ""


def test_a_compressed_archive_is_not_unfolded_without_end(lw: CommandLine) -> None:
    (lw.home.parent / "bomb.tar.gz").write_bytes(zeros_tar(96 << 20))
    ran = lw("image", "load", str(lw.home.parent / "bomb.tar.gz"), code=None, env={"LAYERWRIGHT_LIMIT_LAYER_SIZE": "64M"})
    assert "the archive holds more than 67,108,864 bytes" in refused(ran)
    assert sum(path.stat().st_size for path in lw.home.rglob("*") if path.is_file()) < 1 << 20


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_a_thousand_layers_are_a_base_for_files_and_too_many_for_commands(lw: CommandLine, project: Project) -> None:
    layers = [make_busybox_tar(), *([tar(member("again", content=b"x"))] * 997)]
    assert load(lw, layers, "many:1", {"Cmd": ["sh"]}).code == 0
    project.write("file", "1")
    project.werf(f"image: files\nfrom: many:1\ngit: [{{add: /, to: /app}}]\n---\nimage: commands\nfrom: many:1\n{SH}\n")
    project.commit()
    lw("build", "files")
    assert "998 layers; Linux stacks at most 500" in refused(lw("build", "commands", code=None))


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_odd_but_legal_layers_look_as_umoci_shows_them(lw: CommandLine, project: Project, tmp_path: Path) -> None:
    """The last of several entries of a path counts, parents may be missing, paths lead through symlinks of lower layers."""
    base = make_busybox_tar()
    second = tar(
        *(member("t/a", content=b"1"), member("t/a", content=b"22"), member("t/d", DIR, mode=0o755), member("t/d/x"), member("t/d", SYM, link="a")),
        *(member("t/s", SYM, link="/etc"), member("t/s", DIR, mode=0o700), member("t/s/x"), member("lib/odd", content=b"through"), member("/t//b/./c")),
        *(member("t/x\xff\n", content=b"odd name"), member("t/" + "n" * 255), member("t/old", mtime=-5), member("t/h", HARD, link="t/a")),
    )
    third = tar(member("t/.wh.d"), member("t/s/.wh..wh..opq"), member("t/s/new"), member("var/.wh.www"))
    layout = tmp_path / "odd"
    write_layout(layout, [base, second, third], {"Cmd": ["sh"]})
    lw("image", "load", str(layout), "--name", "odd:1")
    project.werf("image: app\nfrom: odd:1\n")
    project.commit()
    lw("build")
    ours = lw("run", "app", "--", "sh", "-c", "cd / && find t usr/lib var | sort && cat t/a t/h usr/lib/odd && readlink t/d || true").stdout
    subprocess.run((find_program("umoci"), "raw", "unpack", "--image", f"{layout}:latest", str(tmp_path / "root")), check=True, capture_output=True)
    theirs = subprocess.run(
        ("sh", "-c", "find t usr/lib var | sort && cat t/a t/h usr/lib/odd && readlink t/d || true"), cwd=tmp_path / "root", check=True, capture_output=True
    ).stdout
    assert ours == theirs.decode(errors="replace")
