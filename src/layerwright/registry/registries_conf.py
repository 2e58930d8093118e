"""registries.conf of Podman, Buildah and Skopeo. Source: containers-registries.conf(5) and containers-registries.conf.d(5) of containers/image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from layerwright.registry.config_files import Wrong, below, line_of, read_text, settings_of, user_config_dir

PullFrom = Literal["all", "digest-only", "tag-only"]
_PULL_FROM: tuple[PullFrom, ...] = ("all", "digest-only", "tag-only")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)\Z")
_MANUAL = "man containers-registries.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Another place that has the same images. `location`: host[:port][/path], which stands for the prefix."""

    location: str
    insecure: bool = False
    pull_from: PullFrom = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One [[registry]]: what holds for the names that `prefix` ("host[:port][/path]" or "*.domain[/path]") matches."""

    prefix: str
    location: str = ""  # what stands for the prefix when images are read; "" leaves the name as it is
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    source: str = ""  # the file


def matched_length(prefix: str, name: str) -> int:
    """How many characters of `name` ("host/repository") the prefix stands for; 0 if it does not match."""
    if prefix.startswith("*."):
        at = name.find(prefix[1:])
        length = at + len(prefix) - 1 if at > 0 and "/" not in name[:at] else 0
    else:
        length = len(prefix) if name.startswith(prefix) else 0
    return length if length == len(name) or name[length : length + 1] == "/" else 0


def rule_for(rules: Iterable[Rule], name: str) -> Rule | None:
    """The rule with the longest match."""
    found = [(length, rule) for rule in rules if (length := matched_length(rule.prefix, name))]
    return max(found, key=lambda one: (one[0], len(one[1].prefix)))[1] if found else None


def rewritten(name: str, prefix: str, location: str) -> str:
    """`name` with `location` in the place of what `prefix` matches."""
    return location + name[matched_length(prefix, name) :] if location else name


def config_files(env: Mapping[str, str], system_dir: str) -> tuple[str, ...]:
    """The files that are read, later ones replacing rules of earlier ones.

    CONTAINERS_REGISTRIES_CONF alone if it is set; else the user's files if there is a registries.conf among them; else the system's, then the user's drop-ins.
    """
    if only := env.get("CONTAINERS_REGISTRIES_CONF", ""):
        return (only,)
    system = os.path.join(system_dir, "containers")
    (own,) = below(user_config_dir(env), "containers") or ("",)
    of_user = _drop_ins(f"{own}/registries.conf.d") if own else ()
    if own and os.path.exists(f"{own}/registries.conf"):
        return (f"{own}/registries.conf", *of_user)
    return (f"{system}/registries.conf", *_drop_ins(f"{system}/registries.conf.d"), *of_user)


def _drop_ins(directory: str) -> tuple[str, ...]:
    try:
        return tuple(os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(".conf"))
    except OSError:
        return ()


def load_rules(paths: Sequence[str]) -> tuple[Rule, ...]:
    """The rules of all files. Raises UsageError, which names file and line."""
    rules: dict[str, Rule] = {}
    for path in paths:
        if (text := read_text(path)) is not None:
            rules |= {rule.prefix: rule for rule in parse_rules(text, path)}
    return tuple(rules.values())


def parse_rules(text: str, path: str) -> tuple[Rule, ...]:
    """The rules of one file, of version 2 or 1. Raises UsageError."""
    import tomllib

    with settings_of(path, manual=_MANUAL):
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = _AT_LINE.search(str(error))
            line = int(at[1]) if at else text.count("\n") + 1
            raise Wrong(f"it is not TOML: {_AT_LINE.sub('', str(error))}", line) from error
        listed = raw.get("registry", [])
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise Wrong(
                "registry is not a list of tables: write [[registry]]", line_of(text, "[registry]") if "[registry]" in text else line_of(text, "registry")
            )
        rules: dict[str, Rule] = {}
        for number, one in enumerate(listed, 1):
            line = line_of(text, "[[registry]]", count=number)
            rule = _rule(one, line, path)
            if rule.prefix in rules:
                raise Wrong(f"a second [[registry]] for {rule.prefix}", line)
            rules[rule.prefix] = rule
    return (*_version_1(raw, path), *rules.values())


def _version_1(raw: Mapping[str, Any], path: str) -> list[Rule]:
    """[registries.insecure] and [registries.block] of old files."""
    tables = raw.get("registries")
    if not isinstance(tables, dict):
        return []
    named = {kind: tables[kind].get("registries", []) for kind in ("insecure", "block") if isinstance(tables.get(kind), dict)}
    insecure, blocked = ({one for one in named.get(kind, []) if isinstance(one, str)} for kind in ("insecure", "block"))
    return [Rule(prefix=one, insecure=one in insecure, blocked=one in blocked, source=path) for one in sorted(insecure | blocked)]


def _rule(raw: Mapping[str, Any], line: int, path: str) -> Rule:
    location, prefix = _place(raw, "location", line), _place(raw, "prefix", line)
    if not prefix and not location:
        raise Wrong("a [[registry]] has neither prefix nor location", line)
    if not location and not prefix.startswith("*."):
        raise Wrong(f"the [[registry]] with prefix {prefix!r} has no location", line)
    only_digests = _switch(raw, "mirror-by-digest-only", line)
    mirrors = raw.get("mirror", [])
    if not isinstance(mirrors, list) or not all(isinstance(one, dict) for one in mirrors):
        raise Wrong("mirror is not a list of tables: write [[registry.mirror]]", line)
    return Rule(
        prefix=prefix or location,
        location=location,
        insecure=_switch(raw, "insecure", line),
        blocked=_switch(raw, "blocked", line),
        mirrors=tuple(_mirror(one, line, only_digests=only_digests) for one in mirrors),
        source=path,
    )


def _mirror(raw: Mapping[str, Any], line: int, *, only_digests: bool) -> Mirror:
    location = _place(raw, "location", line)
    if not location:
        raise Wrong("a [[registry.mirror]] of this [[registry]] has no location", line)
    said = raw.get("pull-from-mirror", "")
    if said and only_digests:
        raise Wrong("mirror-by-digest-only and pull-from-mirror exclude one another", line)
    pull_from = next((one for one in _PULL_FROM if one == (said or ("digest-only" if only_digests else "all"))), None)
    if pull_from is None:
        raise Wrong(f"pull-from-mirror is {said!r}: write {', '.join(_PULL_FROM)}", line)
    return Mirror(location=location, insecure=_switch(raw, "insecure", line), pull_from=pull_from)


def _place(raw: Mapping[str, Any], key: str, line: int) -> str:
    said = raw.get(key, "")
    if not isinstance(said, str):
        raise Wrong(f"{key} is not a text", line)
    if "://" in said or "@" in said:
        raise Wrong(f"{key} is not HOST[:PORT][/PATH], without https://", line)
    return said.rstrip("/")


def _switch(raw: Mapping[str, Any], key: str, line: int) -> bool:
    said = raw.get(key, False)
    if not isinstance(said, bool):
        raise Wrong(f"{key} is not true or false", line)
    return said
