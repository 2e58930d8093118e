"""imageSpec: the last stage, a changed image config. Source: werf.yaml reference, "imageSpec"; docs/configuration.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from layerwright.config.model import Healthcheck, ImageSpec
from layerwright.errors import UsageError
from layerwright.oci.image_config import ImageConfig
from layerwright.stages.instructions import expand, port_of, with_env
from layerwright.stages.key import Inputs, Json

ESSENTIAL_LABELS = ("werf", "werf-stage-content-digest", "werf.io/parent-stage-id", "werf-project-repo-commit")
COMMIT_ENV = ("WERF_COMMIT_HASH", "WERF_COMMIT_TIME_HUMAN", "WERF_COMMIT_TIME_UNIX")


def spec_inputs(spec: ImageSpec, *, image: str, project: str) -> Inputs:
    """Labels enter with their names filled in, so that two images which differ by name have labels of their own."""
    inputs: dict[str, Json] = {}
    for name, value in (
        ("author", spec.author),
        ("labels", _labels(spec, image=image, project=project)),
        ("removeLabels", list(spec.remove_labels)),
        ("env", dict(spec.env)),
        ("removeEnv", list(spec.remove_env)),
        ("volumes", list(spec.volumes)),
        ("removeVolumes", list(spec.remove_volumes)),
        ("user", spec.user),
        ("workingDir", spec.working_dir),
        ("stopSignal", spec.stop_signal),
        ("cmd", list(spec.cmd)),
        ("entrypoint", list(spec.entrypoint)),
        ("healthcheck", _healthcheck(spec.healthcheck) if spec.healthcheck else None),
        ("clearHistory", spec.clear_history),
        ("clearCmd", spec.clear_cmd),
        ("clearEntrypoint", spec.clear_entrypoint),
        ("clearUser", spec.clear_user),
        ("clearWorkingDir", spec.clear_working_dir),
    ):
        if value:
            inputs[name] = value
    if spec.expose is not None:
        inputs["expose"] = list(spec.expose)
    return inputs


def _labels(spec: ImageSpec, *, image: str, project: str) -> dict[str, str]:
    def fill(text: str) -> str:
        return text.replace("%image%", image).replace("%project%", project)

    return {fill(name): fill(value) for name, value in spec.labels.items()}


def apply_image_spec(config: ImageConfig, spec: ImageSpec, *, image: str, project: str) -> ImageConfig:
    """Removals first, then what is set. Raises UsageError for a removal that is no regular expression."""
    where = str(spec.position)
    drops_label, drops_env = _matcher(spec.remove_labels, where), _matcher(spec.remove_env, where)
    kept_labels = {name: value for name, value in config.labels.items() if name in ESSENTIAL_LABELS or not drops_label(name)}
    names = {item.partition("=")[0]: item.partition("=")[2] for item in config.env}
    kept_env = tuple(item for item in config.env if not drops_env(item.partition("=")[0]) and item.partition("=")[0] not in COMMIT_ENV)
    cmd, entrypoint = _commands(config, spec)
    return replace(
        config,
        author=spec.author or config.author,
        labels=kept_labels | _labels(spec, image=image, project=project),
        env=with_env(kept_env, {name: expand(value, names) for name, value in spec.env.items()}),
        volumes=tuple(sorted({*(one for one in config.volumes if one not in spec.remove_volumes), *spec.volumes})),
        exposed_ports=config.exposed_ports if spec.expose is None else tuple(sorted({port_of(one, where) for one in spec.expose})),
        user=spec.user or ("" if spec.clear_user else config.user),
        working_dir=spec.working_dir or ("" if spec.clear_working_dir else config.working_dir),
        stop_signal=spec.stop_signal or config.stop_signal,
        healthcheck=_healthcheck(spec.healthcheck) if spec.healthcheck else config.healthcheck,
        cmd=cmd,
        entrypoint=entrypoint,
        history=() if spec.clear_history else config.history,
    )


def removed_essential(spec: ImageSpec) -> tuple[str, ...]:
    """Labels that a removal names but that always stay."""
    drops = _matcher(spec.remove_labels, str(spec.position))
    return () if spec.keep_essential_werf_labels else tuple(name for name in ESSENTIAL_LABELS if drops(name))


def _commands(config: ImageConfig, spec: ImageSpec) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    entrypoint = spec.entrypoint or (("",) if spec.clear_entrypoint else config.entrypoint)
    if spec.cmd:
        return spec.cmd, entrypoint
    if spec.clear_cmd or spec.entrypoint:
        return (), entrypoint
    return config.cmd, entrypoint


def _matcher(rules: tuple[str, ...], where: str) -> Callable[[str], bool]:
    exact = {rule for rule in rules if not _is_pattern(rule)}
    try:
        patterns = [re.compile(f"(?:{rule[1:-1]})\\Z") for rule in rules if _is_pattern(rule)]
    except re.error as error:
        raise UsageError(f"a removal is not a regular expression: {error}", where=where, mend="write the exact name, or /EXPRESSION/") from error
    return lambda name: name in exact or any(pattern.match(name) for pattern in patterns)


def _is_pattern(rule: str) -> bool:
    return len(rule) > 2 and rule.startswith("/") and rule.endswith("/")


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    out: dict[str, Any] = {"Test": list(check.test)} if check.test else {}
    for key, seconds in (("Interval", check.interval_s), ("Timeout", check.timeout_s), ("StartPeriod", check.start_period_s)):
        if seconds is not None:
            out[key] = seconds * 1_000_000_000
    if check.retries is not None:
        out["Retries"] = check.retries
    return out
