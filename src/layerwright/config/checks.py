"""What only all images together show: names, cycles, platforms. Source: werf.yaml reference, "Checks across images"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from layerwright.config.faults import Faults, listed, quoted
from layerwright.config.model import Image, InternalBase, Position


def check_images(images: Sequence[Image], faults: Faults, *, host_platform: str) -> None:
    """Tell every fault of the images taken together."""
    by_name = _check_names(images, faults)
    _check_nameless(images, faults)
    _check_cycles(by_name, faults)
    for image in images:
        _check_platforms(image, by_name, faults, host_platform)


def _check_names(images: Sequence[Image], faults: Faults) -> Mapping[str, Image]:
    by_name: dict[str, Image] = {}
    for image in images:
        first = by_name.setdefault(image.name, image)
        if first is not image:
            what = f"the name {quoted(image.shown)} is taken: line {first.position.line} has an image of this name"
            faults.add(image.position, what, "give each image and artifact a name of its own")
        if image.name == "scratch":
            faults.add(image.position, 'an image cannot be named "scratch": "from: scratch" means no base at all', "give it another name")
    return by_name


def _check_nameless(images: Sequence[Image], faults: Faults) -> None:
    nameless = next((one for one in images if not one.name), None)
    if nameless and sum(one.final for one in images) > 1:
        faults.add(nameless.position, "an image without a name must be the only final one", 'name it, or write "final: false" into the others')


def _references(image: Image) -> Iterator[tuple[str, Position, str]]:
    """Every image of the file that `image` names: name, where, and as what."""
    if isinstance(image.base, InternalBase):
        yield image.base.image, image.base.position, "base"
    for one in image.imports:
        yield one.image, one.position, "import source"


def _check_cycles(images: Mapping[str, Image], faults: Faults) -> None:
    """One fault for each way back to an image, where the reference that closes it stands."""
    done: set[str] = set()
    for start in images:
        if start in done:
            continue
        way = [start]
        waiting = [_references(images[start])]
        while waiting:
            name, position, _ = next(waiting[-1], ("", None, ""))
            if position is None:
                done.add(way.pop())
                waiting.pop()
            elif name in way:
                cycle = [images[one].shown for one in [*way[way.index(name) :], name]]
                faults.add(
                    position,
                    f"images need each other in a circle: {' -> '.join(cycle)}",
                    "take one of these from or import away, or move what both need into an image of its own",
                )
            elif name in images and name not in done:
                way.append(name)
                waiting.append(_references(images[name]))


def _check_platforms(image: Image, images: Mapping[str, Image], faults: Faults, host: str) -> None:
    """Each platform of an image is built from the same platform of what it names, and of that alone."""
    wanted = image.platforms or (host,)
    for name, position, role in _references(image):
        offered = (images[name].platforms or (host,)) if name in images else wanted
        if missing := [one for one in wanted if one not in offered]:
            what = f"{quoted(image.shown)} is for {listed(missing)}, and its {role} {quoted(name)} is for {listed(offered)} only"
            faults.add(position, what, f'write "platform: [{", ".join([*offered, *missing])}]" into {quoted(name)}, or the same "platform" into both images')
