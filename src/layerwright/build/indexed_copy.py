"""A blob on its way from one registry to another, and its file index made of the same bytes as they pass."""

from __future__ import annotations

import io
import queue
import threading
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import BinaryIO, cast

from layerwright.errors import LayerwrightError
from layerwright.layers.compress import decompressed
from layerwright.layers.index import FileIndex
from layerwright.layers.scan import CountedStream, index_tar
from layerwright.layers.tar import BadLayer
from layerwright.limits import Limits
from layerwright.oci.digest import DiffId

_WAITING = 4  # pieces read and not indexed yet: a MiB each, at most


class IndexedCopy(io.RawIOBase):
    """The bytes of `blob`; once all have passed, `index` is that of the layer. `limits` None: only the bytes are wanted.

    A blob that is another layer than `diff_id`, or none, ends the copy with BadLayer where its last bytes would be given.
    """

    def __init__(self, blob: AbstractContextManager[BinaryIO], diff_id: DiffId, *, limits: Limits | None) -> None:
        self._blob = blob
        self._stream = blob.__enter__()
        self._diff_id = diff_id
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._made: tuple[FileIndex, int] | None = None
        self._failed: BaseException | None = None
        self._ended = False
        self._thread: threading.Thread | None = None
        if limits is not None:
            self._thread = threading.Thread(target=copy_context().run, args=(self._read_along, limits), daemon=True)
            self._thread.start()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        if self._thread is not None:
            self._give(piece or None)
            if not piece:
                self._end()
        return piece

    def index(self) -> tuple[FileIndex, int] | None:
        """The index, and the bytes of the uncompressed tar; None if it was not wanted, or not all was read."""
        self._end()
        return self._made

    def close(self) -> None:
        if not self.closed:
            if self._thread is not None and self._thread.is_alive():
                self._failed = self._failed or EOFError()
                self._give(None)
            self._blob.__exit__(None, None, None)
        super().close()

    def _give(self, piece: bytes | None) -> None:
        """Hand a piece to the indexing thread, which always takes what it is given."""
        if not self._ended:
            self._ended = piece is None
            self._pieces.put(piece)

    def _end(self) -> None:
        if self._thread is None:
            return
        self._give(None)
        self._thread.join()
        if self._failed is not None and not isinstance(self._failed, EOFError):
            raise self._failed
        if self._made is not None and self._made[0].diff_id != self._diff_id:
            found = self._made[0].diff_id
            raise BadLayer(f"what is said to be layer {self._diff_id} is another layer, {found}", mend="the base image is wrong: push it again, or use another")

    def _read_along(self, limits: Limits) -> None:
        source = _Pieces(self._pieces)
        try:
            counted = CountedStream(decompressed(cast(BinaryIO, source), most=limits.layer_bytes))
            made = index_tar(cast(BinaryIO, counted), limits)
            self._made = made, counted.size
        except LayerwrightError as error:
            self._failed = self._failed or error
        except Exception as error:
            self._failed = self._failed or error
        finally:
            source.drain()


class _Pieces:
    """What was put into a queue, as a stream."""

    def __init__(self, pieces: queue.Queue[bytes | None]) -> None:
        self._pieces = pieces
        self._rest = b""
        self._done = False

    def read(self, size: int = -1) -> bytes:
        if not self._rest and not self._done:
            piece = self._pieces.get()
            self._done = piece is None
            self._rest = piece or b""
        size = len(self._rest) if size < 0 else size
        given, self._rest = self._rest[:size], self._rest[size:]
        return given

    def drain(self) -> None:
        while not self._done:
            self._done = self._pieces.get() is None
