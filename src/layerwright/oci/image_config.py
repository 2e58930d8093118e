"""The image configuration. Source: OCI image-spec 1.1 config.md; Docker adds Healthcheck, Shell and OnBuild, kept as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from layerwright.limits import LAYERS
from layerwright.oci.digest import DiffId, is_digest
from layerwright.oci.manifest import BadManifest, decode_object, platform_of
from layerwright.oci.platform import Platform

_OWN = ("Env", "Cmd", "Entrypoint", "Volumes", "ExposedPorts", "Labels", "User", "WorkingDir", "StopSignal", "Healthcheck")
_TOP = ("architecture", "os", "variant", "author", "created", "config", "rootfs", "history")
_AGAIN = "push or save the image again"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What made one layer, or changed only the config (`empty_layer`)."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {key: getattr(self, key) for key in ("created", "created_by", "author", "comment") if getattr(self, key)}
        if self.empty_layer:
            out["empty_layer"] = True
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What a container of the image runs and with what; frozen, changed with `dataclasses.replace`.

    `cmd` and `entrypoint`: None is absent; () and ("",) mean the same to whoever runs the image (`meaning`).
    `env` holds "NAME=value" in order; `healthcheck` and the two `extra` mappings are JSON as read.
    """

    platform: Platform
    author: str = ""
    created: str = ""  # RFC 3339, UTC
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    healthcheck: Mapping[str, Any] | None = None
    config_extra: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[History, ...] = ()
    diff_ids: tuple[DiffId, ...] = ()

    def encode(self) -> bytes:
        """JSON, the same value giving the same bytes."""
        config: dict[str, Any] = dict(self.config_extra)
        for key, values in (("Env", self.env or None), ("Cmd", self.cmd), ("Entrypoint", self.entrypoint)):
            if values is not None:
                config[key] = list(values)
        for key, names in (("Volumes", self.volumes), ("ExposedPorts", self.exposed_ports)):
            if names:
                config[key] = {name: {} for name in names}
        for key, text in (("User", self.user), ("WorkingDir", self.working_dir), ("StopSignal", self.stop_signal)):
            if text:
                config[key] = text
        if self.labels:
            config["Labels"] = dict(self.labels)
        if self.healthcheck is not None:
            config["Healthcheck"] = dict(self.healthcheck)
        out: dict[str, Any] = dict(self.extra) | {
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "history": [one.as_json() for one in self.history],
        }
        for key, text in (("variant", self.platform.variant), ("author", self.author), ("created", self.created)):
            if text:
                out[key] = text
        return json.dumps(out, sort_keys=True, separators=(",", ":")).encode()


def decode_image_config(content: bytes, *, where: str = "") -> ImageConfig:
    """Read an image config. Raises BadManifest."""
    raw = decode_object(content, what="an image config", where=where)
    fields = _Fields(raw, where)
    config = fields.object("config")
    own = _Fields(config, where, "config.")
    diff_ids = _Fields(fields.object("rootfs"), where, "rootfs.").list("diff_ids")
    if not all(isinstance(one, str) and is_digest(one) for one in diff_ids):
        raise BadManifest("rootfs.diff_ids is not a list of sha256 digests", where=where, mend=_AGAIN)
    if len(diff_ids) > LAYERS:
        raise BadManifest(f"{len(diff_ids):,} layers: {LAYERS:,} is the most that is read", where=where, mend="flatten the image into fewer layers")
    return ImageConfig(
        platform=platform_of(fields.text("os") or "linux", fields.text("architecture") or "amd64", fields.text("variant"), where=where),
        author=fields.text("author"),
        created=fields.text("created"),
        env=own.strings("Env") or (),
        cmd=own.strings("Cmd"),
        entrypoint=own.strings("Entrypoint"),
        user=own.text("User"),
        working_dir=own.text("WorkingDir"),
        volumes=own.names("Volumes"),
        exposed_ports=own.names("ExposedPorts"),
        labels=own.labels(),
        stop_signal=own.text("StopSignal"),
        healthcheck=own.object("Healthcheck") if config.get("Healthcheck") is not None else None,
        config_extra={key: value for key, value in config.items() if key not in _OWN},
        extra={key: value for key, value in raw.items() if key not in _TOP},
        history=tuple(_history(one) for one in fields.list("history") if isinstance(one, dict)),
        diff_ids=tuple(DiffId(one) for one in diff_ids),
    )


class _Fields:
    """An object of the config, each field of the type it has to be of: what is missing or null is empty, anything else is refused."""

    def __init__(self, raw: Mapping[str, Any], where: str, prefix: str = "") -> None:
        self._raw, self._where, self._prefix = raw, where, prefix

    def _bad(self, key: str, wanted: str) -> BadManifest:
        return BadManifest(f"{self._prefix}{key} is not {wanted}", where=self._where, mend=_AGAIN)

    def text(self, key: str) -> str:
        value = self._raw.get(key)
        if value is None:
            return ""
        if not isinstance(value, str) or "\0" in value:
            raise self._bad(key, "a string")
        return value

    def object(self, key: str) -> dict[str, Any]:
        value = self._raw.get(key)
        if not isinstance(value, dict | None):
            raise self._bad(key, "an object")
        return value or {}

    def list(self, key: str) -> list[Any]:
        value = self._raw.get(key)
        if not isinstance(value, list | None):
            raise self._bad(key, "a list")
        return value or []

    def strings(self, key: str) -> tuple[str, ...] | None:
        if self._raw.get(key) is None:
            return None
        value = self.list(key)
        if not all(isinstance(one, str) and "\0" not in one for one in value):
            raise self._bad(key, "a list of strings")
        return tuple(value)

    def names(self, key: str) -> tuple[str, ...]:
        """The names of an object whose values say nothing."""
        return tuple(sorted(self.object(key)))

    def labels(self) -> dict[str, str]:
        return {key: value if isinstance(value, str) else str(value) for key, value in self.object("Labels").items()}


def _history(raw: dict[str, Any]) -> History:
    texts = {key: str(raw.get(key) or "") for key in ("created", "created_by", "author", "comment")}
    return History(**texts, empty_layer=raw.get("empty_layer") is True)


def meaning(command: tuple[str, ...] | None) -> tuple[str, ...]:
    """What `cmd` or `entrypoint` says to whoever runs the image: () for absent, [] and [""] alike."""
    return () if command is None or command == ("",) else command


def with_reset_commands(config: ImageConfig) -> ImageConfig:
    """The rule for the first stage on an external base or scratch (the seeds; docs/images.md, "CMD and ENTRYPOINT").

    Both absent: Cmd [], Entrypoint [""]; only Cmd: Entrypoint [""]; else unchanged.
    """
    cmd, entrypoint = meaning(config.cmd), meaning(config.entrypoint)
    if entrypoint:
        return config
    return replace(config, cmd=cmd, entrypoint=("",))
