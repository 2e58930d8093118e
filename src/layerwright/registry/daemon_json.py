"""daemon.json of Docker: mirrors of Docker Hub, and registries without TLS or with a certificate of their own.

Source: dockerd(8), "registry-mirrors" and "insecure-registries".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerwright.registry.config_files import Wrong, below, line_of, read_text, settings_of, user_config_dir, without_scheme

_MANUAL = "man dockerd"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """`mirrors` of docker.io: "http://host", "https://host:port/path" or without a scheme; `insecure`: "host", "host:port" or a network "10.0.0.0/8"."""

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()


def config_files(env: Mapping[str, str], system_dir: str) -> tuple[str, ...]:
    """The user's (of a daemon without root), then the system's."""
    return (*below(user_config_dir(env), "docker", "daemon.json"), os.path.join(system_dir, "docker", "daemon.json"))


def load_settings(paths: tuple[str, ...]) -> DaemonSettings:
    """What all files say together. Raises UsageError, which names file and line; a file that this user may not read is the daemon's own business."""
    found = [parse_settings(text, path) for path in paths if os.access(path, os.R_OK) and (text := read_text(path)) is not None]
    return DaemonSettings(
        mirrors=tuple(dict.fromkeys(mirror for one in found for mirror in one.mirrors)),
        insecure=tuple(dict.fromkeys(host for one in found for host in one.insecure)),
    )


def parse_settings(text: str, path: str) -> DaemonSettings:
    with settings_of(path, manual=_MANUAL):
        try:
            raw = json.loads(text) if text.strip() else {}
        except json.JSONDecodeError as error:
            raise Wrong(f"it is not JSON: {error.msg}", error.lineno) from error
        except RecursionError as error:
            raise Wrong("it is not JSON that anybody wrote: too many levels", 1) from error
        if not isinstance(raw, dict):
            raise Wrong("it is not a JSON object", 1)
        mirrors = _texts(raw, "registry-mirrors", text)
        for one in mirrors:
            scheme, rest = without_scheme(one)
            if scheme not in ("", "http", "https") or not rest or "@" in rest or "?" in rest:
                raise Wrong("one of registry-mirrors is not an address: write https://HOST[:PORT]", line_of(text, '"registry-mirrors"'))
        return DaemonSettings(mirrors=mirrors, insecure=_texts(raw, "insecure-registries", text))


def _texts(raw: Mapping[str, Any], key: str, text: str) -> tuple[str, ...]:
    said = raw.get(key) or []
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise Wrong(f"{key} is not a list of texts", line_of(text, f'"{key}"'))
    return tuple(said)
