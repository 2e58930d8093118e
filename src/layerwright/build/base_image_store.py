"""Base images of a store: taken from files and registries, listed, forgotten. Needs no project."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from layerwright.build.own_store import open_store
from layerwright.errors import UsageError
from layerwright.oci.digest import DiffId
from layerwright.oci.platform import Platform, host_platform, parse_platform
from layerwright.oci.reference import Reference, parse_reference
from layerwright.storage.images import StoredImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerwright.build.events import Listener
    from layerwright.build.options import Cancel
    from layerwright.registry.client import Registry
    from layerwright.registry.options import Transfer
    from layerwright.storage.image_removal import Freed

_FETCHERS = 4


class BaseImages:
    """The base images of one store. A context manager; safe to use from one thread at a time.

    `home` is the store's directory; `env` is what credentials, proxies and the default of `home` are read from (default: the process's).
    """

    def __init__(
        self,
        home: str | None = None,
        *,
        insecure_registry: bool = False,
        skip_tls_verify_registry: bool = False,
        docker_config: str | None = None,
        container_registry_mirror: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._env = dict(os.environ if env is None else env)
        self._insecure, self._skip_tls, self._docker_config = insecure_registry, skip_tls_verify_registry, docker_config
        self._mirrors = tuple(container_registry_mirror)
        self._closing = ExitStack()
        self._store = open_store(home, self._env)
        self._closing.callback(self._store.close)

    def __enter__(self) -> BaseImages:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open. May be called twice."""
        self._closing.close()

    def list(self) -> tuple[StoredImage, ...]:
        """Every image, by reference and platform."""
        return self._store.images.all()

    def load(self, file: str, *, name: str | None = None, platform: str | None = None) -> tuple[StoredImage, ...]:
        """Take the images of an OCI archive, a docker archive or an OCI layout, under their own names or under `name`.

        All platforms that are there, or one ("linux/arm64"). Raises UsageError (no name, no such platform), MachineLacks (disk full),
        LayerwrightError for what is no archive, or is damaged.
        """
        from layerwright.storage.archives import load_archive

        reference = parse_reference(name, where="name") if name else None
        return load_archive(self._store, file, name=reference, platform=_platform(platform))

    def pull(self, name: str, *, platform: str | None = None, on_event: Listener = lambda event: None, cancel: Cancel | None = None) -> StoredImage:
        """Take an image from its registry, with all its layers. Raises RegistryError, UsageError, MachineLacks, Cancelled."""
        from layerwright.build.bases import Bases
        from layerwright.build.cabinet import Cabinet
        from layerwright.build.events import Warned
        from layerwright.build.options import Cancel as NewCancel
        from layerwright.build.side_by_side import side_by_side
        from layerwright.build.told import one_at_a_time

        tell = one_at_a_time(on_event)
        reference, wanted = parse_reference(name), _platform(platform) or host_platform()
        stopped = (cancel or NewCancel()).below()
        with self._registry(tell, stopped.is_set) as registry:
            held = Bases(self._store, lambda: registry, lambda text: tell(Warned(text=text))).pull(reference, wanted)
            cabinet = Cabinet(self._store, lambda: registry, cancelled=stopped.is_set)

            def fetch(diff_id: DiffId) -> object:
                return cabinet.stored(diff_id) or cabinet.fetch(diff_id)

            side_by_side(fetch, held.config.diff_ids, at_once=_FETCHERS, cancel=stopped)
        return self._named(reference, wanted)

    def remove(self, names: Sequence[str], *, platform: str | None = None) -> tuple[tuple[StoredImage, ...], Freed]:
        """Forget images, for all platforms or for one, and free what no other image and no build uses: what was forgotten, and what that gave back.

        Raises UsageError, and then nothing is forgotten, where the store has no such image.
        """
        from layerwright.storage.image_removal import remove_images

        wanted, known = _platform(platform), self.list()
        chosen: list[StoredImage] = []
        for name in names:
            reference = str(parse_reference(name))
            found = [one for one in known if one.reference == reference and wanted in (None, parse_platform(one.platform))]
            if not found:
                raise UsageError(f"no image {reference} in the store", mend="`layerwright image ls` lists what is there")
            chosen += found
        return tuple(chosen), remove_images(self._store, chosen)

    def _named(self, reference: Reference, platform: Platform) -> StoredImage:
        found = self._store.images.find(reference, platform)
        assert found is not None, "it was pulled under this name"
        return found

    @contextmanager
    def _registry(self, tell: Listener, cancelled: Callable[[], bool]) -> Iterator[Registry]:
        from layerwright.build.registries import make_registry
        from layerwright.build.told import transferred

        def on_bytes(transfer: Transfer) -> None:
            tell(transferred(transfer))

        registry = make_registry(
            self._env,
            insecure=self._insecure,
            skip_tls_verify=self._skip_tls,
            docker_config=self._docker_config,
            mirrors=self._mirrors,
            on_bytes=on_bytes,
            cancelled=cancelled,
        )
        try:
            yield registry
        finally:
            registry.close()


def _platform(text: str | None) -> Platform | None:
    return parse_platform(text) if text else None


open_images = BaseImages  # the name to use: with every choice it has, as type checkers see it
