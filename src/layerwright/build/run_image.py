"""Running a container of a finished image, as its config says. Source: OCI image-spec 1.1 conversion.md."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Sequence

from layerwright.build.layer_makers import PATH
from layerwright.build.session import Session
from layerwright.build.trees import ImageRun
from layerwright.errors import UsageError
from layerwright.layers.entry import FILE, HARDLINK
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex, SymlinkLoop
from layerwright.oci.image_config import meaning
from layerwright.oci.platform import parse_platform
from layerwright.runtime.foreign import refuse_foreign
from layerwright.runtime.runner import ProgramNotStarted
from layerwright.stages.instructions import with_env
from layerwright.storage.records import Record

_MOUNTED = ("/proc/", "/sys/", "/dev/")


def run_image(
    session: Session,
    record: Record,
    command: Sequence[str] = (),
    *,
    entrypoint: Sequence[str] | None = None,
    env: Sequence[str] = (),
    user: str = "",
    workdir: str = "",
    network: str = "host",
    files: tuple[int, int, int] = (0, 1, 2),
) -> int:
    """The exit status of the command. A `command` replaces CMD, an `entrypoint` ENTRYPOINT (and then CMD is not used). Raises UsageError, MachineLacks."""
    refuse_foreign(parse_platform(record.platform), where=f"image {record.image or '~'!r}")
    config = record.config
    args = arguments_of(record, command, entrypoint)
    view = session.cabinet.stack(record.chain)
    names = {item.partition("=")[0] for item in config.env}
    base = config.env if "PATH" in names else (PATH, *config.env)
    variables = with_env(base, {item.partition("=")[0]: item.partition("=")[2] for item in env})
    directory = _start_directory(view, workdir or config.working_dir)
    refuse_missing_program(view, args[0], variables, directory)
    run = ImageRun(
        args=args,
        env=variables,
        cwd=directory,
        user=user_of(view, user or config.user),
        network=network,
        layers=record.diff_ids,
        terminal=all(os.isatty(fd) for fd in files),
    )
    sys.stdout.flush()
    return session.trees.run_image(run, files=files, cancel=session.cancel)


def _start_directory(view: StackedIndex, directory: str) -> str:
    """An absolute path. Raises UsageError for one among the kernel's own files: through /proc/self/fd an image could name a directory of the host that
    a runtime has open while it starts a container (CVE-2024-21626)."""
    led = view.resolve(directory.encode("utf-8", "surrogateescape"), follow_last=True)
    if led.partition(b"/")[0] in (b"proc", b"sys", b"dev"):
        what = f"the working directory {directory!r} leads to {shown(led)}, where no container may start"
        raise UsageError(what, mend="name another one with --workdir, or mend WORKDIR of the image")
    return posixpath.join("/", directory)


def arguments_of(record: Record, command: Sequence[str] = (), entrypoint: Sequence[str] | None = None) -> tuple[str, ...]:
    """What runs in a container of the image. Raises UsageError where nothing would."""
    args: tuple[str, ...]
    if entrypoint is not None:
        args = (*entrypoint, *command)
    else:
        args = (*meaning(record.config.entrypoint), *(tuple(command) or meaning(record.config.cmd)))
    if not args:
        raise UsageError(f"image {record.image or '~'!r} has neither CMD nor ENTRYPOINT", mend="name the command: layerwright run IMAGE -- COMMAND")
    return args


def refuse_missing_program(view: StackedIndex, program: str, env: Sequence[str], directory: str) -> None:
    """Raises ProgramNotStarted where the image lacks the program: a runtime would say so in its own words, on what is the command's standard error.
    Not looked for where a container has file systems of its own."""
    path = next((item.partition("=")[2] for item in reversed(env) if item.startswith("PATH=")), "")
    places = [posixpath.join(directory, program)] if "/" in program else [posixpath.join(directory, one, program) for one in path.split(":")]
    if not any(place.startswith(_MOUNTED) or _is_program(view, place) for place in places):
        where = "in the image" if "/" in program else f"in the directories of PATH ({path})"
        raise ProgramNotStarted(f"there is no {program} {where}", mend="give a program that the image has, with its path; --entrypoint replaces ENTRYPOINT")


def _is_program(view: StackedIndex, place: str) -> bool:
    try:
        found = view.find(view.resolve(place.lstrip("/").encode("utf-8", "surrogateescape"), follow_last=True), digest=False)
    except SymlinkLoop:
        return False
    return found is not None and found.entry.kind in (FILE, HARDLINK)


def user_of(view: StackedIndex, user: str) -> tuple[int, int, tuple[int, ...]]:
    """USER as uid, gid and further gids: NAME, UID, NAME:GROUP or UID:GID; a user without a group has that of /etc/passwd."""
    name, colon, group = user.partition(":")
    uid = _number(name, view.uid_of(name) if name and not name.isdigit() else None, "USER", "/etc/passwd")
    if colon:
        return uid, _number(group, view.gid_of(group) if group and not group.isdigit() else None, "group of USER", "/etc/group"), ()
    return uid, view.primary_gid(uid) or 0, ()


def _number(name: str, found: int | None, what: str, file: str) -> int:
    if not name:
        return 0
    if name.isdigit():
        return int(name)
    if found is None:
        raise UsageError(f"{what} {name!r} is not in the image's {file}", mend="use a number, or create the account in a stage")
    return found
