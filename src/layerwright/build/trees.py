"""Everything that needs unpacked layers, from the side of the build: trees are made, checked and used in the worker, which starts with the first of them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerwright.build.cabinet import ROOT_FLAVOUR, Cabinet
from layerwright.layers.unpack import needs_below
from layerwright.oci.digest import ChainId, DiffId, chain_id
from layerwright.storage.contract import MissingBlob
from layerwright.storage.local import LocalStore

if TYPE_CHECKING:
    from layerwright.build.options import Cancel
    from layerwright.runtime.worker import Worker

UNPACKERS = 4
PROGRAM = (sys.executable, "-m", "layerwright.build.tree_worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRun:
    """One user stage to run. `layers` oldest first; `mounts` are (kind, to); `env` is whole."""

    commands: tuple[str, ...]
    shell: str
    env: tuple[str, ...]
    mounts: tuple[tuple[str, str], ...]
    project: str
    network: str
    layers: tuple[DiffId, ...]
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandsDone:
    """`layer` is None if the commands failed or left nothing; `failed_command` counts from 0."""

    status: int
    failed_command: int | None = None
    failed_line: int | None = None  # within the command, from 1, where the shell could tell
    layer: DiffId | None = None
    size: int = 0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRun:
    """A container of a finished image, on the caller's own terminal or pipes. `user` is uid, gid, further gids."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: tuple[int, int, tuple[int, ...]]
    network: str
    layers: tuple[DiffId, ...]
    terminal: bool


class Trees:
    """The worker of one run, and the trees it makes. Thread-safe."""

    def __init__(
        self, store: LocalStore, cabinet: Cabinet, start_worker: Callable[[Sequence[str]], Worker], *, runtime: str = "", flavour: str = ROOT_FLAVOUR
    ) -> None:
        self._store = store
        self._cabinet = cabinet
        self._start_worker = start_worker
        self._runtime = runtime
        self._flavour = flavour
        self._guard = threading.Lock()
        self._worker: Worker | None = None
        self._ready: dict[str, str] = {}
        self._locks: dict[str, threading.Lock] = {}

    def close(self) -> None:
        with self._guard:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def run(self, run: CommandRun, *, on_lines: Callable[[Sequence[str]], None], cancel: Cancel) -> CommandsDone:
        """Run a stage's commands over its layers. Raises Cancelled, MachineLacks, MissingBlob."""
        lowers = self._lowers(run.layers, cancel)
        with self._store.work() as work:
            mounts = [(self._mount_source(kind, to, run.project, work.path), to) for kind, to in run.mounts]
            arguments: dict[str, Any] = {
                "home": self._store.paths.home,
                "flavour": self._flavour,
                "work": work.path,
                "lowers": lowers,
                "layers": list(run.layers),
                "commands": list(run.commands),
                "shell": run.shell,
                "env": list(run.env),
                "mounts": mounts,
                "network": run.network,
                "runtime": self._runtime,
            }
            done = self._call("run_commands", arguments, lambda lines: on_lines(lines), cancel)
        return CommandsDone(
            status=done["status"],
            failed_command=done["command"],
            failed_line=done["line"],
            layer=done["layer"],
            size=done["size"],
            notices=tuple(done["notices"]),
        )

    def run_image(self, run: ImageRun, *, files: tuple[int, int, int], cancel: Cancel) -> int:
        """Run a container of an image on the given stdin, stdout and stderr; its exit status."""
        lowers = self._lowers(run.layers, cancel)
        with self._store.work() as work:
            arguments: dict[str, Any] = {
                "home": self._store.paths.home,
                "work": work.path,
                "lowers": lowers,
                "args": list(run.args),
                "env": list(run.env),
                "cwd": run.cwd,
                "user": run.user,
                "network": run.network,
                "terminal": run.terminal,
                "runtime": self._runtime,
            }
            status: int = self._call("run_image", arguments, lambda event: None, cancel, files)
            return status

    def _mount_source(self, kind: str, to: str, project: str, work: str) -> str:
        if kind == "build_dir":
            return self._store.mount_dir(project, to)
        return f"{work}/tmp_dir/{to.strip('/').replace('/', '-')}"

    def _call(self, task: str, arguments: Mapping[str, Any], on_event: Callable[[Any], None], cancel: Cancel, files: tuple[int, ...] = ()) -> Any:
        with self._guard:
            if self._worker is None:
                self._worker = self._start_worker(PROGRAM)
            worker = self._worker
        return worker.call(task, dict(arguments), on_event=on_event, cancel=cancel, fds=files)

    # Trees.

    def _lowers(self, layers: Sequence[DiffId], cancel: Cancel) -> list[str]:
        """The unpacked layers, top first; those that are missing are unpacked now, several at once where they do not stand on one another."""
        with ThreadPoolExecutor(UNPACKERS) as pool:
            list(pool.map(self._cabinet.index, layers))
        indexes = [self._cabinet.index(diff_id) for diff_id in layers]
        for diff_id in layers:
            self._cabinet.keep_readable(diff_id)
        identities: list[str] = []
        for number, index in enumerate(indexes):
            below = chain_id(layers[: number + 1])
            assert below is not None
            alone = number == 0 or self._store.has_tree(self._flavour, layers[number]) or not needs_below(index)
            identities.append(layers[number] if alone else below)
        self._check(layers, identities, cancel)
        unordered = [number for number, identity in enumerate(identities) if identity == layers[number]]
        with ThreadPoolExecutor(UNPACKERS) as pool:
            list(pool.map(lambda number: self._tree(layers, identities, number, cancel), unordered))
        return [self._tree(layers, identities, number, cancel) for number in range(len(layers))][::-1]

    def _tree(self, layers: Sequence[DiffId], identities: Sequence[str], number: int, cancel: Cancel) -> str:
        identity = identities[number]
        with self._guard:
            lock = self._locks.setdefault(identity, threading.Lock())
        with lock:
            if identity not in self._ready:
                with self._store.lock(f"tree-{identity[7:]}", cancelled=cancel.is_set):
                    if self._store.has_tree(self._flavour, identity):  # another process made it meanwhile
                        self._check(layers, identities[: number + 1], cancel)
                    if identity not in self._ready:
                        self._ready[identity] = self._unpacked(layers, identities, number, cancel)
            return self._ready[identity]

    def _check(self, layers: Sequence[DiffId], identities: Sequence[str], cancel: Cancel) -> None:
        """Take the trees that are there and are what their indexes say; changed ones are removed. All in a few calls, as each costs milliseconds."""
        there = [number for number, one in enumerate(identities) if one not in self._ready and self._store.has_tree(self._flavour, one)]
        parts = [part for first in range(UNPACKERS) if (part := there[first::UNPACKERS])]
        with ThreadPoolExecutor(UNPACKERS) as pool:
            for identity in (one for good in pool.map(lambda part: self._check_some(layers, identities, part, cancel), parts) for one in good):
                self._ready[identity] = self._store.tree_path(self._flavour, ChainId(identity))

    def _check_some(self, layers: Sequence[DiffId], identities: Sequence[str], numbers: Sequence[int], cancel: Cancel) -> list[str]:
        trees = [(identities[one], layers[one], list(layers[:one]) if identities[one] != layers[one] else []) for one in numbers]
        found: list[str] = self._call("check_trees", {"home": self._store.paths.home, "flavour": self._flavour, "trees": trees}, lambda event: None, cancel)
        return found

    def _unpacked(self, layers: Sequence[DiffId], identities: Sequence[str], number: int, cancel: Cancel) -> str:
        diff_id = layers[number]
        if self._cabinet.stored(diff_id) is None and self._store.holding(diff_id).origins:
            self._cabinet.fetch(diff_id)
        source = self._cabinet.stored(diff_id)
        if source is None:
            raise MissingBlob(f"layer {diff_id} is in the store neither packed nor unpacked", mend="build again")
        needs_lower = identities[number] != diff_id
        lowers = [self._tree(layers, identities, one, cancel) for one in range(number)][::-1] if needs_lower else []
        arguments = {
            "home": self._store.paths.home,
            "flavour": self._flavour,
            "identity": identities[number],
            "layer": diff_id,
            "below": list(layers[:number]) if needs_lower else [],
            "lowers": lowers,
            "source": source.digest,
            "media_type": source.media_type,
        }
        path: str = self._call("unpack", arguments, lambda event: None, cancel)
        return path


def start_worker(argv: Sequence[str]) -> Worker:
    """The worker, which really starts with its first call. Of the environment it gets only what finds programs and this package."""
    from layerwright.runtime.worker import Worker as Started

    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "XDG_RUNTIME_DIR") if name in os.environ}
    return Started(argv, env | {"PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", "")})
