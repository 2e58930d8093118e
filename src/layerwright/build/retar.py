"""The tar of a layer we made, written again from its tree and its index."""

from __future__ import annotations

from collections.abc import Callable

from layerwright.errors import LayerwrightError
from layerwright.layers.index import FileIndex
from layerwright.layers.tar import TarWriter
from layerwright.layers.tree import tree_entries


def write_again(tree: str, index: FileIndex, out: Callable[[bytes], object]) -> str:
    """Write the tar to `out` in pieces; what is wrong with the tree, "" if these were the layer's bytes. Raises only what `out` raises."""
    try:
        writer = TarWriter(_Taker(out))
        for one in tree_entries(tree, index):
            writer.add(one)
        written = writer.close().diff_id
    except _NotTaken as refused:
        raise refused.reason from None
    except (OSError, LayerwrightError) as error:
        return f"is damaged: {error}"
    return "" if written == index.diff_id else "was changed"


class _NotTaken(Exception):
    """Whoever is given the bytes of a tree refuses them: its disk is full, or it is to stop. The tree is not to blame."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Taker:
    """What a TarWriter writes to."""

    def __init__(self, out: Callable[[bytes], object]) -> None:
        self._out = out

    def write(self, piece: bytes, /) -> object:
        try:
            return self._out(piece)
        except Exception as error:
            raise _NotTaken(error) from error
