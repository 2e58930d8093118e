"""The command line: finds the command, and turns errors into messages and exit codes. Only this module exits.

0 done, 1 build failed, 2 usage or configuration, 3 the machine lacks something, 128 and the number of the signal that stopped it; `run` ends as its command did.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

import click

from layerwright import __version__
from layerwright.cli.command import Group
from layerwright.errors import Cancelled

COMMANDS = {
    "build": "layerwright.cli.build",
    "run": "layerwright.cli.run",
    "export": "layerwright.cli.export",
    "image": "layerwright.cli.image",
    "stage": "layerwright.cli.stage",
    "introspect": "layerwright.cli.introspect",
    "host": "layerwright.cli.host",
    "cr": "layerwright.cli.cr",
    "config": "layerwright.cli.config",
    "completion": "layerwright.cli.completion",
    "version": "layerwright.cli.version",
}
NOT_YET = (
    "cleanup",
    "purge",
    "managed-images",
    "stages",
    "compose",
    "ci-env",
    "slugify",
    "synchronization",
    "includes",
    "plan",
    "explain",
    "lock",
    "converge",
    "dismiss",
    "render",
    "bundle",
    "helm",
    "kubectl",
    "kube-run",
)
COMPLETING = "_LAYERWRIGHT_COMPLETE"  # set by the functions that a shell completes with


class LazyGroup(Group):
    """Imports a command when it is the one to run; for `--help` all of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        import importlib

        command: click.Command = importlib.import_module(COMMANDS[name]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in NOT_YET:
            raise click.UsageError(f'`{args[0]}` is not supported yet (README, "Not yet")', ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, message="%(version)s")
def root() -> None:
    """Build container images from git: a chain of stages, nothing built twice, no daemon.

    \b
    layerwright build                 build every image of werf.yaml at HEAD
    layerwright run app -- ls /app    run a command in an image
    layerwright export app --to oci-archive:app.tar
    """


def main() -> NoReturn:
    _open_closed_files()
    status = _run()
    _flush()
    if threading.active_count() == 1 and not os.environ.get("LAYERWRIGHT_DEBUG"):
        os._exit(status)  # taking a Python process apart takes 10 ms, and everything is closed and written
    sys.exit(status)


def _run() -> int:
    try:
        if COMPLETING in os.environ:
            from layerwright.cli.completion import complete

            return complete(root, os.environ[COMPLETING])
        status = root(prog_name="layerwright", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        return 1  # whoever read our output has gone: there is nobody to tell
    except (click.Abort, KeyboardInterrupt):
        return 130  # who stopped it knows
    except Cancelled as error:
        return error.exit_code
    except Exception as error:
        if os.environ.get("LAYERWRIGHT_DEBUG") and not hasattr(error, "exit_code"):
            raise
        from layerwright.cli.told import told

        text, status = told(error, sys.argv[1:], os.environ)
        _say(text)
        return status


def _open_closed_files() -> None:
    """A caller may have closed standard input, output or error; the next file opened would get its number, and our output. Or he may share
    a pipe with us that does not block, as programs written for Node.js do: that refuses what its reader is too slow for.
    """
    for fd, mode, name in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
        elif fd and not os.get_blocking(fd):
            from layerwright.cli.waiting import patient

            setattr(sys, name, patient(getattr(sys, name)))


def _flush() -> None:
    """What cannot be written was told, or is of no interest: Python itself would complain again, and end with a code of its own."""
    for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def _say(text: str) -> None:
    try:
        click.echo(text, err=True)
    except OSError:
        pass  # nobody can be told; the exit code says it
