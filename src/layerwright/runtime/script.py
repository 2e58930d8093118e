"""A stage's commands as one shell script that tells, from outside, which command was running when it ended.

All run in one shell with -e, so `cd`, `export` and functions last; each is given to `eval` as one quoted word, so that what one leaves open
(a quote, a here-document, a backslash or a comment at its end) never swallows the next. Before each, its number is written to a file in a directory
below /dev: that is a tmpfs of the container, so the image gets no trace of it. Differences from plain lines in a file: a compound command cannot go
over several list items, and `$?` is 0 where an item starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PLACE = "/dev/.layerwright"  # in the container
SCRIPT = "script"
MARK = "mark"
CWD = "cwd"
EXPORTS = "exports"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The command that was running: its place in the list from 0, and the line within it from 1, where the shell can tell (bash and busybox; not dash)."""

    command: int
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Where the shell was when it ended, and what it exported, as `export -p` says it; "" if it was killed, or the commands had a trap of their own."""

    cwd: str = ""
    exports: str = ""


NOTHING_LEFT = Left()


def script(commands: Sequence[str], shell: str, *, remembers: bool = False) -> bytes:
    """The script, with a trap that notes the line of a command that fails. It is read by `arguments(shell)`.

    `remembers`: when it ends it notes its directory in CWD and its exported variables in EXPORTS, beside the mark.
    """
    text = _line_trap(shell, remembers=remembers)
    for number, command in enumerate(commands):
        run = f"eval {_quoted(_closed(command, last=number == len(commands) - 1))}\n"
        # While it runs an eval, bash counts lines from the one on which the eval ended, busybox from the one on which it begins.
        counted_from = text.count("\n") + 1 + (run.count("\n") if is_bash(shell) else 1)
        # `>|` and the group: whatever the commands set (-C, -u, -x), the mark is written and nothing is printed.
        text += f"{{ echo {number} {counted_from} >|{PLACE}/{MARK} || :; }} 2>/dev/null\n{run}"
    return text.encode("utf-8", "surrogateescape")


def arguments(shell: str) -> tuple[str, ...]:
    """What starts the script in a container where it and the mark's directory are mounted at `PLACE`."""
    return (shell, "-e", f"{PLACE}/{SCRIPT}")


def is_bash(shell: str) -> bool:
    return shell.rsplit("/", 1)[-1] == "bash"


def failed(mark: bytes, commands: Sequence[str]) -> Failed | None:
    """Read the mark a script left; None if it never came to its first command."""
    try:
        first, *others = [[int(word) for word in line.split()] for line in mark.splitlines() if line]
        number, counted_from = first
        noted = others[-1][0] if others else None
    except (ValueError, IndexError):
        return None  # nothing there, or something else wrote to it
    if not 0 <= number < len(commands):
        return None
    line = None if noted is None else noted - counted_from + 1
    return Failed(command=number, line=line if line and 1 <= line <= commands[number].count("\n") + 1 else None)


def _line_trap(shell: str, *, remembers: bool) -> str:
    """Only bash has a trap for commands that fail. Others note the line on which the script ends: in dash that is empty, and then not known."""
    line = f"echo ${{LINENO-}} >>{PLACE}/{MARK} || :;"
    left = f" pwd >|{PLACE}/{CWD} || :; export -p >|{PLACE}/{EXPORTS} || :;" if remembers else ""
    if not is_bash(shell):
        return _trap(line + left, "EXIT")
    return _trap(line, "ERR") + (_trap(left.lstrip(), "EXIT") if left else "")


def _trap(commands: str, event: str) -> str:
    return f"trap '{{ {commands} }} 2>/dev/null' {event}\n"


def _closed(command: str, *, last: bool) -> str:
    """A command with what makes an eval of it behave as its lines in a file would.

    The empty line: bash applies a backslash at the very end of an eval to what follows in the file. The colon: `[ -f x ] && rm x` ends no script with
    -e, but would end it as the status of the eval; only at the end of the script does it count.
    """
    return command + ("\n\n" if command.endswith("\\") else "\n") + ("" if last else "{ :; } 2>/dev/null\n")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
