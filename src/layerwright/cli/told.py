"""How an error is told: as text, as one JSON object, or as an annotation of GitHub. Loaded when there is one."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Mapping, Sequence

import click

from layerwright.cli.shown import visible
from layerwright.errors import LayerwrightError

_PLACE = re.compile(r"(?P<file>[^:,\s][^:,]*):(?P<line>\d+)(?::(?P<column>\d+))?")


def format_asked(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """What --log-format says, or its variables; for errors that come before options are read."""
    own = argv[: argv.index("--")] if "--" in argv else argv
    for number, word in enumerate(own):
        if word == "--log-format" and number + 1 < len(own):
            return own[number + 1]
        if word.startswith("--log-format="):
            return word.partition("=")[2]
    return env.get("LAYERWRIGHT_LOG_FORMAT") or env.get("WERF_LOG_FORMAT") or "text"


def told(error: Exception, argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, int]:
    """What to print on standard error, and the exit code."""
    code = _exit_code(error)
    if format_asked(argv, env) == "json":
        from layerwright.cli.json_log import error_text

        return "\n".join(error_text(what, where=where, mend=mend, exit_code=code) for what, where, mend in _faults(error)), code
    if env.get("GITHUB_ACTIONS") == "true" and not sys.stderr.isatty():
        return "\n".join(_annotation(*fault) for fault in _faults(error)), code
    return _text(error), code


def _exit_code(error: Exception) -> int:
    if isinstance(error, LayerwrightError):
        return error.exit_code
    if isinstance(error, click.ClickException):
        return 2
    return 3 if isinstance(error, OSError) else 1


def _faults(error: Exception) -> list[tuple[str, str, str]]:
    """What, where and how to mend it; a configuration may have several faults."""
    if isinstance(error, LayerwrightError):
        faults = getattr(error, "faults", None)
        return [(one.what, str(one.position), one.mend) for one in faults] if faults else [(error.what, error.where, error.mend)]
    if isinstance(error, click.ClickException):
        what, _, mend = _usage_text(error).partition("\n")
        return [(what, "", mend.strip())]
    what, _, mend = _unforeseen(error).partition("\n")
    return [(what, "", mend.strip())]


def _annotation(what: str, where: str, mend: str) -> str:
    from layerwright.cli.folds import annotation

    found = _PLACE.match(where)
    position = (found["file"], int(found["line"]), int(found["column"] or 0)) if found else None
    place = f"{where}: " if where else ""
    return annotation("error", visible(f"{place}{what}" + (f"\n  {mend}" if mend else "")), position)


def _text(error: Exception) -> str:
    if isinstance(error, LayerwrightError):
        return shown_error(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        usage = f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n\n" if context is not None else ""
        return f"{usage}Error: {_usage_text(error)}"
    return f"Error: {_unforeseen(error)}"


def shown_error(error: LayerwrightError) -> str:
    """`Error: where: what`, and below it how to mend it. Text from outside cannot move the cursor or change colours."""
    return f"Error: {visible(str(error))}"


def _usage_text(error: click.ClickException) -> str:
    context: click.Context | None = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and context is not None:
        return f"No command was given.\nsee {context.command_path} --help"
    if isinstance(error, click.NoSuchOption):
        return _no_such_option(error, context)
    said = error.format_message()
    if isinstance(error, click.MissingParameter) and context is not None:
        from layerwright.cli.help import examples

        shown = examples(context.command)
        return f"{said}\n  for example: {shown[0]}" if shown else said
    return said


def _no_such_option(error: click.NoSuchOption, context: click.Context | None) -> str:
    """Options that are not shown are not suggested either."""
    from layerwright.config.faults import suggestion

    known = [name for param in context.command.params if not getattr(param, "hidden", False) for name in param.opts if name.startswith("--")] if context else []
    close = suggestion(error.option_name, known)
    said = f"No such option: {error.option_name}" + (f" Did you mean {close}?" if close else "")
    if context is not None and context.info_name == "run":
        said += "\n  options of the command to run go behind --: layerwright run IMAGE -- COMMAND --option"
    return said


def _unforeseen(error: Exception) -> str:
    """The machine refused something that nobody expected it to refuse, or this program is wrong."""
    if isinstance(error, OSError):
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else "" if error.errno != errno.ENOSPC else "standard output: "
        said = error.strerror or type(error).__name__
        return f"{place}{said}\n  give what is missing there: the directory, space, or the right to write; LAYERWRIGHT_HOME names the store, LAYERWRIGHT_DEBUG=1 shows more"
    return f"this is a bug in layerwright: {type(error).__name__}: {error}\n  set LAYERWRIGHT_DEBUG=1 to see where, and report it"
