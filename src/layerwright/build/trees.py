"""Everything that needs unpacked layers, from the side of the build: trees are made, checked and used in the worker, which starts with the first of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO

from layerwright.build.at_work import image_at_work
from layerwright.build.cabinet import Cabinet
from layerwright.build.events import ContainerStarts, Listener, Progress
from layerwright.build.flow import flowing
from layerwright.build.foreign_owners import notice_for_failed, refuse_foreign_owners, refuse_foreign_user
from layerwright.build.side_by_side import side_by_side
from layerwright.build.tree_calls import TreeCalls
from layerwright.layers.devices import have_devices
from layerwright.layers.unpack import needs_below
from layerwright.limits import as_numbers
from layerwright.oci.digest import ChainId, DiffId, chain_id
from layerwright.runtime.rootfs import refuse_too_many
from layerwright.runtime.script import PLACE
from layerwright.storage.contract import MissingBlob
from layerwright.storage.local import LocalStore
from layerwright.storage.uses import layer_use

if TYPE_CHECKING:
    from layerwright.build.options import Cancel

UNPACKERS = 4


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
    keeps: bool = False  # if it fails, what it left is for `on_failed`


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What failed commands left, in a directory that lasts only as long as the call of `on_failed` unless it is moved away."""

    path: str
    size_bytes: int
    cwd: str
    exports: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandsDone:
    """`layer` is None if the commands failed or left nothing; `failed_command` counts from 0."""

    status: int
    failed_command: int | None = None
    failed_line: int | None = None  # within the command, from 1, where the shell could tell
    layer: DiffId | None = None
    size: int = 0
    notices: tuple[str, ...] = ()
    runtime: str = ""  # the one that ran them, a path


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRun:
    """A container of a finished image, on the caller's own terminal or pipes. `user` is uid, gid, further gids.

    For a kept state also: `kept`, its directory, if commands left something there; mounts as a CommandRun has them; and `tools`, files by name that the
    container has at `runtime.script.PLACE`.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: tuple[int, int, tuple[int, ...]]
    network: str
    layers: tuple[DiffId, ...]
    terminal: bool
    kept: str = ""
    mounts: tuple[tuple[str, str], ...] = ()
    project: str = ""
    tools: Mapping[str, str] = field(default_factory=dict)


class Trees:
    """The trees of one run, made and used by its worker. Thread-safe."""

    def __init__(
        self,
        store: LocalStore,
        cabinet: Cabinet,
        calls: TreeCalls,
        *,
        runtime: str = "",
        tell: Listener = lambda event: None,
    ) -> None:
        self._store = store
        self._cabinet = cabinet
        self._calls = calls
        self._runtime = runtime
        self._flavour = store.flavour
        self._tell = tell
        self._guard = threading.Lock()
        self._ready: dict[str, str] = {}
        self._locks: dict[str, threading.Lock] = {}

    def run(
        self,
        run: CommandRun,
        *,
        on_lines: Callable[[Sequence[str]], None],
        cancel: Cancel,
        on_failed: Callable[[CommandsDone, Left | None], None] = lambda done, left: None,
    ) -> CommandsDone:
        """Run a stage's commands over its layers; `on_failed` is called if they fail. Raises Cancelled, MachineLacks, MissingBlob, and what that raises."""
        lowers = self._lowers(run.layers, cancel)
        with self._store.work(remove=self._calls.remove) as work:
            mounts = [(self._mount_source(kind, to, run.project, work.path), to) for kind, to in run.mounts]
            arguments: dict[str, Any] = {
                "work": work.path,
                "lowers": lowers,
                "layers": list(run.layers),
                "commands": list(run.commands),
                "shell": run.shell,
                "env": list(run.env),
                "mounts": mounts,
                "network": run.network,
                "runtime": self._runtime,
                "devices": have_devices([self._cabinet.index(diff_id) for diff_id in run.layers]),
                "keeps": run.keeps,
            }
            answer = self._call("run_commands", arguments, lambda lines: on_lines(lines), cancel)
            done = CommandsDone(
                status=answer["status"],
                failed_command=answer["command"],
                failed_line=answer["line"],
                layer=answer["layer"],
                size=answer["size"],
                notices=tuple(answer["notices"]),
                runtime=answer["runtime"],
            )
            if done.status != 0:
                hint = notice_for_failed(self._calls.flavour)
                done = replace(done, notices=(*done.notices, hint)) if hint else done
                on_failed(done, Left(**answer["left"]) if answer["left"] else None)
        return done

    def make(self, layers: Sequence[DiffId], cancel: Cancel) -> None:
        """See to it that the trees of these layers are there. Raises Cancelled, MachineLacks, MissingBlob."""
        self._lowers(layers, cancel)

    def run_image(self, run: ImageRun, *, files: tuple[int, int, int], cancel: Cancel) -> int:
        """Run a container of an image on the given stdin, stdout and stderr; its exit status."""
        uid, gid, groups = run.user
        refuse_foreign_user(uid, (gid, *groups), self._calls.flavour)
        lowers = self._lowers(run.layers, cancel)
        self._tell(ContainerStarts(image=image_at_work()))
        with self._store.work(remove=self._calls.remove) as work:
            mounts = [(self._mount_source(kind, to, run.project, work.path), to, _kept_below(run.kept, kind, to)) for kind, to in run.mounts]
            if run.tools:
                mounts.append((_written(run.tools, os.path.join(work.path, "tools")), PLACE, ""))
            arguments: dict[str, Any] = {
                "work": work.path,
                "lowers": [os.path.join(run.kept, "upper"), *lowers] if run.kept else lowers,
                "mounts": mounts,
                "args": list(run.args),
                "env": list(run.env),
                "cwd": run.cwd,
                "user": run.user,
                "network": run.network,
                "terminal": run.terminal,
                "runtime": self._runtime,
                "devices": have_devices([self._cabinet.index(diff_id) for diff_id in run.layers]),
            }
            status: int = self._call("run_image", arguments, lambda event: None, cancel, files)
            return status

    def _mount_source(self, kind: str, to: str, project: str, work: str) -> str:
        if kind == "build_dir":
            return self._store.mount_dir(project, to)
        return f"{work}/{_tmp_dir(to)}"

    def _call(self, task: str, arguments: Mapping[str, Any], on_event: Callable[[Any], None], cancel: Cancel, files: tuple[int, ...] = ()) -> Any:
        return self._calls.call(task, arguments, on_event=on_event, cancel=cancel, files=files)

    # Trees.

    def _lowers(self, layers: Sequence[DiffId], cancel: Cancel) -> list[str]:
        """The unpacked layers, top first; those that are missing are unpacked now, several at once where they do not stand on one another."""
        refuse_too_many(len(layers))
        self._store.uses.add(*(layer_use(diff_id) for diff_id in layers))
        side_by_side(self._cabinet.index, layers, at_once=UNPACKERS, cancel=cancel)
        indexes = [self._cabinet.index(diff_id) for diff_id in layers]
        for diff_id in layers:
            self._cabinet.keep_readable(diff_id)
        identities: list[str] = []
        for number, index in enumerate(indexes):
            below = chain_id(layers[: number + 1])
            assert below is not None
            alone = number == 0 or self._store.has_tree(self._flavour, layers[number]) or not needs_below(index)
            identities.append(layers[number] if alone else below)
        self._store.uses.add(*(layer_use(one) for one in identities))  # trees by chain id have names of their own
        self._check(layers, identities, cancel)
        unordered = [number for number, identity in enumerate(identities) if identity == layers[number]]
        side_by_side(lambda number: self._tree(layers, identities, number, cancel), unordered, at_once=UNPACKERS, cancel=cancel)
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
        found: list[str] = self._call("check_trees", {"trees": trees}, lambda event: None, cancel)
        return found

    def _unpacked(self, layers: Sequence[DiffId], identities: Sequence[str], number: int, cancel: Cancel) -> str:
        diff_id = layers[number]
        streams = self._cabinet.stored(diff_id) is None and not self._cabinet.keeps_blobs and bool(self._cabinet.origins(diff_id))
        if not streams and self._cabinet.stored(diff_id) is None and self._cabinet.origins(diff_id):
            self._cabinet.fetch(diff_id)
        refuse_foreign_owners(self._cabinet.index(diff_id), self._calls.flavour)
        source = self._cabinet.stored(diff_id)
        if source is None and not streams:
            raise MissingBlob(f"layer {diff_id} is in the store neither packed nor unpacked", mend="build again")
        needs_lower = identities[number] != diff_id
        lowers = [self._tree(layers, identities, one, cancel) for one in range(number)][::-1] if needs_lower else []
        arguments = {
            "identity": identities[number],
            "layer": diff_id,
            "below": list(layers[:number]) if needs_lower else [],
            "lowers": lowers,
            "source": source.digest if source is not None else "",
            "media_type": source.media_type if source is not None else "",
            "limits": as_numbers(self._store.limits),
        }
        begun = Progress(image=image_at_work(), action="unpack", subject="", part=diff_id[7:19], done=0, total=max(self._store.holding(diff_id).size, 0))
        self._tell(begun)
        path: str = (
            self._call("unpack", arguments, lambda event: None, cancel) if source is not None else self._unpacked_as_it_comes(diff_id, arguments, cancel)
        )
        self._tell(begun._replace(done=begun.total, finished=True))
        return path

    def _unpacked_as_it_comes(self, diff_id: DiffId, arguments: Mapping[str, Any], cancel: Cancel) -> str:
        """From a registry into the tree, without a file between them: the worker decompresses, hashes and writes what comes through a pipe."""

        def unpack(stream: BinaryIO) -> str:
            with flowing(stream) as pipe:
                path: str = self._call("unpack", arguments, lambda event: None, cancel, (pipe,))
            return path

        return self._cabinet.read_elsewhere(diff_id, unpack)


def _tmp_dir(to: str) -> str:
    """One for each path: /a/b is not /a-b, and no path is too long for a name."""
    return f"tmp_dir/{sha256(os.fsencode(to)).hexdigest()[:16]}"


def _kept_below(kept: str, kind: str, to: str) -> str:
    """What failed commands left in a temporary directory; "" if nothing was kept of it."""
    path = os.path.join(kept, _tmp_dir(to))
    return path if kept and kind == "tmp_dir" and os.path.isdir(path) else ""


def _written(files: Mapping[str, str], directory: str) -> str:
    os.mkdir(directory, 0o755)
    for name, text in files.items():
        with open(os.path.join(directory, name), "x", encoding="utf-8", errors="surrogateescape") as out:
            out.write(text)
    return directory
