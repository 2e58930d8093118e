"""dockerInstructions: the `docker` section applied to an image config. Source: Dockerfile reference, CMD, ENTRYPOINT, HEALTHCHECK; docs/images.md."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layerwright.config.model import Docker
from layerwright.errors import UsageError
from layerwright.oci.image_config import ImageConfig
from layerwright.stages.key import Inputs, Json

Command = str | tuple[str, ...] | None
_VARIABLE = re.compile(r"\\(?P<escaped>.)|\$(?:(?P<name>\w+)|\{(?P<braced>\w+)(?::(?P<how>[-+])(?P<other>[^}]*))?\})", re.DOTALL)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def instructions_inputs(docker: Docker) -> Inputs:
    """Only what is written; lists in the order written, mappings by name."""
    inputs: dict[str, Json] = {}
    for name, value in (
        ("VOLUME", list(docker.volume)),
        ("EXPOSE", list(docker.expose)),
        ("ENV", dict(docker.env)),
        ("LABEL", dict(docker.label)),
        ("WORKDIR", docker.workdir),
        ("USER", docker.user),
        ("HEALTHCHECK", docker.healthcheck),
        ("exactValues", docker.exact_values),
    ):
        if value:
            inputs[name] = value
    for name, command in (("CMD", docker.cmd), ("ENTRYPOINT", docker.entrypoint)):
        if command is not None:
            inputs[name] = command if isinstance(command, str) else list(command)
    return inputs


def apply_instructions(config: ImageConfig, docker: Docker) -> ImageConfig:
    """CMD alone: Entrypoint [""]; ENTRYPOINT alone: Cmd []. Relative WORKDIR goes below the present one. Raises UsageError for a bad HEALTHCHECK.

    Variables in all but CMD, ENTRYPOINT and HEALTHCHECK are filled in, unless `exactValues`: those of the image, and of ENV names that sort before.
    """
    where = str(docker.position)
    cmd, entrypoint = _commands(config, docker)
    env = _env(config.env, docker)
    values = {item.partition("=")[0]: item.partition("=")[2] for item in env}

    def word(text: str) -> str:
        return text if docker.exact_values else expand(text, values)

    return replace(
        config,
        cmd=cmd,
        entrypoint=entrypoint,
        env=env,
        labels=dict(config.labels) | {name: word(value) for name, value in docker.label.items()},
        volumes=tuple(sorted({*config.volumes, *(word(one) for one in docker.volume)})),
        exposed_ports=tuple(sorted({*config.exposed_ports, *(port_of(word(one), where) for one in docker.expose)})),
        user=word(docker.user) or config.user,
        working_dir=_working_dir(config.working_dir, word(docker.workdir)),
        healthcheck=parse_healthcheck(docker.healthcheck, where) if docker.healthcheck else config.healthcheck,
    )


def _env(present: tuple[str, ...], docker: Docker) -> tuple[str, ...]:
    """One name after the other, as if each were an instruction of its own."""
    env = present
    for name in sorted(docker.env):
        values = {item.partition("=")[0]: item.partition("=")[2] for item in env}
        env = with_env(env, {name: docker.env[name] if docker.exact_values else expand(docker.env[name], values)})
    return env


def expand(text: str, env: Mapping[str, str]) -> str:
    """`$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}` from `env`, absent names as nothing; `\\$` is a dollar; a value in quotes loses them.

    Source: Dockerfile reference, "Environment replacement".
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        quote, text = text[0], text[1:-1]
        if quote == "'":
            return text

    def fill(found: re.Match[str]) -> str:
        if found["escaped"] is not None:
            return found["escaped"]
        value = env.get(found["name"] or found["braced"], "")
        if found["how"] == "-":
            return value or expand(found["other"], env)
        return (expand(found["other"], env) if value else "") if found["how"] == "+" else value

    return _VARIABLE.sub(fill, text)


def _commands(config: ImageConfig, docker: Docker) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    cmd, entrypoint = exec_form(docker.cmd), exec_form(docker.entrypoint)
    if entrypoint is None and cmd is None:
        return config.cmd, config.entrypoint
    if entrypoint is None:
        return cmd, ("",)
    return (() if cmd is None else cmd), entrypoint


def exec_form(command: Command) -> tuple[str, ...] | None:
    """A JSON array written as text is that list; other text runs under `/bin/sh -c`."""
    if command is None or isinstance(command, tuple):
        return command
    if command.strip().startswith("["):
        try:
            listed = json.loads(command)
        except ValueError:
            listed = None
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            return tuple(listed)
    return ("/bin/sh", "-c", command)


def with_env(env: tuple[str, ...], changes: Mapping[str, str]) -> tuple[str, ...]:
    """`env` with `changes`: a known name keeps its place, new names follow in the order of `changes`."""
    rest = dict(changes)
    kept = []
    for item in env:
        name = item.partition("=")[0]
        kept.append(f"{name}={rest.pop(name)}" if name in rest else item)
    return (*kept, *(f"{name}={value}" for name, value in rest.items()))


def port_of(text: str, where: str) -> str:
    """`80` is 80/tcp."""
    port, slash, protocol = text.partition("/")
    first, _, last = port.partition("-")
    if not first.isdigit() or not (last or "0").isdigit() or (slash and protocol not in ("tcp", "udp", "sctp")):
        raise UsageError(f"EXPOSE {text!r} is not a port", where=where, mend="write PORT, PORT/tcp, PORT/udp or FIRST-LAST")
    return text if slash else f"{text}/tcp"


def _working_dir(present: str, wanted: str) -> str:
    if not wanted or wanted.startswith("/"):
        return wanted or present
    return f"{present.rstrip('/')}/{wanted}"


def parse_healthcheck(text: str, where: str) -> dict[str, Any]:
    """`NONE`, or `[--interval=D] [--timeout=D] [--start-period=D] [--retries=N] CMD …`; durations become nanoseconds."""
    rest, options = text.strip(), {}
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        name, _, value = option[2:].partition("=")
        options[name] = value
        rest = rest.lstrip()
    word, _, command = rest.partition(" ")
    if word.upper() == "NONE":
        return {"Test": ["NONE"]}
    unknown = set(options) - {"interval", "timeout", "start-period", "retries"}
    if word.upper() != "CMD" or not command.strip() or unknown:
        raise UsageError(
            f"HEALTHCHECK {text!r} cannot be read",
            where=where,
            mend="write NONE, or [--interval=30s] [--timeout=5s] [--start-period=1m] [--retries=3] CMD COMMAND",
        )
    command = command.strip()
    listed = exec_form(command) if command.startswith("[") else None
    out: dict[str, Any] = {"Test": ["CMD", *listed] if listed and listed[:2] != ("/bin/sh", "-c") else ["CMD-SHELL", command]}
    for name, key in (("interval", "Interval"), ("timeout", "Timeout"), ("start-period", "StartPeriod")):
        if name in options:
            out[key] = duration_ns(options[name], where)
    if "retries" in options:
        if not options["retries"].isdigit():
            raise UsageError(f"HEALTHCHECK --retries={options['retries']} is not a number", where=where, mend="write --retries=3")
        out["Retries"] = int(options["retries"])
    return out


def duration_ns(text: str, where: str) -> int:
    """A Go duration such as `1m30s` in nanoseconds."""
    total, number = 0.0, ""
    rest = text
    while rest:
        size = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:size], rest[size:]
        unit = next((one for one in ("ns", "us", "ms", "s", "m", "h") if rest.startswith(one)), "")
        if not number or not unit or number.count(".") > 1 or number == ".":
            raise UsageError(f"{text!r} is not a duration", where=where, mend="write numbers with units: 30s, 1m30s, 500ms")
        total += float(number) * _SECONDS[unit]
        rest = rest[len(unit) :]
    return round(total * 1e9)


def shown(command: tuple[str, ...]) -> str:
    return " ".join(shlex.quote(one) for one in command)
