"""How patient to be with registries, as the environment says: see docs/registry-faults.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from layerwright.errors import UsageError
from layerwright.registry.options import RegistryOptions

TIMEOUT = "LAYERWRIGHT_REGISTRY_TIMEOUT"
RETRIES = "LAYERWRIGHT_REGISTRY_RETRIES"
LONGEST_WAIT = "LAYERWRIGHT_REGISTRY_LONGEST_WAIT"
LOWEST_SPEED = "LAYERWRIGHT_REGISTRY_LOWEST_SPEED"
_DAY_S = 86_400.0
_COMMITS = 10  # times as long: a registry that moves an uploaded blob to its storage says nothing meanwhile


def tuned(options: RegistryOptions, env: Mapping[str, str]) -> RegistryOptions:
    """`options` with what `env` says about times and tries. Raises UsageError for what is no number, or one of no use."""
    changes: dict[str, float | int] = {}
    if env.get(TIMEOUT):
        timeout_s = _number(env, TIMEOUT, "seconds", least=0.1, most=_DAY_S)
        changes |= {
            "read_timeout_s": timeout_s,
            "connect_timeout_s": min(options.connect_timeout_s, timeout_s),
            "commit_timeout_s": timeout_s * _COMMITS,
        }
    if env.get(RETRIES):
        changes["attempts"] = 1 + round(_number(env, RETRIES, "a count", least=0, most=1000, whole=True))
    if env.get(LONGEST_WAIT):
        changes["longest_wait_s"] = _number(env, LONGEST_WAIT, "seconds", least=0, most=_DAY_S)
    if env.get(LOWEST_SPEED):
        changes["lowest_speed"] = round(_number(env, LOWEST_SPEED, "bytes a second", least=0, most=1 << 40, whole=True))
    return replace(options, **changes) if changes else options  # type: ignore[arg-type]


def _number(env: Mapping[str, str], name: str, unit: str, *, least: float, most: float, whole: bool = False) -> float:
    text = env[name].strip()
    try:
        found = float(int(text)) if whole else float(text)
    except (ValueError, OverflowError):
        found = math.nan
    if not least <= found <= most:
        raise UsageError(
            f"{text!r} is not {unit} from {least:g} to {most:g}", where=name, mend=f"write a {'whole ' if whole else ''}number, or leave the variable out"
        )
    return found
