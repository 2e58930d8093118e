"""Several things of one kind at once, where one that fails ends the others: nobody waits for the rest of a large layer to be told that a small one was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from layerwright.build.at_work import carried
from layerwright.build.options import Cancel
from layerwright.layers.index import BadIndex
from layerwright.storage.contract import MissingBlob

A = TypeVar("A")
R = TypeVar("R")


def side_by_side(act: Callable[[A], R], arguments: Iterable[A], *, at_once: int, cancel: Cancel) -> list[R]:
    """What `act` makes of each, in their order. The first failure sets `cancel`, which `act` looks at, and is raised once all have stopped.

    What the store lacks or has damaged is made again by whoever catches it, so MissingBlob and BadIndex leave `cancel` alone.
    """
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(carried(act), one) for one in arguments]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException as error:
            if not isinstance(error, MissingBlob | BadIndex):
                cancel.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
