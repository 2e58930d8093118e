from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerwright.errors import UsageError
from layerwright.host.exported_files import exported_file
from layerwright.oci.digest import digest_of
from layerwright.oci.image_config import ImageConfig, decode_image_config
from layerwright.oci.manifest import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, BadManifest, Descriptor, Index, Manifest, decode_manifest
from layerwright.oci.platform import Platform
from layerwright.oci.reference import parse_reference
from layerwright.storage import archive_output
from layerwright.storage.archive_output import OutImage, docker_archive, oci_layout
from layerwright.storage.archive_source import BadArchive
from layerwright.storage.archives import load_archive
from layerwright.storage.contract import DamagedBlob
from layerwright.storage.images import StoredImage
from layerwright.storage.layout_output import write_oci_directory
from layerwright.storage.local import LocalStore
from tests.storage.values import AMD64, Image, gzipped, layer_tar

ARM64 = Platform("linux", "arm64")
NAME = "example.com/team/app:1.2"
BASE_TAR = layer_tar({"etc/os-release": b"ID=test\n", "bin/true": b"\x7fELF" * 1000})
APP_TAR = layer_tar({"app/main": b"hello\n" * 5000})
Writer = Callable[[Path, Image], None]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def image() -> Image:
    return Image(BASE_TAR, APP_TAR)


def out(image: Image, *, plain: bool = False) -> OutImage:
    contents = image.tars if plain else image.stored
    descriptors = [Descriptor(media_type=OCI_LAYER, digest=digest_of(one), size=len(one)) for one in contents] if plain else image.descriptors
    layers = [(one, lambda out, content=content: out(content)) for one, content in zip(descriptors, contents, strict=True)]
    return OutImage(manifest=image.manifest, config=image.config, layers=layers)


def write_oci_archive(path: str, images: list[OutImage], *, name: str = "") -> None:
    with exported_file(path) as file:
        archive_output.write_tar(file, oci_layout(images, name=name))


def write_docker_archive(path: str, image: OutImage, *, tags: list[str] | None = None) -> None:
    files = docker_archive(image, tags or [])
    with exported_file(path) as file:
        archive_output.write_tar(file, files)
    assert os.path.getsize(path) == archive_output.tar_size(files)


def write_layout(path: str, images: list[OutImage], *, name: str = "") -> None:
    write_oci_directory(path, oci_layout(images, name=name), name=name)


def save_oci_archive(path: Path, image: Image) -> None:
    write_oci_archive(str(path), [out(image)], name=NAME)


def save_oci_directory(path: Path, image: Image) -> None:
    write_layout(str(path), [out(image)], name=NAME)


def save_docker_archive(path: Path, image: Image) -> None:
    write_docker_archive(str(path), out(image, plain=True), tags=[NAME])


def whole(store: LocalStore, image: StoredImage) -> Manifest:
    """The manifest of a stored image, after all its blobs were read."""
    manifest = decode_manifest(store.read_blob(image.manifest))
    assert isinstance(manifest, Manifest)
    for one in (manifest.config, *manifest.layers):
        assert len(store.read_blob(one.digest)) == one.size
    return manifest


def write_tar(path: Path, files: dict[str, bytes | str]) -> None:
    """A tar of files; text is a symbolic link's target."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def docker_files(image: Image, *, layers: list[str], names: list[str] | None = None) -> dict[str, bytes | str]:
    config = f"{digest_of(image.config)[7:]}.json"
    return {config: image.config, "manifest.json": json.dumps([{"Config": config, "RepoTags": names or [NAME], "Layers": layers}]).encode()}


@pytest.mark.parametrize("save", [save_oci_archive, save_oci_directory, save_docker_archive])
def test_what_we_write_we_read(store: LocalStore, tmp_path: Path, image: Image, save: Writer) -> None:
    save(tmp_path / "saved", image)
    (loaded,) = load_archive(store, str(tmp_path / "saved"))
    assert (loaded.reference, loaded.platform, loaded.source) == (NAME, "linux/amd64", "load")
    manifest = whole(store, loaded)
    assert manifest.config.digest == digest_of(image.config)
    assert store.images.find(parse_reference(NAME), AMD64) == loaded
    for diff_id in image.diff_ids:
        assert any(store.has_blob(one.digest, size=one.size) for one in store.holding(diff_id).blobs)
    if save is not save_docker_archive:
        assert loaded.manifest == image.digest


@pytest.mark.parametrize("save", [save_oci_archive, save_docker_archive])
def test_equal_images_give_equal_bytes(tmp_path: Path, image: Image, save: Writer) -> None:
    for name in ("one", "two"):
        save(tmp_path / name, image)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with tarfile.open(tmp_path / "one") as tar:
        assert tar.getnames() == sorted(tar.getnames())
        assert {(one.mtime, one.uid, one.gid, one.mode) for one in tar} == {(0, 0, 0, 0o644)}


@pytest.mark.parametrize("save", [save_oci_archive, save_oci_directory, save_docker_archive])
def test_a_layer_that_turns_out_damaged_leaves_no_archive(tmp_path: Path, image: Image, save: Writer) -> None:
    image.tars, image.stored = (BASE_TAR, APP_TAR[:-1]), (image.stored[0], image.stored[1][:-1])
    right = Image(BASE_TAR, APP_TAR)
    broken = out(right, plain=save is save_docker_archive)
    layers = [broken.layers[0], (broken.layers[1][0], lambda out: out(b"short"))]
    with pytest.raises(DamagedBlob):
        write_by(save, tmp_path / "saved", OutImage(manifest=broken.manifest, config=broken.config, layers=layers))
    assert os.listdir(tmp_path) == []


def test_a_blob_of_another_layout_that_is_damaged_is_written_again(tmp_path: Path, image: Image) -> None:
    save_oci_directory(tmp_path / "saved", image)
    blobs = [one for one in (tmp_path / "saved/blobs/sha256").iterdir() if one.is_file()]
    for blob in blobs:
        blob.write_bytes(bytes(blob.stat().st_size))
    save_oci_directory(tmp_path / "saved", image)
    assert [digest_of(blob.read_bytes()) for blob in blobs] == [f"sha256:{blob.name}" for blob in blobs]


def write_by(save: Writer, path: Path, image: OutImage) -> None:
    if save is save_docker_archive:
        write_docker_archive(str(path), image)
    elif save is save_oci_archive:
        write_oci_archive(str(path), [image])
    else:
        write_layout(str(path), [image])


def test_an_image_is_added_to_a_layout_that_is_there(store: LocalStore, tmp_path: Path, image: Image) -> None:
    path, other = str(tmp_path / "layout"), Image(BASE_TAR)
    write_layout(path, [out(image)], name="example.com/a:1")
    write_layout(path, [out(other)], name="example.com/b:1")
    write_layout(path, [out(image)], name="example.com/b:1")
    assert [(one.reference, one.manifest) for one in load_archive(store, path)] == [("example.com/a:1", image.digest), ("example.com/b:1", image.digest)]


def test_a_directory_of_something_else_is_refused(tmp_path: Path, image: Image) -> None:
    (tmp_path / "dir").mkdir()
    save_oci_directory(tmp_path / "dir", image)  # an empty one is fine
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").write_text("x")
    with pytest.raises(UsageError):
        save_oci_directory(tmp_path / "home", image)
    assert os.listdir(tmp_path / "home") == ["file"]


class TestPlatforms:
    @pytest.fixture
    def saved(self, tmp_path: Path) -> str:
        path = str(tmp_path / "saved")
        write_oci_archive(path, [out(Image(BASE_TAR)), out(Image(APP_TAR, platform=ARM64))], name=NAME)
        return path

    def test_all_are_loaded(self, store: LocalStore, saved: str) -> None:
        loaded = load_archive(store, saved)
        assert [one.platform for one in loaded] == ["linux/amd64", "linux/arm64"]
        assert loaded[0].named == loaded[1].named != loaded[0].manifest
        assert store.images.find(parse_reference(NAME), ARM64) == loaded[1]
        assert store.images.find(parse_reference(f"example.com/team/app@{loaded[0].named}"), ARM64) == loaded[1]
        assert store.images.find(parse_reference(f"example.com/team/app@{loaded[0].manifest}"), ARM64) is None

    def test_one_is_chosen(self, store: LocalStore, saved: str) -> None:
        assert [one.platform for one in load_archive(store, saved, platform=ARM64)] == ["linux/arm64"]

    def test_a_platform_that_is_not_there_is_told(self, store: LocalStore, saved: str) -> None:
        with pytest.raises(UsageError, match="no image for linux/s390x") as caught:
            load_archive(store, saved, platform=Platform("linux", "s390x"))
        assert caught.value.mend == "it has linux/amd64, linux/arm64"

    def test_those_not_saved_and_attestations_are_passed_over(self, store: LocalStore, tmp_path: Path, image: Image) -> None:
        path = tmp_path / "layout"
        save_oci_directory(path, image)
        here = Descriptor(media_type=OCI_MANIFEST, digest=image.digest, size=len(image.manifest), platform=AMD64)
        absent = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(b"absent"), size=6, platform=ARM64)
        proof = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(b"p"), size=1, platform=Platform("unknown", "unknown"))
        index = Index(manifests=(here, absent, proof)).encode()
        (path / "blobs" / "sha256" / digest_of(index)[7:]).write_bytes(index)
        top = Descriptor(media_type=OCI_INDEX, digest=digest_of(index), size=len(index), annotations={"io.containerd.image.name": NAME})
        (path / "index.json").write_bytes(Index(manifests=(top,)).encode())
        assert [(one.platform, one.named) for one in load_archive(store, str(path))] == [("linux/amd64", digest_of(index))]


class TestNames:
    @pytest.mark.parametrize("name", ["", "latest"])
    def test_without_a_name_one_has_to_be_given(self, store: LocalStore, tmp_path: Path, image: Image, name: str) -> None:
        write_oci_archive(str(tmp_path / "saved"), [out(image)], name=name)
        with pytest.raises(UsageError, match="no name") as caught:
            load_archive(store, str(tmp_path / "saved"))
        assert "--name" in caught.value.mend
        (loaded,) = load_archive(store, str(tmp_path / "saved"), name=parse_reference("app"))
        assert loaded.reference == "docker.io/library/app:latest"

    def test_several_images_with_several_names(self, store: LocalStore, tmp_path: Path, image: Image) -> None:
        other = Image(APP_TAR)
        files = docker_files(image, layers=["a.tar", "b.tar"], names=["app:1", "app:2"]) | {"a.tar": BASE_TAR, "b.tar": APP_TAR}
        second = docker_files(other, layers=["b.tar"], names=["other:3"])
        files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) + json.loads(second.pop("manifest.json"))).encode()
        write_tar(tmp_path / "saved", files | second)
        assert [one.reference for one in load_archive(store, str(tmp_path / "saved"))] == [
            "docker.io/library/app:1",
            "docker.io/library/app:2",
            "docker.io/library/other:3",
        ]
        with pytest.raises(UsageError, match="one name"):
            load_archive(store, str(tmp_path / "saved"), name=parse_reference("app"))

    def test_a_name_moves_to_what_was_loaded_last(self, store: LocalStore, tmp_path: Path, image: Image) -> None:
        for number, one in enumerate((image, Image(BASE_TAR))):
            save_oci_archive(tmp_path / str(number), one)
            (loaded,) = load_archive(store, str(tmp_path / str(number)))
        assert store.images.all() == (loaded,)


class TestDockerArchive:
    def test_linked_and_compressed_layers_and_dot_names(self, store: LocalStore, tmp_path: Path, image: Image) -> None:
        files = {f"./{name}": content for name, content in docker_files(image, layers=["1/layer.tar", "2/layer.tar"]).items()}
        files |= {"base.tar": BASE_TAR, "1/layer.tar": "../base.tar", "2/layer.tar": gzipped(APP_TAR[:5000]) + gzipped(APP_TAR[5000:])}
        write_tar(tmp_path / "saved", files)
        (loaded,) = load_archive(store, str(tmp_path / "saved"))
        assert [one.digest for one in whole(store, loaded).layers] == [image.diff_ids[0], digest_of(files["2/layer.tar"])]  # type: ignore[arg-type]

    @pytest.mark.parametrize("wrong", [BASE_TAR, gzipped(BASE_TAR), gzipped(APP_TAR)[:-20]])
    def test_a_layer_that_is_not_its_diff_id_is_refused(self, store: LocalStore, tmp_path: Path, image: Image, wrong: bytes) -> None:
        write_tar(tmp_path / "saved", docker_files(image, layers=["a.tar", "b.tar"]) | {"a.tar": BASE_TAR, "b.tar": wrong})
        with pytest.raises(BadArchive):
            load_archive(store, str(tmp_path / "saved"))
        assert store.images.all() == ()
        assert not store.has_blob(digest_of(wrong)) or wrong is BASE_TAR

    def test_a_config_that_is_not_its_name_is_refused(self, store: LocalStore, tmp_path: Path, image: Image) -> None:
        files = docker_files(image, layers=["a.tar", "b.tar"]) | {"a.tar": BASE_TAR, "b.tar": APP_TAR}
        files[f"{digest_of(image.config)[7:]}.json"] = ImageConfig(platform=AMD64, diff_ids=image.diff_ids).encode()
        write_tar(tmp_path / "saved", files)
        with pytest.raises(BadArchive, match="another digest"):
            load_archive(store, str(tmp_path / "saved"))

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            ({"b.tar": "/etc/passwd"}, "leads out"),
            ({"b.tar": "../../etc/passwd"}, "leads out"),
            ({"b.tar": "c.tar", "c.tar": "b.tar"}, "leads nowhere"),
            ({}, "lacks b.tar"),
            ({"b.tar": APP_TAR, "../x": b""}, "leads out"),
            ({"b.tar": APP_TAR, "/x": b""}, "leads out"),
        ],
    )
    def test_path_tricks_are_refused(self, store: LocalStore, tmp_path: Path, image: Image, files: dict[str, bytes | str], reason: str) -> None:
        write_tar(tmp_path / "saved", docker_files(image, layers=["a.tar", "b.tar"]) | {"a.tar": BASE_TAR} | files)
        with pytest.raises(BadArchive, match=reason):
            load_archive(store, str(tmp_path / "saved"))
        assert store.images.all() == ()

    @pytest.mark.parametrize("text", [b"{", b"{}", b"[1]", b'[{"Config": 1}]', b"[" * 100_000])
    def test_a_manifest_that_is_none_is_refused(self, store: LocalStore, tmp_path: Path, text: bytes) -> None:
        write_tar(tmp_path / "saved", {"manifest.json": text})
        with pytest.raises((BadArchive, BadManifest)):
            load_archive(store, str(tmp_path / "saved"))


class TestDamage:
    def test_an_archive_cut_short_anywhere_is_refused(self, store: LocalStore, tmp_path: Path, image: Image) -> None:
        save_oci_archive(tmp_path / "saved", image)
        content = (tmp_path / "saved").read_bytes()
        for length in range(0, len(content) - 1024, 1000):
            (tmp_path / "short").write_bytes(content[:length])
            with pytest.raises((BadArchive, BadManifest)):
                load_archive(store, str(tmp_path / "short"))
            assert store.images.all() == ()

    def test_a_compressed_archive_is_read_and_cut_short_refused(self, store: LocalStore, tmp_path: Path, image: Image) -> None:
        save_docker_archive(tmp_path / "saved", image)
        packed = gzipped((tmp_path / "saved").read_bytes())
        (tmp_path / "packed").write_bytes(packed[: len(packed) // 2])
        with pytest.raises(BadArchive, match="ends early"):
            load_archive(store, str(tmp_path / "packed"))
        (tmp_path / "packed").write_bytes(packed)
        whole(store, load_archive(store, str(tmp_path / "packed"))[0])

    def test_a_changed_blob_is_refused_and_loading_again_heals(self, store: LocalStore, tmp_path: Path, image: Image) -> None:
        save_oci_directory(tmp_path / "saved", image)
        for descriptor, right in [(image.descriptors[1], image.stored[1]), (None, image.config), (None, image.manifest)]:
            path = tmp_path / "saved" / "blobs" / "sha256" / digest_of(right)[7:]
            path.write_bytes(right[:-1] + b"!")
            with pytest.raises(BadArchive):
                load_archive(store, str(tmp_path / "saved"))
            assert descriptor is None or not store.has_blob(descriptor.digest)
            path.write_bytes(right)
        whole(store, load_archive(store, str(tmp_path / "saved"))[0])

    @pytest.mark.parametrize("content", [b"", b"not a tar", bytes(10240), layer_tar({"file": b"x"})])
    def test_something_else_is_refused(self, store: LocalStore, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "saved").write_bytes(content)
        with pytest.raises(BadArchive):
            load_archive(store, str(tmp_path / "saved"))

    def test_no_file_a_fifo_and_an_empty_directory(self, store: LocalStore, tmp_path: Path) -> None:
        (tmp_path / "dir").mkdir()
        for name in ("none", "dir"):
            with pytest.raises(BadArchive):
                load_archive(store, str(tmp_path / name))
        with pytest.raises(BadArchive, match="regular"):
            load_archive(store, "/dev/null")


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo: apt-get install skopeo")
class TestOtherTools:
    @pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
    def test_what_skopeo_writes_we_read(self, store: LocalStore, tmp_path: Path, image: Image, kind: str) -> None:
        save_oci_directory(tmp_path / "ours", image)
        skopeo("copy", f"oci:{tmp_path}/ours:{NAME}", f"{kind}:{tmp_path}/theirs:{NAME}")
        (loaded,) = load_archive(store, str(tmp_path / "theirs"))
        assert loaded.reference == NAME
        assert whole(store, loaded).config.digest == digest_of(image.config)

    @pytest.mark.parametrize(("kind", "save"), [("docker-archive", save_docker_archive), ("oci-archive", save_oci_archive), ("oci", save_oci_directory)])
    def test_what_we_write_skopeo_reads(self, tmp_path: Path, image: Image, kind: str, save: Writer) -> None:
        save(tmp_path / "ours", image)
        skopeo("copy", f"{kind}:{tmp_path}/ours:{NAME}", f"dir:{tmp_path}/theirs")
        config = next((tmp_path / "theirs").glob(digest_of(image.config)[7:]))
        assert config.read_bytes() == image.config

    @pytest.mark.needs_root
    @pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman: apt-get install podman")
    @pytest.mark.parametrize("save", [save_docker_archive, save_oci_archive])
    def test_podman_loads_what_we_write_and_we_what_it_saves(self, store: LocalStore, tmp_path: Path, image: Image, save: Writer) -> None:
        save(tmp_path / "ours", image)
        with tempfile.TemporaryDirectory(prefix="podman-") as place:  # podman takes no run directory of more than 50 characters
            assert NAME in podman(place, "load", "-i", f"{tmp_path}/ours")
            for kind in ("docker-archive", "oci-archive"):
                podman(place, "save", "--format", kind, "-o", f"{tmp_path}/{kind}", NAME)
                (loaded,) = load_archive(store, f"{tmp_path}/{kind}")
                assert loaded.reference == NAME
                config = decode_image_config(store.read_blob(whole(store, loaded).config.digest))
                assert config.diff_ids == image.diff_ids  # podman writes the config anew


def podman(place: str, *arguments: str) -> str:
    argv = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*arguments: str) -> None:
    done = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
