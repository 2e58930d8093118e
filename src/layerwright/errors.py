"""Every error a user can cause says what, where, and how to mend it. A leaf: imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable


class LayerwrightError(Exception):
    """Something the user can mend.

    `what`: one line without a full stop; `where`: "werf.yaml:14:9", a path, a reference or "";
    `mend`: what to do about it. `exit_code` is what the command line ends with.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.mend = mend

    def __reduce__(self) -> tuple[Callable[..., LayerwrightError], tuple[type[LayerwrightError], tuple[object, ...]], dict[str, object]]:
        """Errors travel between processes whatever their own constructor asks for."""
        return _again, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f"\n  {self.mend}" if self.mend else "")


def _again(kind: type[LayerwrightError], args: tuple[object, ...]) -> LayerwrightError:
    error = kind.__new__(kind)
    error.args = args
    return error


class UsageError(LayerwrightError):
    """The command line or the configuration is wrong, or asks for what is not built yet."""

    exit_code = 2


class MachineLacks(LayerwrightError):
    """The machine lacks something: a program, a kernel feature, disk space. `mend` holds the command that gives it."""

    exit_code = 3


class Cancelled(LayerwrightError):
    """The caller asked to stop (Ctrl-C, SIGTERM, `Cancel.set()`)."""

    exit_code = 130


class BugError(Exception):
    """A promise of our own is broken. Never the user's fault."""
