"""Image stores that belong to other tools, filled and asked by those tools: Docker's by docker, that of Podman, Buildah and CRI-O by skopeo or podman."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layerwright.build.options import Cancel
from layerwright.build.places import ContainersStore, Place
from layerwright.errors import LayerwrightError, MachineLacks
from layerwright.host.pipes import PipeWriter
from layerwright.host.run import CommandFailed, Process
from layerwright.oci.digest import digest_of
from layerwright.oci.reference import parse_reference

_LOOK_AT_CANCEL_S = 0.05
_TOOLS = {"docker-daemon": ("docker", "skopeo"), "containers-storage": ("skopeo", "podman")}
_PACKAGES = {"docker": "docker.io", "skopeo": "skopeo"}
_ABSENT = ("Cannot connect to the Docker daemon", "error during connect", "Is the docker daemon running", "connection refused", "no such host", "dial unix")
_FORBIDDEN = ("permission denied while trying to connect", "dial unix /var/run/docker.sock: connect: permission denied", "Got permission denied")


class DaemonAbsent(MachineLacks):
    """No Docker daemon answers, or it may not be spoken to."""


class ToolFailed(LayerwrightError):
    """The tool that owns an image store could not take the image; what it said is in the message."""


class NotTaken(LayerwrightError):
    """The tool said that all is well, and its store holds another image under the name."""


def tool_for(place: Place, env: Mapping[str, str]) -> str:
    """The program that fills this store. Raises MachineLacks if none is on PATH."""
    names = _TOOLS[place.kind]
    for name in names:
        if shutil.which(name, path=env.get("PATH", os.defpath)):
            return name
    what = f"an image gets into {place.kind} by way of {' or '.join(names)}, and neither is on PATH"
    raise MachineLacks(what, where=place.text, mend=f"sudo apt-get install {_PACKAGES[names[0]]}")


@dataclass(frozen=True, slots=True)
class Tools:
    """Calls the tools with a whole environment; ends them when the caller no longer wants to wait."""

    env: Mapping[str, str]
    cancel: Cancel

    def run(self, place: Place, argv: Sequence[str], *, cwd: str | None = None) -> bytes:
        """What the program printed. Raises DaemonAbsent, ToolFailed, Cancelled."""
        with Process(argv, env=self.env, cwd=cwd, stdout="memory", group=True) as process:
            return self._ended(place, process)

    def feed(self, place: Place, argv: Sequence[str], write: Callable[[PipeWriter], object]) -> bytes:
        """The same, with what `write` writes as its standard input."""
        with Process(argv, env=self.env, stdin="pipe", stdout="memory", group=True) as process:
            assert process.stdin is not None
            try:
                write(PipeWriter(process.stdin.fileno(), self.cancel.check))
                process.stdin.close()
            except BrokenPipeError:
                pass  # it ended before it had read all: why, is told by its exit code
            return self._ended(place, process)

    def _ended(self, place: Place, process: Process) -> bytes:
        while process.wait(_LOOK_AT_CANCEL_S) is None:
            self.cancel.check()
        if process.wait() != 0:
            raise _told(place, process.failure())
        return process.output()


# Docker.


def docker_load(tools: Tools, place: Place, write_archive: Callable[[PipeWriter], object]) -> None:
    """Hand a docker archive to the daemon as it is made: it is nowhere on our disk."""
    tools.feed(place, ("docker", "load", "--quiet"), write_archive)


def check_docker(tools: Tools, place: Place, diff_ids: Sequence[str]) -> str:
    """The id of the image of this name as the daemon gives it. Raises NotTaken unless it has these layers."""
    shown = tools.run(place, ("docker", "image", "inspect", "--format", "{{.Id}} {{json .RootFS.Layers}}", place.name))
    image_id, _, layers = shown.decode("utf-8", "replace").strip().partition(" ")
    if (json.loads(layers) or []) != list(diff_ids):
        raise NotTaken(f"docker says that it loaded the image, and has another one under {place.name} ({image_id})", where=place.text, mend="export it again")
    return image_id


# skopeo and podman: they take an OCI layout, whose blobs are links into our store.


def skopeo_copy(tools: Tools, place: Place, layout: str, image_id: str) -> None:
    """`layout` holds the image under the place's name. Raises ToolFailed, DaemonAbsent, NotTaken."""
    to = f"{place.kind}:{place.store.text}{place.name}"
    host = tools.env.get("DOCKER_HOST", "") if place.kind == "docker-daemon" else ""  # skopeo itself does not look at it
    inspect = ("skopeo", "inspect", *(("--daemon-host", host) if host else ()), "--config", "--raw", to)
    copy = ("skopeo", "--insecure-policy", "copy", "--quiet", *(("--dest-daemon-host", host) if host else ()), _source(layout, place), to)
    try:
        tools.run(place, copy, cwd=os.path.dirname(layout))
    except ToolFailed:
        if place.kind == "docker-daemon":
            _refuse_absent(tools, place, inspect)
        raise
    _refuse_other(place, digest_of(tools.run(place, inspect)), image_id)


def _refuse_absent(tools: Tools, place: Place, inspect: Sequence[str]) -> None:
    """Of a daemon that is not there `skopeo copy` says that a pipe was closed, `skopeo inspect` that there is no daemon."""
    try:
        tools.run(place, inspect)
    except ToolFailed:
        pass  # it answers, and has no such image


def podman_pull(tools: Tools, place: Place, layout: str, image_id: str) -> None:
    """`layout` holds the image under the place's name. Raises ToolFailed, NotTaken.

    What podman calls an image from a layout depends on its version: the name in the layout, or one made of the directory's, which is taken away.
    """
    podman = ("podman", *_podman_store(place.store))
    pulled = tools.run(place, (*podman, "pull", "--quiet", _source(layout, place)), cwd=os.path.dirname(layout)).decode("utf-8", "replace").strip()
    _refuse_other(place, f"sha256:{pulled.removeprefix('sha256:')}", image_id)
    tools.run(place, (*podman, "tag", pulled, str(parse_reference(place.name))))
    names = json.loads(tools.run(place, (*podman, "image", "inspect", "--format", "{{json .RepoTags}}", pulled))) or []
    for name in names:
        if os.path.basename(layout) in name:
            tools.run(place, (*podman, "untag", pulled, name))


def _source(layout: str, place: Place) -> str:
    """Relative to the directory above: a path in such a name may have no colon."""
    return f"oci:{os.path.basename(layout)}:{place.name}"


def _podman_store(store: ContainersStore) -> tuple[str, ...]:
    given = (("--storage-driver", store.driver), ("--root", store.root), ("--runroot", store.run_root), *(("--storage-opt", one) for one in store.options))
    return tuple(word for option, value in given if value for word in (option, value))


def _refuse_other(place: Place, found: str, image_id: str) -> None:
    if found != image_id:
        raise NotTaken(f"the store has another image under {place.name}: {found} instead of {image_id}", where=place.text, mend="export it again")


def _told(place: Place, failure: CommandFailed) -> LayerwrightError:
    said = failure.stderr
    if place.kind == "docker-daemon" and any(one in said for one in _FORBIDDEN):
        return DaemonAbsent(said, where=place.text, mend="run this as root, or add yourself to the group: sudo usermod -aG docker $USER")
    if place.kind == "docker-daemon" and any(one in said for one in _ABSENT):
        return DaemonAbsent(said, where=place.text, mend="start it (sudo systemctl start docker), or set DOCKER_HOST to where it listens")
    return ToolFailed(failure.what, where=place.text, mend="the message above is that tool's own; try it by hand with the same arguments")
