"""Base images, seen from outside: every shape a registry or a file may hold them in, what names them, and how little is asked for."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.base_images import PATH, BaseImages
from tests.support.commandline import CommandLine, Ran
from tests.support.exported import Exported, read_layout
from tests.support.front import Front
from tests.support.layouts import Layer, Layout, skopeo, tar_of
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tools.base_image import architecture, make_busybox_tar

FOREIGN = "arm64" if architecture() != "arm64" else "amd64"
ALLOW_LATEST = "giterminismConfigVersion: 1\nconfig: {stapel: {allowFromLatest: true}}\n"
REQUEST = re.compile(r'"(GET|HEAD|PUT|POST) (\S+) HTTP/1\.1" (\d+) .*"layerwright/')


class Watch:
    """The requests that layerwright sends to a registry, from now on."""

    def __init__(self, registry: RegistryServer) -> None:
        self._registry = registry
        self._seen = len(registry.log)

    def requests(self) -> list[str]:
        """As "METHOD PATH", and forgets them."""
        new = self._registry.log[self._seen :]
        self._seen += len(new)
        return [f"{found[1]} {found[2]}" for found in REQUEST.finditer(new)]


def built(ran: Ran) -> list[str]:
    return re.findall(r"^Built stage (\S+)", ran.stdout + ran.stderr, re.MULTILINE)


def export(lw: CommandLine, image: str = "app", *arguments: str) -> Exported:
    layout = lw.home.parent / f"exported-{len(list(lw.home.parent.iterdir()))}"
    lw("export", image, "--to", f"oci:{layout}", *arguments)
    return read_layout(layout)


def marked(mark: str) -> list[Layer]:
    """A system of two layers: busybox, and /which that says `mark`."""
    return [Layer(make_busybox_tar()), Layer(tar_of({"which": mark.encode()}))]


def push_marked(registry: RegistryServer, directory: Path, name: str, mark: str) -> str:
    """Push a new image, maybe under a name that named another; returns the reference."""
    layout = Layout(directory)
    return layout.push(registry, layout.image(marked(mark), {"Cmd": ["cat", "/which"], "Env": [PATH]}), name)


# The shapes of images.


@pytest.fixture
def shapes(registry: RegistryServer, tmp_path: Path) -> Mapping[str, str]:
    """One reference for each kind of manifest and compression; /which says the kind, or the architecture where there are several."""
    layout = Layout(tmp_path / "shapes")
    busybox = Layer(make_busybox_tar())
    mixed = layout.image([busybox, Layer(tar_of({"which": b"zstd"}), "zstd"), Layer(tar_of({"plain": b""}), "none")])
    plain = layout.image([Layer(busybox.tar, "none"), Layer(tar_of({"which": b"plain"}), "none")])
    gzip = layout.image([busybox, Layer(tar_of({"which": b"gzip"}))])
    several = layout.index([layout.image(marked(arch), arch=arch) for arch in (FOREIGN, architecture())])
    return {
        "zstd": layout.push(registry, mixed, "shapes/oci:zstd"),
        "plain": layout.push(registry, plain, "shapes/oci:plain"),
        "index": layout.push(registry, several, "shapes/oci:index"),
        "gzip": layout.push(registry, gzip, "shapes/docker:gzip", "--format=v2s2"),
        "list": layout.push(registry, several, "shapes/docker:list", "--format=v2s2"),
    }


@pytest.mark.needs_runtime
def test_every_kind_of_manifest_and_compression_is_a_base(lw: CommandLine, project: Project, shapes: Mapping[str, str], registry: RegistryServer) -> None:
    kinds = {name: json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}"))["mediaType"] for name, reference in shapes.items()}
    assert kinds["gzip"].startswith("application/vnd.docker.distribution.manifest.v2")
    assert kinds["list"].startswith("application/vnd.docker.distribution.manifest.list")
    assert kinds["index"].startswith("application/vnd.oci.image.index")
    project.werf("\n---\n".join(f"image: {name}\nfrom: {reference}\nshell: {{setup: cat /which > /seen}}" for name, reference in shapes.items()))
    project.commit()
    lw("build")
    seen = {name: lw("run", name, "--", "cat", "/seen").stdout for name in shapes}
    assert seen == {"zstd": "zstd", "plain": "plain", "gzip": "gzip", "index": architecture(), "list": architecture()}


def test_the_platform_chooses_among_the_images_of_an_index(lw: CommandLine, project: Project, shapes: Mapping[str, str], registry: RegistryServer) -> None:
    project.werf(f"""
        image: ours
        from: {shapes["list"]}
        docker: {{ENV: {{A: b}}}}
        ---
        image: foreign
        platform: [linux/{FOREIGN}]
        from: {shapes["list"]}
        docker: {{ENV: {{A: b}}}}
        """)
    project.commit()
    watch = Watch(registry)
    lw("build")
    assert watch.requests().count("GET /v2/shapes/docker/manifests/list") == 1, "one reference, two platforms, asked for once"
    assert export(lw, "ours").contents["which"] == architecture().encode()
    foreign = export(lw, "foreign")
    assert foreign.contents["which"] == FOREIGN.encode()
    assert foreign.config["architecture"] == FOREIGN
    assert export(lw, "ours", "--platform", f"linux/{FOREIGN}").contents["which"] == FOREIGN.encode()
    refused = lw("build", "ours", "--platform", "linux/s390x", code=1)
    assert "werf.yaml:" in refused.stderr
    assert f"linux/{FOREIGN}" in refused.stderr
    assert f"linux/{architecture()}" in refused.stderr


# Registries.


@pytest.fixture
def private(tmp_path: Path, base_images: BaseImages) -> RegistryServer:
    """A registry that wants alice's password, holding base/busybox:1; not started yet."""
    return RegistryServer(tmp_path / "private", users={"alice": "swordfish"})


def test_a_private_registry_gets_the_password_of_docker_config(lw: CommandLine, project: Project, private: RegistryServer, base_images: BaseImages) -> None:
    (lw.home.parent / "private").mkdir()
    with private:
        base = private.reference("base/busybox:1")
        options = ("--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds=alice:swordfish")
        skopeo("copy", *options, f"docker://{base_images.busybox}", f"docker://{base}")
        project.werf(f"image: app\nfrom: {base}\ngit: [{{add: /, to: /app}}]\n")
        project.commit()
        refused = lw("build", code=1)
        assert private.address in refused.stderr
        assert "swordfish" not in refused.stderr
        docker = lw.user_home / ".docker"
        docker.mkdir()
        for password, code in (("wrong", 1), ("swordfish", 0)):
            auth = base64.b64encode(f"alice:{password}".encode()).decode()
            (docker / "config.json").write_text(json.dumps({"auths": {private.address: {"auth": auth}}}))
            ran = lw("build", code=code)
            assert password not in ran.stdout + ran.stderr or password == "wrong"
        assert "app/werf.yaml" in export(lw).contents


def test_plain_http_is_spoken_on_loopback_and_elsewhere_where_asked(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    name = socket.gethostname()
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        addresses = set()
    if addresses != {"127.0.0.1"} or name == "localhost":
        pytest.skip("needs a name of this machine, other than localhost, for 127.0.0.1")
    port = base_images.registry.address.partition(":")[2]
    project.werf(f"image: app\nfrom: {name}:{port}/base/busybox:1\ndocker: {{ENV: {{A: b}}}}\n")
    project.commit()
    refused = lw("build", code=1)
    assert "--insecure-registry" in refused.stderr, "the error says how to mend it"
    lw("build", "--insecure-registry")
    assert "A=b" in export(lw, "app", "--insecure-registry").settings["Env"]


def test_a_transfer_that_fails_is_tried_again(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    """The manifest is refused once, and every blob breaks off in the middle once."""

    def fault(path: str, count: int) -> str:
        return "" if count > 1 else "503" if "/manifests/" in path else "cut"

    with Front(base_images.registry, fault=fault) as front:
        project.werf(f"image: app\nfrom: {front.reference('base/busybox:1')}\ngit: [{{add: /, to: /app}}]\n")
        project.commit()
        lw("build")
        assert front.asked["/v2/base/busybox/manifests/1"] == 2
        assert len(front.asked) == 3, "manifest, config, one layer"
        assert min(front.asked.values()) == 2
        assert "usr/bin/busybox" in export(lw).contents


# Images from files.


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "oci"])
def test_an_image_is_loaded_from_a_file_and_needs_no_registry(kind: str, lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    name = "127.0.0.1:9/loaded/busybox:1"  # nobody listens there
    skopeo("copy", "--src-tls-verify=false", f"docker://{base_images.variant('both')}", f"{kind}:{file}:{name}")
    assert name in lw("image", "load", str(file)).stdout
    (line,) = lw("image", "ls").stdout.splitlines()
    assert line.split()[:2] == [name, f"linux/{architecture()}"]
    file.unlink() if file.is_file() else shutil.rmtree(file)
    project.werf(f"image: app\nfrom: {name}\ngit: [{{add: /, to: /app}}]\n")
    project.commit()
    ran = lw("build")
    assert "Warning: " in ran.stderr
    assert "held locally" in ran.stderr
    exported = export(lw)
    assert exported.settings["Entrypoint"] == ["/bin/echo", "hello"]
    assert {"usr/bin/busybox", "app/werf.yaml"} <= set(exported.contents)
    lw("image", "rm", name)
    assert lw("image", "ls").stdout == ""
    assert lw("image", "rm", name, code=2).stderr
    assert "Building stage" not in lw("build").stdout, "what is built does not need the name"


def test_a_pulled_image_is_listed_and_serves_when_the_registry_is_gone(lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with RegistryServer(tmp_path / "registry") as own:
        reference = push_marked(own, tmp_path / "layout", "base/own:1", "pulled")
        lw("image", "pull", reference)
    assert reference in lw("image", "ls").stdout
    project.werf(f"image: app\nfrom: {reference}\ngit: [{{add: /, to: /app}}]\n")
    project.commit()
    assert "held locally" in lw("build").stderr
    assert export(lw).contents["which"] == b"pulled"
    project.werf(f"image: app\nfrom: {reference}\nfromLatest: true\ngit: [{{add: /, to: /app}}]\n")
    project.write("werf-giterminism.yaml", ALLOW_LATEST)
    project.commit()
    refused = lw("build", code=1)
    assert "held locally" not in refused.stderr
    lw("image", "rm", reference)
    project.werf(f"image: app\nfrom: {reference}\nfromCacheVersion: again\ngit: [{{add: /, to: /app}}]\n")
    project.commit()
    assert own.address in lw("build", code=1).stderr


# What names a base.


def test_a_plain_tag_that_moved_is_not_looked_at(lw: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    reference = push_marked(registry, tmp_path / "old", "moving/plain:1", "old")
    werf = f"image: app\nfrom: {reference}\ngit: [{{add: /, to: /app}}]\n"
    project.werf(werf)
    project.commit()
    lw("build")
    push_marked(registry, tmp_path / "new", "moving/plain:1", "new")
    watch = Watch(registry)
    project.write("more", "source\n")
    project.commit()
    assert "app/from" not in built(lw("build"))
    assert watch.requests() == []
    assert export(lw).contents["which"] == b"old"
    project.werf(f"{werf}fromCacheVersion: again\n")
    project.commit()
    assert "app/from" in built(lw("build"))
    assert export(lw).contents["which"] == b"new"


def test_a_tag_with_from_latest_is_asked_for_once_in_each_run(lw: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    reference = push_marked(registry, tmp_path / "old", "moving/latest:1", "old")
    project.werf(f"image: app\nfrom: {reference}\nfromLatest: true\ngit: [{{add: /, to: /app}}]\n")
    project.commit()
    refused = lw("build", code=2)
    assert "werf.yaml:6:" in refused.stderr
    assert "allowFromLatest" in refused.stderr
    project.write("werf-giterminism.yaml", ALLOW_LATEST)
    project.commit()
    lw("build")
    watch = Watch(registry)
    assert built(lw("build")) == []
    assert watch.requests() == ["HEAD /v2/moving/latest/manifests/1"]
    push_marked(registry, tmp_path / "new", "moving/latest:1", "new")
    assert "app/from" in built(lw("build"))
    requests = watch.requests()
    assert requests[0] == "HEAD /v2/moving/latest/manifests/1"
    assert not [one for one in requests[1:] if one.endswith("/manifests/1")], "pulled by the digest that the HEAD gave"
    assert export(lw).contents["which"] == b"new"


def test_a_base_by_digest_stays_what_it_is(lw: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    reference = push_marked(registry, tmp_path / "old", "moving/pinned:1", "old")
    digest = skopeo("inspect", "--format={{.Digest}}", "--tls-verify=false", f"docker://{reference}").strip()
    push_marked(registry, tmp_path / "new", "moving/pinned:1", "new")
    project.werf(f"image: app\nfrom: {reference.rpartition(':')[0]}@{digest}\ngit: [{{add: /, to: /app}}]\n")
    project.commit()
    watch = Watch(registry)
    lw("build")
    assert [one for one in watch.requests() if "/manifests/" in one] == [f"GET /v2/moving/pinned/manifests/{digest}"]
    assert export(lw).contents["which"] == b"old"


def test_a_reference_is_resolved_once_for_all_images(lw: CommandLine, project: Project, base_images: BaseImages, registry: RegistryServer) -> None:
    images = [f"image: app{number}\nfrom: {base_images.busybox}\nfromCacheVersion: v{number}\ndocker: {{ENV: {{A: v{number}}}}}" for number in range(6)]
    project.werf("\n---\n".join(images))
    project.commit()
    watch = Watch(registry)
    assert len([one for one in built(lw("build", "--parallel=5")) if one.endswith("/from")]) == 6
    assert [one for one in watch.requests() if "/manifests/" in one] == ["GET /v2/base/busybox/manifests/1"]


# CMD and ENTRYPOINT.

COMMANDS: Sequence[tuple[str, str, list[str], list[str]]] = [
    # variant of the base, docker section, ENTRYPOINT and CMD of the image; [] is "none", however it is written
    ("1", "", [], ["sh"]),
    ("bare", "", [], []),
    ("entrypoint", "", ["/bin/echo", "from the base"], []),
    ("both", "", ["/bin/echo", "hello"], ["world"]),
    ("both", "CMD: [other]", [], ["other"]),
    ("both", "ENTRYPOINT: [/bin/cat]", ["/bin/cat"], []),
    ("both", "{CMD: [other], ENTRYPOINT: [/bin/cat]}", ["/bin/cat"], ["other"]),
    ("entrypoint", "CMD: [other]", [], ["other"]),
    ("bare", "CMD: echo some words", [], ["/bin/sh", "-c", "echo some words"]),
    ("full", "ENV: {A: b}", ["/bin/echo", "hello"], ["world"]),
]


@pytest.mark.needs_runtime
def test_cmd_and_entrypoint_are_the_bases_unless_the_file_says_otherwise(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    images = []
    for number, (variant, docker, _, _) in enumerate(COMMANDS):
        section = "" if not docker else f"docker: {docker}" if docker.startswith("{") else f"docker: {{{docker}}}"
        images.append(f"image: app{number}\nfrom: {base_images.variant(variant)}\nshell: {{install: 'true > /made'}}\n{section}")
    project.werf("\n---\n".join(images))
    project.commit()
    lw("build")
    for number, (variant, docker, entrypoint, cmd) in enumerate(COMMANDS):
        settings = export(lw, f"app{number}").settings
        found = [[] if settings.get(key) in (None, [""]) else settings[key] for key in ("Entrypoint", "Cmd")]
        assert found == [entrypoint, cmd], (variant, docker)
        if not entrypoint:
            assert settings["Entrypoint"] == [""], "none, said so that no reader takes the base's"
    assert settings["User"] == "nobody", "the rest of the base's configuration is kept"
    assert settings["WorkingDir"] == "/home"
    assert {"LANG=C", "GREETING=good day", "A=b"} <= set(settings["Env"])
    assert lw("run", "app3").stdout == "hello world\n"
    assert lw("run", "app3", "--", "you").stdout == "hello you\n"
    assert lw("run", "app8").stdout == "some words\n"
    assert "neither CMD nor ENTRYPOINT" in lw("run", "app1", code=2).stderr


# Lies.


@pytest.mark.needs_runtime
def test_a_layer_that_is_not_what_the_config_says_harms_nobody(lw: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    """Its config names the diff id of a good image's layer; the blob holds other files."""
    good, lie = Layer(make_busybox_tar()), Layer(tar_of({"usr/bin/busybox": b"evil"}))
    layout = Layout(tmp_path / "layout")
    honest = layout.push(registry, layout.image([good], {"Env": [PATH]}), "lies/good:1")
    lying = layout.push(registry, layout.image([lie], {"Env": [PATH]}, says=[good]), "lies/evil:1")
    project.werf(f"""
        image: good
        from: {honest}
        shell: {{install: busybox | head -c 7 > /made}}
        ---
        image: evil
        from: {lying}
        shell: {{install: busybox | head -c 7 > /made}}
        """)
    project.commit()
    refused = lw.with_home(tmp_path / "empty")("build", "evil", code=1)
    assert "another layer" in refused.stderr
    lw("build", "good")
    lw("build", "evil")
    assert lw("run", "evil", "--", "cat", "/made").stdout == "BusyBox", "the layer of that name, wherever it came from"
    for gone in ("blobs", "trees.root"):
        shutil.rmtree(lw.home / gone)
    assert lw("run", "good", "--", "cat", "/made").stdout == "BusyBox"


# How little is done.


def executed(trace: Path) -> set[str]:
    """The programs, as their last part and `-m MODULE`, that a traced command started."""
    found = set()
    for line in trace.read_text(errors="replace").splitlines():
        if (call := re.search(r'execve\("([^"]+)", \[(.*?)\]', line)) and "= -1" not in line:
            module = re.search(r'"-m", "([^"]+)"', call[2])
            found.add(module[1] if module else call[1].rpartition("/")[2])
    return found


def traced(lw: CommandLine, trace: Path, calls: str, *arguments: str) -> Ran:
    """Run under strace, following all processes."""
    argv = (find_program("strace"), "-f", "-qq", "-s", "4096", "-o", str(trace), "-e", f"trace={calls}", sys.executable, "-m", "layerwright", *arguments)
    done = subprocess.run(argv, cwd=lw.directory, env=lw.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    ran = Ran(argv, done.returncode, done.stdout, done.stderr)
    assert ran.code == 0, ran
    return ran


def test_an_image_of_declared_stages_never_unpacks_its_base(lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path) -> None:
    project.werf(f"image: app\nfrom: {base_images.busybox}\ngit: [{{add: /, to: /app, owner: www-data}}]\ndocker: {{WORKDIR: /app}}\n")
    project.write("source", "1\n")
    project.commit()
    traced(lw, tmp_path / "first", "execve", "build")
    project.write("source", "2\n")
    project.commit()
    traced(lw, tmp_path / "second", "execve", "build")
    assert executed(tmp_path / "first") | executed(tmp_path / "second") == {"layerwright", "git"}
    assert not [one.name for one in lw.home.iterdir() if one.name.startswith("trees")]
    exported = export(lw)
    assert exported.contents["app/source"] == b"2\n"
    assert exported.files["app/source"].uid == 33, "an owner of the base's /etc/passwd was found without unpacking it"


def test_an_image_that_only_configures_its_base_pulls_no_layer(lw: CommandLine, project: Project, base_images: BaseImages, registry: RegistryServer) -> None:
    project.werf(f"image: app\nfrom: {base_images.busybox}\ndocker: {{ENV: {{A: b}}}}\n")
    project.commit()
    watch = Watch(registry)
    lw("build")
    requests = watch.requests()
    manifest = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{base_images.busybox}"))
    assert len(requests) == 2, "manifest and config"
    assert not [one for one in requests if manifest["layers"][0]["digest"] in one]


def test_a_layer_is_pulled_once_for_its_index_its_tree_and_its_export(
    lw: CommandLine, project: Project, base_images: BaseImages, registry: RegistryServer
) -> None:
    project.werf(f"image: app\nfrom: {base_images.busybox}\ngit: [{{add: /, to: /app}}]\n")
    project.commit()
    watch = Watch(registry)
    lw("build")
    assert len([one for one in watch.requests() if "/blobs/" in one]) == 2, "config and layer"
    export(lw)
    project.write("source", "1\n")
    project.commit()
    lw("build")
    assert watch.requests() == []


@pytest.mark.needs_runtime
def test_a_second_build_starts_only_git_asks_nobody_and_reads_no_layer(lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path) -> None:
    project.werf(f"image: app\nfrom: {base_images.busybox}\ngit: [{{add: /, to: /app}}]\nshell: {{install: 'echo 1 > /made'}}\n")
    project.commit()
    lw("build")
    watch = Watch(base_images.registry)
    traced(lw, tmp_path / "trace", "execve,network,openat,mount", "build")
    assert executed(tmp_path / "trace") == {"layerwright", "git"}
    assert watch.requests() == []
    trace = (tmp_path / "trace").read_text(errors="replace")
    assert not re.findall(r"AF_INET|\bmount\(", trace)
    opened = re.findall(rf'openat\([^"]*"{re.escape(str(lw.home))}/([^/"]+)', trace)
    assert set(opened) <= {"memo", "records", "layers", "gate", "work"}, "its notes of what it uses; neither bytes, nor trees, nor indexes"
