#!/usr/bin/env python3
"""Takes the pictures of docs/terminal.md from a real build: four images at once, a slow registry, two terminals. Needs what the tests need, and root.

PYTHONPATH=src:. python tools/capture.py docs/captures
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.base_images import BaseImages, push_busybox
from tests.support.commandline import CommandLine
from tests.support.front import Front
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.terminal import Terminal, line_of

IMAGES = """
image: backend
from: {slow}/library/python:3.13-slim
git: [{{add: /hello, to: /app/hello}}]
---
image: frontend
from: {slow}/library/node:22-slim
git: [{{add: /hello, to: /app/hello}}]
---
image: worker
from: {quick}
shell:
  install:
    - for name in click pyyaml rich urllib3; do printf '\\033[34mCollecting\\033[0m %s\\n' $name; sleep 0.8; done; sleep 20
---
image: docs
from: {quick}
shell:
  beforeInstall: [echo Setting up graphviz; sleep 1; echo Setting up libpango-1.0-0; sleep 20]
"""


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="capture") as place, RegistryServer(Path(place) / "registry") as registry:
        base_images = push_busybox(registry, Path(place) / "images")
        for name, size in (("python:3.13-slim", 9 << 20), ("node:22-slim", 14 << 20)):
            base_images.push(f"library/{name}", [layer(size)])
        with Front(registry, bytes_per_s=1_300_000) as slow:
            project = made_project(Path(place) / "project", slow, base_images)
            for name, width, height in (("build", 110, 24), ("narrow", 40, 12)):
                (directory / f"{name}.svg").write_text(picture(Path(place), project, name, width, height))


def layer(size: int) -> bytes:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as out:
        entry = tarfile.TarInfo("large")
        entry.size = size
        out.addfile(entry, io.BytesIO(os.urandom(size)))
    return tar.getvalue()


def made_project(path: Path, slow: Front, base_images: BaseImages) -> Project:
    project = Project(path)
    project.write("hello", "hello\n")
    project.werf(IMAGES.format(slow=slow.reference("").rstrip("/"), quick=base_images.busybox), project="shop")
    project.commit()
    return project


def picture(place: Path, project: Project, name: str, width: int, height: int) -> str:
    """The terminal in the middle of a build, as an SVG."""
    user_home = place / f"user-{name}"
    user_home.mkdir()
    lw = CommandLine(home=place / f"store-{name}", user_home=user_home, directory=project.path)
    with Terminal(place, line_of(lw, "build", "--parallel", "4"), width=width, height=height) as terminal:
        terminal.until(lambda screen: "urllib3" in screen and " 4." in screen)
        shown = terminal.coloured().rstrip("\n")
        terminal.type("C-c")
        terminal.ended()
    shutil.rmtree(lw.home)
    console = Console(record=True, width=width, height=height, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(shown.split("\n")[-height:])), soft_wrap=True)
    return console.export_svg(title="layerwright build", unique_id=f"layerwright-{name}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tools/capture.py DIRECTORY")
    main(Path(sys.argv[1]))
