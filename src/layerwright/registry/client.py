"""The door to registries. Nothing is imported, opened or asked before the first request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from layerwright.oci.digest import BlobDigest
from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.options import RegistryOptions
from layerwright.registry.retry import with_retries

if TYPE_CHECKING:
    from layerwright.registry.manifests import Fetched
    from layerwright.registry.session import Session

T = TypeVar("T")
_SMALL_BYTES = 1 << 20


class Registry:
    """Every registry of a run, over one pool of connections. Thread-safe.

    All methods raise RegistryError (NotFound, Unauthorized, Unreachable, WrongBytes), which names the reference, and Cancelled;
    a login that cannot be read is a UsageError, a credential helper that is not there MachineLacks.
    """

    def __init__(self, options: RegistryOptions | None = None) -> None:
        self.options = options or RegistryOptions()
        self._guard = threading.Lock()
        self._opened: Session | None = None

    def head(self, reference: Reference, *, direct: bool = False) -> Descriptor | None:
        """What the reference names now, by one small request; None if the registry has nothing under it.

        `direct`: ask no mirror, which may be behind, and with the right to push, so that one login serves what is read and what is written.
        """
        from layerwright.registry import manifests

        return manifests.head(self._session(), reference, direct=direct)

    def manifest(self, reference: Reference, *, direct: bool = False) -> Fetched:
        """The manifest or index that the reference names; its bytes are those of the digest. `direct` as for `head`."""
        from layerwright.registry import manifests

        return manifests.fetch(self._session(), reference, direct=direct)

    @contextmanager
    def blob(self, reference: Reference, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """A blob of the reference's repository as a stream, resumed after cuts.

        A small one is here and checked before its first byte is given away. Of a large one the last bytes are given only if all were right,
        else WrongBytes is raised where they would be read: what was read until then must not be used.
        """
        import io

        from layerwright.registry import download

        if descriptor.size <= _SMALL_BYTES:
            yield io.BytesIO(download.blob_bytes(self._session(), reference, descriptor))
            return
        with download.open_blob(self._session(), reference, descriptor) as stream:
            yield cast(BinaryIO, stream)

    def read_blob(self, reference: Reference, descriptor: Descriptor, read: Callable[[BinaryIO], T]) -> T:
        """What `read` makes of a blob's stream; it is called a second time if the bytes of the first were wrong."""

        def once() -> T:
            with self.blob(reference, descriptor) as stream:
                return read(stream)

        return with_retries(once, self.options) if descriptor.size > _SMALL_BYTES else once()

    def blob_bytes(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """A whole small blob: a config, an index."""
        from layerwright.registry import download

        return download.blob_bytes(self._session(), reference, descriptor)

    def has_blob(self, reference: Reference, digest: BlobDigest) -> bool:
        from layerwright.registry import upload
        from layerwright.registry.session import PULL

        return upload.has_blob(self._session(), reference, digest, actions=PULL)

    def find_blob(self, reference: Reference, digest: BlobDigest) -> Descriptor | None:
        """A blob of the reference's repository with its size; None if it is not there."""
        from layerwright.registry import lookup

        return lookup.find_blob(self._session(), reference, digest)

    def mount_blob(self, reference: Reference, digest: BlobDigest, from_repository: str) -> bool:
        """Let the reference's repository share a blob of another one on the same registry; False if that is not to be had."""
        from layerwright.registry import upload

        return upload.mount_blob(self._session(), reference, digest, from_repository)

    def check_push(self, reference: Reference) -> None:
        """See that blobs may be pushed to the reference's repository, by two small requests that leave nothing there.

        Raises Unauthorized, and NotFound if the repository has to be created first.
        """
        from layerwright.registry import upload

        upload.check_push(self._session(), reference)

    def put_blob(self, reference: Reference, descriptor: Descriptor, open: Callable[[], BinaryIO], *, may_exist: bool = True) -> None:
        """Upload a blob unless the repository has it; `open` is called anew for each try, and what it gives is closed.

        `may_exist`: False for a blob that is known to be new; it is not looked for then before it is sent for the first time.
        """
        from layerwright.registry import upload

        upload.put_blob(self._session(), reference, descriptor, open, may_exist=may_exist)

    def stream_blob(self, reference: Reference, produce: Callable[[Callable[[bytes], object]], None]) -> tuple[BlobDigest, int]:
        """Upload a blob while it is made, and return its digest and size. `produce` gets a function that takes the next bytes.

        It is called in this thread, and again if the registry loses the upload; the bytes are sent by another thread, which has this one's context. What
        has been written cannot be taken back. The function raises something of its own when the upload has failed: let it pass.
        Raises what `produce` raises, and ChunksRefused if the registry takes no chunks: make a file of the blob then, and `put_blob` it.
        """
        from layerwright.registry import streaming

        return streaming.stream_blob(self._session(), reference, produce)

    def put_manifest(self, reference: Reference, content: bytes, media_type: str) -> BlobDigest:
        """Name `content` by the reference's tag, or by its digest. All it refers to must be there already.

        Raises NameTaken if the registry moves no name and the tag stands for something else (for just this: it is named, and all is well);
        BlobsMissing if the registry lacks what the manifest refers to.
        """
        from layerwright.registry import naming

        return naming.put_manifest(self._session(), reference, content, media_type)

    @property
    def requests(self) -> int:
        """HTTP requests sent so far, those to login servers and blob storages included."""
        return self._opened.http.requests if self._opened is not None else 0

    @property
    def bytes_in(self) -> int:
        return self._opened.traffic.bytes_in if self._opened is not None else 0

    @property
    def bytes_out(self) -> int:
        return self._opened.traffic.bytes_out if self._opened is not None else 0

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._opened is not None:
            self._opened.http.close()

    def _session(self) -> Session:
        from layerwright.registry.session import Session

        with self._guard:
            if self._opened is None:
                self._opened = Session(self.options)
            return self._opened
