"""The tests' own tools, as far as a mistake in them would make other tests prove nothing."""

from __future__ import annotations

import json
import subprocess
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from layerwright import __version__
from tests.support.base_images import VARIANTS, BaseImages
from tests.support.commandline import CommandLine
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tools.base_image import make_busybox_tar


def test_the_busybox_image_is_the_same_bytes_each_time() -> None:
    assert make_busybox_tar() == make_busybox_tar()


def test_the_busybox_image_is_usr_merged(tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(make_busybox_tar())
    with tarfile.open(tmp_path / "layer.tar") as tar:
        assert tar.getmember("bin").linkname == "usr/bin"
        assert tar.getmember("usr/bin/sh").linkname == "busybox"
        assert tar.getmember("tmp").mode == 0o1777


def test_every_variant_is_served_with_its_configuration(base_images: BaseImages) -> None:
    for tag, settings in VARIANTS.items():
        command = (find_program("skopeo"), "inspect", "--config", "--tls-verify=false", f"docker://{base_images.variant(tag)}")
        config = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert config["config"] == settings


def test_a_registry_with_users_turns_others_away(tmp_path: Path) -> None:
    with RegistryServer(tmp_path, users={"ann": "secret"}) as server, pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://{server.address}/v2/", timeout=10)


def test_equal_steps_give_equal_commits(tmp_path: Path) -> None:
    first, second = Project(tmp_path / "first"), Project(tmp_path / "second")
    for project in (first, second):
        project.werf("image: app\nfrom: scratch\n")
        project.write("bin/tool", "#!/bin/sh\n", executable=True)
        project.link("tool", "bin/tool")
        project.commit()
        project.remove("tool")
        project.commit("without the link")
    assert first.head() == second.head()
    assert first.git("ls-tree", "-r", "--format=%(objectmode) %(path)", "HEAD").splitlines() == ["100755 bin/tool", "100644 werf.yaml"]


def test_the_command_line_runs_with_a_store_of_its_own(lw: CommandLine) -> None:
    assert lw("version").stdout == f"{__version__}\n"
    assert lw("image", "ls").stdout == ""
    assert lw.environment()["LAYERWRIGHT_HOME"] == str(lw.home)
