"""What an image starts from. Source: werf.yaml reference, "Base image"."""

from __future__ import annotations

from typing import Protocol

from layerwright.config.faults import Faults, quoted, suggestion
from layerwright.config.known import KnownNames
from layerwright.config.model import Base, ExternalBase, InternalBase, Position, ScratchBase
from layerwright.config.nodes import Fields
from layerwright.errors import UsageError
from layerwright.oci.reference import has_version, parse_reference

FORMS = ("from", "fromImage", "fromArtifact", "fromImageArtifact")


class BaseKeys(Protocol):
    """What is needed of a section's keys."""

    @property
    def fields(self) -> Fields: ...
    @property
    def values(self) -> dict[str, object]: ...
    @property
    def fromLatest(self) -> bool: ...
    def has(self, name: str) -> bool: ...
    def at(self, name: str) -> Position: ...
    def value_at(self, name: str) -> Position: ...


def check_bases(keys: BaseKeys, faults: Faults) -> None:
    """That exactly one form of base is written."""
    written = [form for form in FORMS if keys.values.get(form)]
    if not written and not any(keys.has(form) and form not in keys.values for form in FORMS):
        place = keys.at("artifact" if keys.has("artifact") else "image")
        faults.add(place, "this image has no base", 'write "from: NAME:TAG", "from: NAME" of an image of this file, or "from: scratch"')
    for form in written[1:]:
        faults.add(keys.at(form), f"this image has both {quoted(written[0])} and {quoted(form)}", 'keep one of them, best as "from"')


def base_of(name: str, keys: BaseKeys, known: KnownNames, faults: Faults) -> Base:
    """The base of the image called `name`; scratch stands for one that cannot be told."""
    form = next((one for one in FORMS if keys.values.get(one)), None)
    if form is None:
        return ScratchBase(position=keys.at("image"))
    wanted, position = str(keys.values[form]), keys.at(form)
    if form == "from" and wanted == "scratch":
        return ScratchBase(position=position)
    if form == "from" and wanted == name:  # as old configurations meant it: `image: node` is built on node:latest
        return _external(wanted, keys, faults)
    if wanted == name:
        faults.add(keys.value_at(form), f"the image {quoted(name)} cannot be built on itself", f'for the image of a registry write "from: {wanted}:TAG"')
        return ScratchBase(position=position)
    if wanted in known.names:
        return InternalBase(image=wanted, position=position)
    if form in ("from", "fromImage"):
        return _external(wanted, keys, faults, form)
    if known.whole:
        meant = suggestion(wanted, known.names)
        mend = f"did you mean {quoted(meant)}?" if meant else f'add a section with "image: {wanted}", or write "from" for an image of a registry'
        faults.add(keys.value_at(form), f"no image of this file is named {quoted(wanted)}", mend)
    return ScratchBase(position=position)


def _external(text: str, keys: BaseKeys, faults: Faults, form: str = "from") -> Base:
    try:
        parse_reference(text)
    except UsageError as error:
        faults.add(keys.value_at(form), f"{form}: {error.what}", error.mend)
    return ExternalBase(text=text if has_version(text) else f"{text}:latest", latest=keys.fromLatest, position=keys.at(form))
