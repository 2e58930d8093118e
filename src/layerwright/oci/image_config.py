"""The image configuration. Source: OCI image-spec 1.1 config.md; Docker adds Healthcheck, Shell and OnBuild, kept as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from layerwright.oci.digest import DiffId, is_digest
from layerwright.oci.manifest import BadManifest, decode_object
from layerwright.oci.platform import Platform

_LISTS = ("Env", "Cmd", "Entrypoint")
_SETS = ("Volumes", "ExposedPorts")
_OWN = (*_LISTS, *_SETS, "Labels", "User", "WorkingDir", "StopSignal", "Healthcheck")
_TOP = ("architecture", "os", "variant", "author", "created", "config", "rootfs", "history")


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
    config = raw.get("config") or {}
    rootfs = raw.get("rootfs") or {}
    if not isinstance(config, dict) or not isinstance(rootfs, dict):
        raise BadManifest("an image config needs objects as config and rootfs", where=where, mend="push the image again")
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list) or not all(is_digest(str(one)) for one in diff_ids):
        raise BadManifest("rootfs.diff_ids is not a list of sha256 digests", where=where, mend="push the image again")
    lists = {key: _strings(config.get(key), key, where) for key in _LISTS}
    return ImageConfig(
        platform=Platform(str(raw.get("os") or "linux"), str(raw.get("architecture") or "amd64"), str(raw.get("variant") or "")),
        author=str(raw.get("author") or ""),
        created=str(raw.get("created") or ""),
        env=lists["Env"] or (),
        cmd=lists["Cmd"],
        entrypoint=lists["Entrypoint"],
        user=str(config.get("User") or ""),
        working_dir=str(config.get("WorkingDir") or ""),
        volumes=tuple(sorted(config.get("Volumes") or {})),
        exposed_ports=tuple(sorted(config.get("ExposedPorts") or {})),
        labels={str(key): str(value) for key, value in (config.get("Labels") or {}).items()},
        stop_signal=str(config.get("StopSignal") or ""),
        healthcheck=config.get("Healthcheck"),
        config_extra={key: value for key, value in config.items() if key not in _OWN},
        extra={key: value for key, value in raw.items() if key not in _TOP},
        history=tuple(_history(one) for one in raw.get("history") or [] if isinstance(one, dict)),
        diff_ids=tuple(DiffId(one) for one in diff_ids),
    )


def _strings(raw: Any, key: str, where: str) -> tuple[str, ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(isinstance(one, str) for one in raw):
        raise BadManifest(f"config.{key} is not a list of strings", where=where, mend="push the image again")
    return tuple(raw)


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
