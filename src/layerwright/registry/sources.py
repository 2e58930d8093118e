"""Reading from mirrors first: which places of an image are asked in a run, and which are not any more."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from layerwright.oci.reference import Reference
from layerwright.registry.errors import NotFound, RegistryError, Unauthorized
from layerwright.registry.hosts import Hosts, Route
from layerwright.registry.http import Answer

_LIMIT_FAILURES = 2  # a mirror that failed so often is left alone for the rest of the run: a connection that times out costs 10 s


class Sources:
    """Asks mirrors in their order, and the registry itself last. Thread-safe.

    A mirror may fail in any way: it is unreachable, lacks the image, wants another login, or gives wrong bytes. The next one is asked then.
    """

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._guard = threading.Lock()
        self._failures: Counter[str] = Counter()
        self._gave_tags: set[tuple[str, str]] = set()  # mirror, and the repository of which it resolved a tag

    def first(self, reference: Reference, ask: Callable[[Route], Answer]) -> Answer:
        """The first answer of a use. Raises what the registry itself says, with a word on the mirrors."""
        *mirrors, origin = self._hosts.sources(reference)
        failures = []
        for mirror in mirrors:
            if not self._is_worth_asking(mirror, reference):
                continue
            try:
                answer = ask(mirror)
            except RegistryError as error:
                if not isinstance(error, NotFound | Unauthorized):
                    self._count(mirror.host)
                failures.append(f"{mirror.host}: {error.what}")
                continue
            answer.mirror = mirror.host
            if reference.digest is None:
                with self._guard:
                    self._gave_tags.add((mirror.host, reference.name))
            return answer
        try:
            return ask(origin)
        except RegistryError as error:
            if failures:
                error.what += f"; mirrors asked before: {'; '.join(failures)}"
            raise

    def _is_worth_asking(self, mirror: Route, reference: Reference) -> bool:
        with self._guard:
            if self._failures[mirror.host] >= _LIMIT_FAILURES:
                return False
            if mirror.only == "tag-only":  # what its tag named belongs to it
                return reference.digest is None or (mirror.host, reference.name) in self._gave_tags
            return mirror.only == "all" or reference.digest is not None

    def doubt(self, mirror: str, *, wrong: bool = False) -> bool:
        """Note that what a mirror gave ("": the registry itself) was cut, or `wrong`; True if another place will be asked for it in the end."""
        if mirror:
            self._count(mirror, _LIMIT_FAILURES if wrong else 1)
        return bool(mirror)

    def _count(self, mirror: str, times: int = 1) -> None:
        with self._guard:
            self._failures[mirror] += times
