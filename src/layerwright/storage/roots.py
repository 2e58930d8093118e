"""Reading the roots of a store: records, image references, kept states, build_dir mounts. Light: of a record only what a clean-up asks."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from layerwright.host.locks import is_free
from layerwright.oci.digest import is_digest
from layerwright.oci.manifest import BadManifest, Manifest, decode_manifest
from layerwright.storage.contract import MissingBlob
from layerwright.storage.disk_use import disk_use
from layerwright.storage.images import StoredImage
from layerwright.storage.inventory import Root
from layerwright.storage.local import LocalStore
from layerwright.storage.records import SCHEMA
from layerwright.storage.seals import read_sealed

_RECORD = re.compile(r"[0-9a-f]{56}\.json\Z").match
Made = dict[str, str]


def record_names(store: LocalStore) -> Iterator[str]:
    """The path below home of every record, readable or not."""
    for kind in ("image", "stage"):
        top = store.paths.records(kind)
        for folder in _names(top):
            start = f"records/{kind}/{folder}/"
            yield from (start + name for name in _names(f"{top}/{folder}") if _RECORD(name))


def record_root(store: LocalStore, name: str, made: Made | None = None) -> Root | None:
    """A record as a root; None if it is gone or cannot be read. `made` takes in what made each of its layers."""
    path = os.path.join(store.paths.home, name)
    try:
        found = os.stat(path)
        raw: dict[str, Any] = json.loads(read_sealed(path) or b"")
        kind, digest = name.split("/")[1], name[-61:-5]
        if (raw["schema"], raw["kind"], raw["digest"]) != (SCHEMA, kind, digest):
            return None
        chain = raw["chain"]
        if made is not None:
            for one in chain:
                _note_made(made, str(one["diff_id"]), str(one["kind"]))
        base = raw["base"] or {}
        return Root(
            name=name,
            kind="image" if kind == "image" else "stage",
            size_bytes=found.st_blocks * 512,
            last_use_ns=found.st_mtime_ns,
            digest=digest,
            project=str(raw["project"]),
            image=str(raw["image"]),
            layers=tuple(str(one["diff_id"]) for one in chain),
            blobs=tuple(str(one["files"]) for one in raw["states"]) + ((str(base["manifest"]),) if base else ()),
            stages=tuple(str(one["digest"]) for one in raw["steps"]),
            base=_internal_base(raw["steps"]),
            manifest=str(base.get("manifest", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def _note_made(made: Made, diff_id: str, kind: str) -> None:
    """A layer that is anybody's base counts as such: its tar cannot be made again from a tree."""
    if kind == "base" or diff_id not in made:
        made[diff_id] = kind if kind in ("base", "commands") else "declared"


def _internal_base(steps: list[dict[str, Any]]) -> str:
    """The content digest of the image of the same file that an image stands on, as its `from` stage names it; "" if it stands on none."""
    base = json.loads(steps[0]["document"])["inputs"].get("base") if steps and steps[0]["stage"] == "from" else None
    return str(base.get("image", "")) if isinstance(base, dict) else ""


def reference_names(store: LocalStore) -> Iterator[str]:
    for name in _names(store.paths.images):
        if name.endswith(".json"):
            yield f"images/{name}"


def reference_root(store: LocalStore, name: str, made: Made | None = None) -> Root | None:
    """An image under its reference as a root; None if it is gone or cannot be read."""
    path = os.path.join(store.paths.home, name)
    image = store.images.read(path)
    if image is None:
        return None
    layers, blobs = parts_of(store, image)
    if made is not None:
        for diff_id in layers:
            _note_made(made, diff_id, "base")
    with suppress(OSError):
        found = os.stat(path)
        return Root(
            name=name,
            kind="reference",
            size_bytes=found.st_blocks * 512,
            last_use_ns=found.st_mtime_ns,
            image=image.reference,
            layers=layers,
            blobs=blobs,
            manifest=image.manifest,
            loaded=image.source == "load",
        )
    return None


def parts_of(store: LocalStore, image: StoredImage) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The diff ids and the blobs of an image, as far as its manifest and its config are here to tell."""
    blobs: list[str] = [image.manifest, image.named]
    try:
        manifest = decode_manifest(_unverified(store, image.manifest))
        if not isinstance(manifest, Manifest):
            return (), tuple(blobs)
        blobs += [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        config = json.loads(_unverified(store, manifest.config.digest))
        layers = tuple(one for one in config["rootfs"]["diff_ids"] if isinstance(one, str) and is_digest(one))
        return layers, tuple(blobs)
    except (MissingBlob, BadManifest, OSError, ValueError, KeyError, TypeError):
        return (), tuple(blobs)


def _unverified(store: LocalStore, digest: Any) -> bytes:
    """A survey changes nothing, not even what is damaged."""
    with store.open_blob(digest, verify=False) as file:
        return file.read()


def kept_state_roots(store: LocalStore) -> Iterator[Root]:
    """States of stages that are kept to be looked into. One that cannot be read is a root that needs nothing."""
    known = {state.id: state for state in store.kept_states.all()}
    for name in _names(store.paths.introspect):
        path = os.path.join(store.paths.introspect, name)
        with suppress(OSError):
            found = os.stat(path)
            state = known.get(name)
            yield Root(
                name=f"introspect/{name}",
                kind="kept state",
                size_bytes=disk_use(path),
                last_use_ns=state.kept_ms * 1_000_000 if state is not None else found.st_mtime_ns,
                project=state.project if state is not None else "",
                image=state.image if state is not None else name,
                layers=tuple(state.layers) if state is not None else (),
                held=not is_free(path),
            )


def build_dir_roots(store: LocalStore) -> Iterator[Root]:
    """The build_dir mounts, each with its project's folder as the project."""
    for project in _names(store.paths.mounts):
        for slug in _names(os.path.join(store.paths.mounts, project)):
            path = os.path.join(store.paths.mounts, project, slug)
            with suppress(OSError):
                found = os.stat(path)
                if stat.S_ISDIR(found.st_mode):
                    used_ns = max(found.st_mtime_ns, found.st_ctime_ns)
                    yield Root(name=f"mounts/{project}/{slug}", kind="build_dir", size_bytes=disk_use(path), last_use_ns=used_ns, project=project, image=slug)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
