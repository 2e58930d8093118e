"""What an image from outside may ask for at most: the one place where these numbers stand. A leaf: imports nothing of ours.

Each is far above what images hold and low enough that a hostile one costs a bounded time and memory. docs/limits.md says how each is met.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

# Fixed: what the kernel, registries and tools agree on.
PATH_BYTES = 4095  # PATH_MAX without its final NUL; a symlink's target too
NAME_BYTES = 255  # NAME_MAX
SYMLINKS = 40  # MAXSYMLINKS
XATTR_NAME_BYTES = 255  # XATTR_NAME_MAX
XATTR_VALUE_BYTES = 1 << 16  # XATTR_SIZE_MAX
XATTR_LIST_BYTES = 1 << 16  # XATTR_LIST_MAX
HEADER_BYTES = 1 << 20  # of one extended tar header; as Go's archive/tar
PARENTS_BYTES = 256 << 20  # paths of all directories above a layer's entries: one deep entry may stand for 2,047 of them
ZSTD_WINDOW_LOG = 27  # 128 MiB for each frame being read: what `zstd -d` takes without --long
DEVICES = 1000  # nodes of an image outside of /dev, each of which is covered by a mount in a container
EMPTY_MEMBERS = 4096  # gzip members or zstd frames in a row that hold nothing

MANIFEST_BYTES = 4 << 20  # of one manifest, index or config; registries refuse more
JSON_DEPTH = 64
LAYERS = 1000  # of one image, and manifests of one index
INDEX_DEPTH = 3  # indexes within each other
INDEXES_READ = 16  # manifests and indexes asked from a registry for one reference
BLOB_BYTES = 1 << 40  # of one compressed layer, as its manifest announces it

ARCHIVE_FILES = 100_000  # in a file given to `image load`
ARCHIVE_HEADER_BYTES = 8 << 20  # of one extended header there; above what is read of a content at once
ARCHIVE_LINKS = 10  # links followed for one name
ARCHIVE_IMAGES = 1000
ARCHIVE_DOCUMENTS_BYTES = 64 << 20  # manifests, indexes and configs together: they are held in memory

_SIZE = r"(\d{1,15})\s*([kmgt]?)(?:i?b)?\Z"  # compiled for who sets a limit only
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


class Limits(NamedTuple):
    """What one layer and one image may hold; whoever has larger ones sets them (`limits_of`)."""

    layer_bytes: int = 128 << 30  # of the uncompressed tar: the contents, the headers and whatever follows the end
    layer_entries: int = 1_000_000
    image_entries: int = 2_000_000  # of all layers together, removed and replaced ones too
    metadata_bytes: int = 256 << 20  # names, link targets and extended attributes of one layer: all of it is held in memory


# Environment variable -> field. Sizes may end in K, M, G or T.
VARIABLES: Mapping[str, str] = {
    "LAYERWRIGHT_LIMIT_LAYER_SIZE": "layer_bytes",
    "LAYERWRIGHT_LIMIT_LAYER_ENTRIES": "layer_entries",
    "LAYERWRIGHT_LIMIT_IMAGE_ENTRIES": "image_entries",
    "LAYERWRIGHT_LIMIT_LAYER_METADATA": "metadata_bytes",
}


def limits_of(env: Mapping[str, str]) -> Limits:
    """The limits that an environment sets. Raises ValueError, whose text names the variable and what is wrong."""
    chosen = {}
    for variable, name in VARIABLES.items():
        if text := env.get(variable, "").strip():
            found = re.match(_SIZE, text, re.IGNORECASE)
            if found is None or not int(found[1]):
                raise ValueError(f"{variable} is {text!r}, not a number above 0")
            chosen[name] = int(found[1]) << _UNITS[found[2].lower()]
    return Limits(**chosen)


def as_numbers(limits: Limits) -> dict[str, int]:
    """To be handed to another process; `Limits(**numbers)` is the same again."""
    return limits._asdict()
