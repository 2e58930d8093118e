"""Every error a user can cause says what, where, and how to mend it. A leaf: imports nothing of ours."""

from __future__ import annotations


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

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f"\n  {self.mend}" if self.mend else "")


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
