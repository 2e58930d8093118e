"""States of stages kept to be looked into: the folder `introspect/` of a store.

A state is a directory with `state.json` and what the commands of a failed stage left. It is made whole elsewhere and renamed into place, so a kill at any
moment leaves a whole state or none. Nothing in it changes afterwards: who enters it works on a copy that is dropped.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from layerwright.errors import LayerwrightError
from layerwright.host.files import remove_tree, sync_directory, telling_full, with_parent
from layerwright.host.locks import is_at, try_lock
from layerwright.oci.digest import DiffId
from layerwright.storage.paths import StorePaths
from layerwright.storage.seals import read_sealed, sealed
from layerwright.storage.work import Remove, WorkArea

SCHEMA = 1
MOST_KEPT = 10
KEPT_DAYS = 7
KEPT_MS = KEPT_DAYS * 24 * 3600 * 1000
_PATIENCE_S = 1.0  # for who only looks whether somebody is in it, as a clean-up does: that takes microseconds
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Moment = Literal["error", "before-error", "stage"]  # after the command that failed; before the commands of a stage that failed; after a stage was built


class StateInUse(LayerwrightError):
    """Somebody is in the state."""


class StateGone(LayerwrightError):
    """The state was removed meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What failed in the stage: `what` and `where` as the error says it; `command` counts from 0, `None` if it is not known."""

    what: str
    where: str
    status: int
    command: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptState:
    """A root file system and all that a container in it needs. `layers` oldest first; with `moment` "error", what the commands changed lies above them."""

    id: str = ""
    moment: Moment
    project: str
    image: str
    stage: str
    commit: str
    kept_ms: int  # Unix time, milliseconds, UTC
    size_bytes: int = 0  # on the disk, without the layers
    flavour: str
    layers: tuple[DiffId, ...]
    env: tuple[str, ...]
    mounts: tuple[tuple[str, str], ...]  # (kind, to)
    network: str
    runtime: str  # a path or a name; "" is any that works
    shell: str  # its path in the image; "" if the image has none
    commands: tuple[str, ...] = ()
    failure: Failure | None = None
    cwd: str = ""  # where the failed command was; "" if the shell did not get to say it
    exports: str = ""  # what `export -p` said then

    @property
    def shown(self) -> str:
        return f"{self.image or '~'}/{self.stage}"

    @property
    def until_ms(self) -> int:
        return self.kept_ms + KEPT_MS


class KeptStates:
    """The kept states of one store. Safe for any number of threads and processes."""

    def __init__(self, paths: StorePaths, area: WorkArea, *, remove: Remove = remove_tree) -> None:
        self._paths = paths
        self._area = area
        self._remove = remove  # files of mapped owners, too

    def all(self) -> tuple[KeptState, ...]:
        """Every state, oldest first."""
        found = [state for name in self._names() if (state := self.find(name)) is not None]
        return tuple(sorted(found, key=lambda state: (state.kept_ms, state.id)))

    def find(self, state_id: str) -> KeptState | None:
        if not _is_id(state_id):
            return None
        content = read_sealed(os.path.join(self.path(state_id), "state.json"))
        state = None if content is None else _decode(content)
        return state if state is not None and state.id == state_id else None

    def path(self, state_id: str) -> str:
        return self._paths.kept_state(state_id)

    def layers(self) -> frozenset[DiffId]:
        """Layers that a state stands on: they are in use as long as it is there."""
        return frozenset(layer for state in self.all() for layer in state.layers)

    def keep(self, state: KeptState, made: str | None = None) -> KeptState:
        """Keep `state` under a new id, with what is in the directory `made`, which is moved. The oldest go if there are too many by now."""
        made = made or os.path.join(self._area.scratch(), f"state-{os.urandom(8).hex()}")
        with telling_full(made):
            os.makedirs(made, exist_ok=True)
            os.chmod(made, 0o700)  # what commands wrote and exported is nobody else's
            while True:
                named = replace(state, id=f"{_slug(state)}-{os.urandom(2).hex()}")
                path = self.path(named.id)
                _write_synced(os.path.join(made, "state.json"), sealed("state.json", _encode(named)))
                sync_directory(made)
                if _moved(made, path):
                    break
        sync_directory(os.path.dirname(path))
        self.prune(but=named.id)
        return named

    @contextmanager
    def held(self, state_id: str) -> Iterator[None]:
        """For the block the state is not removed. Raises StateGone."""
        path = self.path(state_id)
        gone = StateGone(f"the state {state_id} was removed meanwhile", mend="`layerwright introspect` lists those that are kept")
        try:
            fd = os.open(path, _DIRECTORY)
        except FileNotFoundError as error:
            raise gone from error
        try:
            until = time.monotonic() + _PATIENCE_S
            while try_lock(fd, shared=True) is False:
                if not is_at(fd, path) or time.monotonic() > until:
                    raise gone
                time.sleep(0.001)
            if not is_at(fd, path):
                raise gone
            yield
        finally:
            os.close(fd)

    def remove(self, state_id: str) -> None:
        """Make the state a miss at once, then remove its files. Raises StateInUse."""
        path = self.path(state_id)
        try:
            fd = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            if try_lock(fd) is False:
                raise StateInUse(f"the state {state_id} is in use", where=path, mend="leave its shell first")
            doomed = os.path.join(self._area.scratch(), f"state-{os.urandom(8).hex()}")
            with suppress(FileNotFoundError):
                os.rename(path, doomed)
                self._remove(doomed)
        finally:
            os.close(fd)

    def prune(self, *, but: str = "") -> tuple[str, ...]:
        """Remove what is too old or too many, the oldest first, and what cannot be read; what somebody is in stays. The ids that went."""
        states = self.all()
        now_ms = time.time_ns() // 1_000_000
        doomed = [state.id for number, state in enumerate(states) if state.until_ms < now_ms or number < len(states) - MOST_KEPT]
        doomed += [name for name in self._names() if self.find(name) is None and self._is_old(name, now_ms)]
        gone = []
        for name in doomed:
            if name != but:
                with suppress(StateInUse, OSError):
                    self.remove(name)
                    gone.append(name)
        return tuple(gone)

    def _is_old(self, name: str, now_ms: int) -> bool:
        try:
            return os.stat(self.path(name)).st_mtime * 1000 < now_ms - KEPT_MS
        except OSError:
            return False

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._paths.introspect) if _is_id(name))
        except FileNotFoundError:
            return []


def _is_id(name: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name) is not None


def _slug(state: KeptState) -> str:
    """shop-install; what a file name cannot hold, or nobody wants to type, is a "-"."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{state.image}-{state.stage}".lower()).strip("-")
    return words[-40:].strip("-")


def _moved(made: str, path: str) -> bool:
    """Whether the directory took the name; False if another state has it."""
    try:
        with_parent(path, lambda: os.rename(made, path))
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _write_synced(path: str, content: bytes) -> None:
    with open(path, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _encode(state: KeptState) -> bytes:
    return json.dumps(asdict(state) | {"schema": SCHEMA}, sort_keys=True, separators=(",", ":")).encode()


def _decode(content: bytes) -> KeptState | None:
    """None if it is a state of another version."""
    try:
        raw: dict[str, Any] = json.loads(content)
        if raw.pop("schema") != SCHEMA:
            return None
        for name in ("layers", "env", "commands"):
            raw[name] = tuple(raw[name])
        raw["mounts"] = tuple((kind, to) for kind, to in raw["mounts"])
        raw["failure"] = Failure(**raw["failure"]) if raw["failure"] else None
        return KeptState(**raw)
    except (KeyError, TypeError, ValueError):
        return None
