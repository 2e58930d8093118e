"""Base images, made from what the machine has and served by the tests' registry."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.machine import find_program
from tests.support.registry_server import RegistryServer
from tools.base_image import debian_layout, make_busybox_tar, write_layout

PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

# Tag of base/busybox -> the `config` object of the image. The first four are the cases of the CMD and ENTRYPOINT rules.
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "1": {"Cmd": ["sh"], "Env": [PATH]},
    "bare": {"Env": [PATH]},
    "entrypoint": {"Entrypoint": ["/bin/echo", "from the base"], "Env": [PATH]},
    "both": {"Cmd": ["world"], "Entrypoint": ["/bin/echo", "hello"], "Env": [PATH]},
    "full": {
        "Cmd": ["world"],
        "Entrypoint": ["/bin/echo", "hello"],
        "Env": [PATH, "LANG=C", "GREETING=good day"],
        "ExposedPorts": {"8080/tcp": {}},
        "Labels": {"org.example.base": "busybox", "maintainer": "nobody"},
        "StopSignal": "SIGQUIT",
        "User": "nobody",
        "Volumes": {"/data": {}},
        "WorkingDir": "/home",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImages:
    """References to base images as werf.yaml writes them."""

    registry: RegistryServer
    directory: Path

    @property
    def busybox(self) -> str:
        """A small usr-merged system with sh and no bash; users root, www-data (33) and nobody; `Cmd` is sh."""
        return self.variant("1")

    def variant(self, tag: str) -> str:
        """One of VARIANTS: the same files, another configuration."""
        assert tag in VARIANTS
        return self.registry.reference(f"base/busybox:{tag}")

    def push(self, name: str, layers: list[bytes], settings: Mapping[str, object] | None = None) -> str:
        """Make an image of uncompressed layer tars, push it as `name` ("base/own:1"), and return its reference."""
        layout = self.directory / name.replace("/", "-").replace(":", "-")
        write_layout(layout, layers, settings)
        return push_layout(self.registry, layout, name)


def push_layout(registry: RegistryServer, layout: Path, name: str) -> str:
    """Push the image "latest" of an OCI layout; returns its reference."""
    reference = registry.reference(name)
    command = (find_program("skopeo"), "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{reference}")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return reference


def push_busybox(registry: RegistryServer, directory: Path) -> BaseImages:
    """Make base/busybox in all its variants and push them."""
    images = BaseImages(registry=registry, directory=directory)
    layer = make_busybox_tar()
    for tag, settings in VARIANTS.items():
        images.push(f"base/busybox:{tag}", [layer], settings)
    return images


def push_debian(registry: RegistryServer) -> str:
    """Push base/debian:12, Debian's essential packages with bash; made once for each user of the machine. Returns its reference."""
    return push_layout(registry, debian_layout(), "base/debian:12")
