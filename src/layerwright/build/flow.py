"""A stream that another process reads through a pipe, while this one fills it."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import BinaryIO

_PIPE_BYTES = 1 << 20  # what may be on its way; the kernel gives less to users with many pipes
_PIECE_BYTES = 1 << 20


@contextmanager
def flowing(stream: BinaryIO) -> Iterator[int]:
    """The end to read of a pipe through which all of `stream` comes. Raises what reading `stream` raises, in place of what the reader made of its end.

    A reader that stops early stops the stream.
    """
    outlet, inlet = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    failed: list[BaseException] = []
    pump = threading.Thread(target=copy_context().run, args=(_pump, stream, inlet, failed), daemon=True)
    pump.start()
    try:
        yield outlet
    except BaseException:
        os.close(outlet)
        pump.join()
        if failed:
            raise failed[0] from None
        raise
    os.close(outlet)
    pump.join()
    if failed:
        raise failed[0]


def _pump(stream: BinaryIO, inlet: int, failed: list[BaseException]) -> None:
    try:
        with open(inlet, "wb", buffering=0) as out:
            while piece := stream.read(_PIECE_BYTES):
                view = memoryview(piece)
                while view:
                    view = view[out.write(view) :]
    except BrokenPipeError:
        pass  # the reader has stopped, and says why
    except BaseException as error:
        failed.append(error)
