"""In which order images are made, and the graph of who needs whom. Source: werf.yaml reference, "Build order" and "Selecting images"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from layerwright.config.model import Config, Image, InternalBase

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*\Z")
_WORDS = frozenset("y n yes no on off true false null".split())


def with_needs(config: Config, names: Iterable[str]) -> tuple[str, ...]:
    """`names` and all they need, directly or not; every image behind what it needs, else in the file's order."""
    return tuple(name for one in sets(config, names) for name in one)


def sets(config: Config, names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """The same in sets: each needs only images of earlier sets, so that those of one set can be built side by side."""
    images = {one.name: one for one in config.images}
    depths = _depths(images, names)
    ordered: list[list[str]] = [[] for _ in range(max(depths.values(), default=-1) + 1)]
    for name in images:
        if name in depths:
            ordered[depths[name]].append(name)
    return tuple(map(tuple, ordered))


def _depths(images: dict[str, Image], names: Iterable[str]) -> dict[str, int]:
    """How long the longest chain of needs below each image is. Without recursion: a chain may be as long as the file."""
    depths: dict[str, int] = {}
    waiting = list(names)
    while waiting:
        name = waiting[-1]
        missing = [need for need in images[name].needs if need not in depths]
        if name in depths or not missing:
            depths.setdefault(name, max((depths[need] + 1 for need in images[name].needs), default=0))
            waiting.pop()
        else:
            waiting.extend(missing)
    return depths


def graph_text(config: Config, names: Iterable[str]) -> str:
    """YAML: a list of images, each with what it depends on."""
    wanted = set(names)
    lines: list[str] = []
    for image in config.images:
        if image.name in wanted:
            lines += [f"- image: {_scalar(image.name)}", *_depends_on(image)]
    return "\n".join(lines) + "\n" if lines else "[]\n"


def _depends_on(image: Image) -> list[str]:
    lines = [f"    from: {_scalar(image.base.image)}"] if isinstance(image.base, InternalBase) else []
    imported = dict.fromkeys(one.image for one in image.imports)
    if imported:
        lines += ["    import:", *(f"    - {_scalar(name)}" for name in imported)]
    return ["  dependsOn:", *lines] if lines else []


def _scalar(text: str) -> str:
    """`text` as a YAML scalar; JSON's strings are YAML's."""
    return text if _PLAIN.match(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
