"""The command line: finds the command, and turns errors into messages and exit codes. Only this module exits.

0 done, 1 build failed, 2 usage or configuration, 3 the machine lacks something, 130 stopped by a signal; `run` ends as its command did.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import click

from layerwright import __version__
from layerwright.errors import LayerwrightError

COMMANDS = {
    "build": "layerwright.cli.build",
    "run": "layerwright.cli.run",
    "export": "layerwright.cli.export",
    "image": "layerwright.cli.image",
    "stage": "layerwright.cli.stage",
    "config": "layerwright.cli.config",
    "version": "layerwright.cli.version",
}
NOT_YET = (
    "cleanup",
    "purge",
    "host",
    "managed-images",
    "cr",
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


class LazyGroup(click.Group):
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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
    sys.exit(status)


def _run() -> int:
    try:
        status = root(prog_name="layerwright", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        return 1  # whoever read our output has gone: there is nobody to tell
    except (click.Abort, KeyboardInterrupt):
        _say("stopped")
        return 130
    except click.ClickException as error:
        _say(_usage_error(error))
        return 2
    except LayerwrightError as error:
        _say(shown_error(error))
        return error.exit_code
    except Exception as error:
        if os.environ.get("LAYERWRIGHT_DEBUG"):
            raise
        _say(_unforeseen(error))
        return 3 if isinstance(error, OSError) else 1


def _open_closed_files() -> None:
    """A caller may have closed standard input, output or error; the next file opened would get its number, and our output."""
    for fd, mode, name in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


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


def _usage_error(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    usage = f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n\n" if context is not None else ""
    is_of_the_command = isinstance(error, click.NoSuchOption) and context is not None and context.info_name == "run"
    hint = "\n  options of the command to run go behind --: layerwright run IMAGE -- COMMAND --option" if is_of_the_command else ""
    return f"{usage}Error: {error.format_message()}{hint}"


def _unforeseen(error: Exception) -> str:
    """The machine refused something that nobody expected it to refuse, or this program is wrong."""
    if isinstance(error, OSError):
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else "" if error.errno != errno.ENOSPC else "standard output: "
        said = error.strerror or type(error).__name__
        return f"Error: {place}{said}\n  give what is missing there: the directory, space, or the right to write; LAYERWRIGHT_HOME names the store, LAYERWRIGHT_DEBUG=1 shows more"
    return f"Error: this is a bug in layerwright: {type(error).__name__}: {error}\n  set LAYERWRIGHT_DEBUG=1 to see where, and report it"


def shown_error(error: LayerwrightError) -> str:
    """`Error: where: what`, and below it how to mend it. Text from outside cannot move the cursor or change colours."""
    text = str(error)
    visible = "".join(one if one in "\n\t" or one.isprintable() else repr(one)[1:-1] for one in text)
    return f"Error: {visible}"
