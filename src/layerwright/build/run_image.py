"""Running a container of a finished image, as its config says. Source: OCI image-spec 1.1 conversion.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from layerwright.build.layer_makers import PATH
from layerwright.build.session import Session
from layerwright.build.trees import ImageRun
from layerwright.errors import UsageError
from layerwright.layers.stack import StackedIndex
from layerwright.oci.image_config import meaning
from layerwright.stages.instructions import with_env
from layerwright.storage.records import Record


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
    config = record.config
    args = arguments_of(record, command, entrypoint)
    view = session.cabinet.stack(record.chain)
    names = {item.partition("=")[0] for item in config.env}
    base = config.env if "PATH" in names else (PATH, *config.env)
    run = ImageRun(
        args=args,
        env=with_env(base, {item.partition("=")[0]: item.partition("=")[2] for item in env}),
        cwd=workdir or config.working_dir or "/",
        user=user_of(view, user or config.user),
        network=network,
        layers=record.diff_ids,
        terminal=all(os.isatty(fd) for fd in files),
    )
    sys.stdout.flush()
    return session.trees.run_image(run, files=files, cancel=session.cancel)


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
