"""Builds and pushes through a registry that goes wrong, by the command line: the right image or one clear error, and the next run is well again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine, Ran
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer

MANIFEST, LAYER = "base/busybox/manifests/1", "base/busybox/blobs/{layer}"
LOOK, SEND, NAME = "out/.*/blobs/sha256", "out/.*/blobs/uploads", "out/.*/manifests/"
QUICK = {"LAYERWRIGHT_REGISTRY_TIMEOUT": "1.5", "LAYERWRIGHT_REGISTRY_RETRIES": "2", "LAYERWRIGHT_REGISTRY_LONGEST_WAIT": "2"}
IMAGE = """
image: app
from: {base}
git:
- add: /src
  to: /app
"""


@pytest.fixture
def proxy(base_images: BaseImages) -> Iterator[FaultyProxy]:
    with FaultyProxy(base_images.registry.address, wants_token=True) as made:
        yield made


@pytest.fixture
def at_proxy(project: Project, lw: CommandLine, proxy: FaultyProxy) -> CommandLine:
    """The command line in a project whose base comes through the proxy."""
    project.werf(IMAGE.format(base=proxy.reference("base/busybox:1")))
    project.write("src/hello.txt", "hello\n")
    project.commit()
    return CommandLine(home=lw.home, user_home=lw.user_home, directory=lw.directory, more=QUICK)


@pytest.fixture(scope="session")
def layer(base_images: BaseImages) -> str:
    """The digest of the base's layer."""
    command = (find_program("skopeo"), "inspect", "--tls-verify=false", f"docker://{base_images.busybox}")
    (found,) = json.loads(subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout)["Layers"]
    return str(found)


def export(lw: CommandLine, proxy: FaultyProxy, name: str, *, code: int = 0) -> Ran:
    return lw("export", "app", "--to", f"docker://{proxy.reference(f'out/{name}:1')}", code=code)


def held(registry: RegistryServer, name: str) -> dict[str, object] | None:
    """What the registry has under the name, as skopeo reads it; None for nothing."""
    command = (find_program("skopeo"), "inspect", "--tls-verify=false", f"docker://{registry.reference(f'out/{name}:1')}")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def check_pushed(ran: Ran, registry: RegistryServer, name: str, tmp_path: Path) -> None:
    found = held(registry, name)
    assert found is not None, ran
    assert found["Digest"] == ran.stdout.strip(), ran
    copy = (find_program("skopeo"), "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", f"docker://{registry.reference(f'out/{name}:1')}")
    layout = tmp_path / "copied"  # reads every blob, and holds it against its digest
    done = subprocess.run((*copy, f"oci:{layout}:latest"), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


HEALS: dict[str, tuple[str, str, Fault]] = {
    "token-503": ("GET", "^/token", faults.status(503)),
    "manifest-garbage": ("GET", MANIFEST, faults.garbage),
    "manifest-page": ("GET", MANIFEST, faults.html_page),
    "layer-cut": ("GET", LAYER, faults.cut),
    "layer-trickle": ("GET", LAYER, faults.trickle),
    "layer-wrong": ("GET", LAYER, faults.wrong_bytes),
    "storage-expired": ("GET", LAYER, faults.expired_storage(403)),
    "push-401": ("POST", SEND, faults.expired_token),
    "push-lost": ("PUT", SEND, faults.lost),
    "push-redirected": ("PUT", SEND, faults.redirect(307)),
    "manifest-503": ("PUT", NAME, faults.status(503)),
}


@pytest.mark.parametrize("name", HEALS)
def test_what_heals_is_not_seen(name: str, at_proxy: CommandLine, proxy: FaultyProxy, base_images: BaseImages, layer: str, tmp_path: Path) -> None:
    method, path, fault = HEALS[name]
    proxy.fail(method, path.format(layer=layer), fault)
    ran = export(at_proxy, proxy, f"heals-{name}")
    check_pushed(ran, base_images.registry, f"heals-{name}", tmp_path)
    assert proxy.fault_count >= 1


STAYS: dict[str, tuple[str, str, Fault, str]] = {
    "manifest-503": ("GET", MANIFEST, faults.status(503, "UNAVAILABLE: we are moving"), "answers 503 Service Unavailable: UNAVAILABLE: we are moving (tried 3 times in"),
    "manifest-429": ("GET", MANIFEST, faults.status(429, "TOOMANYREQUESTS: too many", Retry_After="3600"), "answers 429 Too Many Requests: TOOMANYREQUESTS: too many"),
    "manifest-silent": ("GET", MANIFEST, faults.silence, "it said nothing for 1.5 s (tried 3 times in"),
    "layer-reset": ("GET", LAYER, faults.reset, "broke: Connection reset by peer (tried 3 times in"),
    "layer-wrong": ("GET", LAYER, faults.wrong_bytes, "came damaged: its bytes have digest sha256:"),
    "push-denied": ("POST", SEND, faults.status(403, "DENIED: not for you"), "cannot upload blob sha256:"),
    "push-lost": ("PUT", SEND, faults.status(404, "BLOB_UPLOAD_UNKNOWN: lost"), "BLOB_UPLOAD_UNKNOWN: lost (tried 3 times in"),
    "push-circle": ("PUT", NAME, faults.redirect_loop(307), "cannot push the manifest: "),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
def test_what_stays_is_one_clear_error_and_nothing_is_half_done(
    name: str, at_proxy: CommandLine, proxy: FaultyProxy, base_images: BaseImages, layer: str, tmp_path: Path
) -> None:
    method, path, fault, said = STAYS[name]
    proxy.fail(method, path.format(layer=layer), fault, always=True)
    ran = export(at_proxy, proxy, f"stays-{name}", code=1)
    errors = [line for line in ran.stderr.splitlines() if said in line]
    assert len(errors) == 1, ran
    assert proxy.address in errors[0], ran
    assert ("base/busybox" if method == "GET" else f"out/stays-{name}") in errors[0], ran
    assert ("the registry asks to come back in 3600 seconds" in ran.stderr) == (name == "manifest-429"), ran
    assert "Traceback" not in ran.stderr, ran
    assert "hidden-" not in ran.stderr, ran
    assert ran.stdout == "", ran
    assert held(base_images.registry, f"stays-{name}") is None
    proxy.heal()
    check_pushed(export(at_proxy, proxy, f"stays-{name}"), base_images.registry, f"stays-{name}", tmp_path)


def test_an_upload_that_is_refused_ends_those_beside_it(at_proxy: CommandLine, proxy: FaultyProxy) -> None:
    """One upload hangs, with all the patience there is; the other is refused, and that is told at once."""
    patient = {"LAYERWRIGHT_REGISTRY_TIMEOUT": "600"}
    at_proxy("build", env=patient)
    proxy.fail("PUT", SEND, faults.silence, faults.status(403, "DENIED: the quota is used up"), always=True)
    started = time.monotonic()
    ran = at_proxy("export", "app", "--to", f"docker://{proxy.reference('out/beside:1')}", code=1, env=patient)
    assert time.monotonic() - started < 30, ran
    assert "DENIED: the quota is used up" in ran.stderr
    assert proxy.fault_count == 2


def test_ctrl_c_ends_a_transfer_that_hangs(at_proxy: CommandLine, proxy: FaultyProxy, base_images: BaseImages, layer: str, tmp_path: Path) -> None:
    proxy.fail("GET", LAYER.format(layer=layer), faults.silence, always=True)
    env = {**at_proxy.environment(), "LAYERWRIGHT_REGISTRY_TIMEOUT": "600"}
    argv = (sys.executable, "-m", "layerwright", "build")
    with subprocess.Popen(
        argv, cwd=at_proxy.directory, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        proxy.await_fault(60)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    proxy.heal()
    check_pushed(export(at_proxy, proxy, "after-ctrl-c"), base_images.registry, "after-ctrl-c", tmp_path)


def test_a_number_that_is_none_is_told(at_proxy: CommandLine) -> None:
    ran = at_proxy("build", code=2, env={"LAYERWRIGHT_REGISTRY_TIMEOUT": "soon"})
    assert "LAYERWRIGHT_REGISTRY_TIMEOUT: 'soon' is not seconds from 0.1 to 86400" in ran.stderr
