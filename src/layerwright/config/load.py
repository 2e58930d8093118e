"""Reads a project's configuration: the one way in. Source: werf.yaml reference, "Finding the files"."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from layerwright.config.checks import check_images
from layerwright.config.document import read_document
from layerwright.config.faults import ConfigError, Faults
from layerwright.config.giterminism import FILE as GITERMINISM_FILE
from layerwright.config.giterminism import read_permissions
from layerwright.config.model import Config, Image, Position
from layerwright.config.parse import parse_document
from layerwright.config.parse_meta import project_name_from
from layerwright.errors import UsageError
from layerwright.oci.platform import host_platform

__all__ = ["ConfigError", "load_config"]

CANDIDATES = ("werf.yaml", "werf.yml")
INCLUDES_FILE = "werf-includes.yaml"
LOCK_FILE = "layerwright.lock"


def load_config(
    read: Callable[[str], bytes | None],
    *,
    loose_giterminism: bool = False,
    file: str | None = None,
    project_name: str = "",
    work_dir: str = "",
) -> Config:
    """The project's configuration, whole and checked.

    `read` gives a file of the commit by its path in the project directory, or None. `file` is the only candidate if given; `project_name` replaces the written
    one; `work_dir` is the project directory's path, used to propose a project name. Raises ConfigError with every fault, sorted by position.
    """
    name, content = _main_file(read, file)
    faults = Faults()
    giterminism = read(GITERMINISM_FILE)
    permissions_text = None if giterminism is None else _decoded(giterminism, GITERMINISM_FILE, faults)
    permissions = read_permissions(permissions_text, faults, loose=loose_giterminism)
    _refuse_includes(read(INCLUDES_FILE), faults)
    _refuse_lock(read(LOCK_FILE), faults)
    project = ""
    images: tuple[Image, ...] = ()
    text = _decoded(content, name, faults)
    if text is not None:
        document = read_document(text, name, faults)
        project, images = parse_document(document, name, permissions, project_name_from(posixpath.basename(work_dir.rstrip("/"))), faults)
        check_images(images, faults, host_platform=str(host_platform()))
    faults.raise_if_any()
    return Config(project=_project(project_name, project), images=images, warnings=tuple(sorted(faults.warnings, key=lambda one: one.position)), file=name)


def _main_file(read: Callable[[str], bytes | None], file: str | None) -> tuple[str, bytes]:
    candidates = (file,) if file else CANDIDATES
    for name in candidates:
        content = read(name)
        if content is not None:
            return name, content
    raise UsageError(
        f"{candidates[0]} is not in the commit",
        where=candidates[0],
        mend=f"create it and commit it: git add {candidates[0]} && git commit; files that are not committed are not read",
    )


def _decoded(content: bytes, file: str, faults: Faults) -> str | None:
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line_start = before.rfind(b"\n") + 1
        position = Position(file, before.count(b"\n") + 1, len(before[line_start:].decode("utf-8")) + 1)
        faults.add(position, f"the byte 0x{content[error.start]:02x} is not UTF-8", "save the file in the encoding UTF-8")
        return None


def _refuse_includes(content: bytes | None, faults: Faults) -> None:
    """A file of comments and blank lines asks for nothing."""
    lines = (content or b"").split(b"\n")
    first = next((number for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith(b"#")), None)
    if first is not None:
        faults.unsupported(
            Position(INCLUDES_FILE, first, 1),
            "includes of other repositories are",
            f"copy the included files into this repository and take {INCLUDES_FILE} away",
        )


def _refuse_lock(content: bytes | None, faults: Faults) -> None:
    if content is not None:
        faults.unsupported(Position(LOCK_FILE, 1, 1), f"{LOCK_FILE} is", 'name base images by digest ("from: NAME@sha256:…"), and take the file away')


def _project(given: str, written: str) -> str:
    """The given name is taken as it is, as werf does; only what cannot name a directory is refused."""
    if "/" in given or given in (".", "..") or not given.isprintable():
        raise UsageError(f"{given!r} is not a project name", where="project name", mend="give lower-case letters, digits and hyphens")
    return given or written
