"""What people write behind `--to`, as values. Source: containers-transports(5), whose words are used where it has them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from layerwright.errors import UsageError
from layerwright.oci.reference import has_version, parse_reference, without_login

KINDS = "oci-archive:FILE[:TAG], oci:DIR[:TAG], docker-archive:FILE[:TAG], docker://REPO:TAG, docker-daemon:NAME[:TAG] or containers-storage:NAME[:TAG]"
Kind = Literal["oci-archive", "oci", "docker-archive", "docker", "docker-daemon", "containers-storage"]
STREAM = "-"  # in place of a file: the stream that the caller hands over, standard output of the command line
_WORDS: dict[str, Kind] = {
    "oci-archive:": "oci-archive",
    "oci:": "oci",
    "docker-archive:": "docker-archive",
    "docker://": "docker",
    "docker-daemon:": "docker-daemon",
    "containers-storage:": "containers-storage",
}
_REF_NAME = re.compile(r"[A-Za-z0-9]+(?:[-._:@/+]+[A-Za-z0-9]+)*\Z")  # OCI image-spec 1.1, annotations.md, org.opencontainers.image.ref.name
_STORE = re.compile(r"\[(?:(?P<driver>[a-z0-9]+)@)?(?P<root>/[^+:\]]*)?(?:\+(?P<run>/[^:\]]*))?(?::(?P<options>[^\]]*))?\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainersStore:
    """Which store of containers/storage: empty is the tool's own choice. `text` is as it was written, with its brackets."""

    text: str = ""
    driver: str = ""
    root: str = ""
    run_root: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One destination. `path` is a file's or a directory's, `-` a stream; `name` what the image is called there, "" for nothing."""

    text: str
    kind: Kind
    path: str = ""
    name: str = ""
    store: ContainersStore = ContainersStore()

    @property
    def is_stream(self) -> bool:
        return self.path == STREAM


def parse_place(text: str) -> Place:
    """Raises UsageError."""
    word = next((one for one in _WORDS if text.startswith(one)), "")
    rest = text[len(word) :]
    if not word or not rest:
        raise UsageError(f"{without_login(text)!r} is not a place to export to", where="--to", mend=f"write {KINDS}")
    kind = _WORDS[word]
    match kind:
        case "docker":
            parse_reference(rest, where="--to")
            return Place(text=text, kind=kind, name=rest)
        case "docker-daemon":
            return Place(text=text, kind=kind, name=_local_name(rest, text))
        case "containers-storage":
            store, name = _store(rest, text)
            return Place(text=text, kind=kind, name=_local_name(name, text), store=store)
        case _:
            return _file(text, kind, rest)


def _file(text: str, kind: Kind, rest: str) -> Place:
    """FILE or FILE:TAG; a tag may itself have colons and slashes (example.com:5000/app:1), so a path may have none."""
    path, colon, name = rest.partition(":")
    if not path:
        raise UsageError(f"{text!r} names no file", where="--to", mend=f"write {KINDS}")
    if kind == "oci" and path == STREAM:
        raise UsageError("a directory cannot be a stream", where="--to", mend="use oci-archive:- or docker-archive:-")
    if colon and kind == "docker-archive":
        name = _local_name(name, text)
    elif colon and not _REF_NAME.match(name):
        raise UsageError(f"{name!r} cannot name an image in an OCI layout", where="--to", mend="use letters, digits and - . _ : @ / + between them")
    return Place(text=text, kind=kind, path=path, name=name)


def _local_name(name: str, text: str) -> str:
    """With a tag: what has none gets `latest`, as everywhere else."""
    reference = parse_reference(name, where="--to")
    if reference.digest:
        raise UsageError(f"{text!r} names a digest, and the image has its own", where="--to", mend="write NAME or NAME:TAG")
    return name if has_version(name) else f"{name}:latest"


def _store(rest: str, text: str) -> tuple[ContainersStore, str]:
    if not rest.startswith("["):
        return ContainersStore(), rest
    found = _STORE.match(rest)
    if found is None:
        raise UsageError(
            f"{text!r} names no store of containers/storage", where="--to", mend="write containers-storage:[DRIVER@/ROOT+/RUNROOT:OPTION,...]NAME[:TAG]"
        )
    options = tuple(one for one in (found["options"] or "").split(",") if one)
    store = ContainersStore(text=found[0], driver=found["driver"] or "", root=found["root"] or "", run_root=found["run"] or "", options=options)
    return store, rest[found.end() :]
