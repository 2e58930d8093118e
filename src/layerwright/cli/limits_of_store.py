"""The options that say how much room the store may take, for `host cleanup` and for what builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from layerwright.cli.options import in_group, option, switch

if TYPE_CHECKING:
    from layerwright.cleanup.limit import Limit

F = TypeVar("F", bound=Callable[..., Any])
_LOCAL, _BACKEND = "--allowed-local-cache-volume-usage", "--allowed-backend-storage-volume-usage"


def limit_options(command: F) -> F:
    """werf has two places and so two limits; here is one store, and whichever of the two is given means it."""
    for add in reversed(
        (
            option(_LOCAL, "allowed", default=None, help="Percent of the volume (70), or a size of the store (10GB).  [default: 70]", metavar="USAGE"),
            option(f"{_LOCAL}-margin", "margin", default=None, help="Free so much more, in the same unit.  [default: 5]", metavar="USAGE"),
            option(_BACKEND, "allowed_backend", default=None, hidden=True),
            option(f"{_BACKEND}-margin", "margin_backend", default=None, hidden=True),
        )
    ):
        command = in_group("Clean-up", add(command))
    return command


def after_build_options(command: F) -> F:
    """For a command that builds: its store is cleaned up afterwards if it has grown over the limit."""
    command = limit_options(command)
    return in_group("Clean-up", switch("--disable-auto-host-cleanup", help="Do not clean up the store when it is over the limit.")(command))


def limit_of(options: dict[str, Any]) -> Limit:
    """Raises UsageError."""
    from layerwright.cleanup.limit import parse_limit

    flag = _LOCAL if options["allowed"] is not None or options["allowed_backend"] is None else _BACKEND
    allowed = options["allowed"] if options["allowed"] is not None else options["allowed_backend"]
    margin = options["margin"] if options["margin"] is not None else options["margin_backend"]
    return parse_limit(allowed or "", margin, flag=flag)
