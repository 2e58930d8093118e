"""Loads configurations from texts."""

from __future__ import annotations

from textwrap import dedent

from layerwright.config.load import ConfigError, load_config
from layerwright.config.model import Config, Image

META = "configVersion: 1\nproject: shop\n"
GITERMINISM = "giterminismConfigVersion: 1\nconfig: {stapel: {allowFromLatest: true, mount: {allowBuildDir: true}}}\n"


def load(text: str, *, loose: bool = False, **files: str) -> Config:
    """The configuration `text` at a commit that also has `files` (`werf_giterminism` is werf-giterminism.yaml)."""
    contents = {"werf.yaml": text, **{name.replace("_", "-") + ".yaml": content for name, content in files.items()}}
    return load_config(lambda path: contents[path].encode() if path in contents else None, loose_giterminism=loose)


def load_images(text: str, *, loose: bool = False, **files: str) -> tuple[Image, ...]:
    """The images of sections written below a meta section of two lines."""
    return load(f"{META}---\n{dedent(text).lstrip()}", loose=loose, **files).images


def load_image(text: str, *, loose: bool = False, **files: str) -> Image:
    """The image of keys written below `image: app` and `from: alpine`, which are lines 4 and 5."""
    return load_images(f"image: app\nfrom: alpine\n{dedent(text).lstrip()}", loose=loose, **files)[0]


def faults_of(text: str, *, loose: bool = False, **files: str) -> list[str]:
    """Every fault as "line:column: what, mend"; none if the configuration is good."""
    try:
        load(text, loose=loose, **files)
    except ConfigError as error:
        return [str(fault).removeprefix("werf.yaml:") for fault in error.faults]
    return []


def image_faults(text: str, *, loose: bool = False, **files: str) -> list[str]:
    """The same for keys written below `image: app` and `from: alpine`: the first is on line 6."""
    return faults_of(f"{META}---\nimage: app\nfrom: alpine\n{dedent(text).lstrip()}", loose=loose, **files)


def warnings_of(text: str, **files: str) -> list[str]:
    return [f"{one.position}: {one.text}" for one in load(text, **files).warnings]
