"""Carries an error from the worker to who called it: the same class with the same what, where and mend."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from layerwright.errors import BugError, LayerwrightError
from layerwright.runtime.wire import pickled


class WorkerTraceback(Exception):
    """The cause of an error that came from the worker: its text is the traceback there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error on its way. `kind` is None for what is not a LayerwrightError."""

    kind: type[LayerwrightError] | None
    fields: dict[str, object]
    text: str  # the traceback where it was raised


def to_fault(error: BaseException) -> Fault:
    """What can be sent of `error`: its class and fields, as far as they can be pickled."""
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, LayerwrightError):
        return Fault(kind=None, fields={}, text=text)
    # A class of the worker's own program is not known on the other side: its nearest base stands for it.
    kind = next(known for known in type(error).__mro__ if known.__module__ != "__main__" and _can_be_sent(known))
    assert issubclass(kind, LayerwrightError)
    fields = {name: value for name, value in vars(error).items() if not name.startswith("__") and _can_be_sent(value)}
    return Fault(kind=kind, fields=fields, text=text)


def from_fault(fault: Fault) -> LayerwrightError | BugError:
    """The error again. It is made without its class's __init__, whose arguments are not known here."""
    error: LayerwrightError | BugError
    if fault.kind is None:
        error = BugError(f"the worker failed:\n{fault.text}")
    else:
        error = fault.kind.__new__(fault.kind, fault.fields.get("what", ""))
        vars(error).update(fault.fields)
    error.__cause__ = WorkerTraceback(fault.text)
    return error


def _can_be_sent(value: object) -> bool:
    try:
        pickled(value)
    except Exception:  # pickle raises whatever the value's own methods raise
        return False
    return True
