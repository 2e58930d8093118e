"""From a document to the project's images: tells sections apart and parses each. Source: werf.yaml reference, "Recognition" and "Meta section"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layerwright.config.document import Document
from layerwright.config.faults import Faults, quoted, suggestion
from layerwright.config.giterminism import Permissions
from layerwright.config.known import known_names
from layerwright.config.model import Image, Position
from layerwright.config.nodes import Entry, Fields
from layerwright.config.parse_image import Surroundings, parse_image
from layerwright.config.parse_meta import Meta, parse_meta

_MARKERS = ("configVersion", "dockerfile", "image", "artifact")


def parse_document(document: Document, file: str, permissions: Permissions, proposed_name: str, faults: Faults) -> tuple[str, tuple[Image, ...]]:
    """The project's name and its images in the file's order. `proposed_name` is what to call a project that has no meta section."""
    metas, images, strangers = _sorted_out(document)
    known = known_names(document.sections, document.unread)
    if any(_mistyped_marker(fields) for fields in strangers):  # `images: a` hides the name a
        known = replace(known, whole=False)
    for fields in strangers:
        _tell_stranger(fields, faults)
    meta = _one_meta(metas, faults)
    if meta is None and document.whole and all("dockerfile" in fields.entries for fields in strangers):
        example = f"begin the file with\n    configVersion: 1\n    project: {proposed_name}\n    ---"
        faults.add(Position(file, 1, 1), "the section with configVersion and project is missing", example)
    around = Surroundings(meta=meta, known=known, permissions=permissions)
    found = tuple(image for fields in images for image in parse_image(fields, around, faults))
    return meta.project if meta else "", found


def _sorted_out(document: Document) -> tuple[list[Fields], list[Fields], list[Fields]]:
    """Meta sections, sections of images we build, and the others."""
    metas: list[Fields] = []
    images: list[Fields] = []
    strangers: list[Fields] = []
    for fields in document.sections:
        marker = next((one for one in _MARKERS if one in fields.entries), None)
        kind = metas if marker == "configVersion" else images if marker in ("image", "artifact") else strangers
        kind.append(fields)
    return metas, images, strangers


def _tell_stranger(fields: Fields, faults: Faults) -> None:
    if "dockerfile" in fields.entries:
        faults.unsupported(fields.entries["dockerfile"].position, "images from a Dockerfile are", 'write the image with "from", "git" and "shell"')
        return
    what = 'this section has none of "configVersion", "image" and "dockerfile", so its kind is unknown'
    mistyped = _mistyped_marker(fields)
    if mistyped is not None:
        entry, meant = mistyped
        faults.add(entry.position, what, f"did you mean {quoted(meant)} by {quoted(entry.key)}?")
    elif "project" in fields.entries:
        faults.add(fields.position, what, 'add "configVersion: 1" next to "project"')
    else:
        faults.add(fields.position, what, 'name the image of this section: "image: NAME"')


def _mistyped_marker(fields: Fields) -> tuple[Entry, str] | None:
    """The key that was likely meant to say the section's kind, and what it should be."""
    if "dockerfile" in fields.entries:
        return None
    return next(((entry, meant) for entry in fields.entries.values() if (meant := suggestion(entry.key, _MARKERS))), None)


def _one_meta(sections: Sequence[Fields], faults: Faults) -> Meta | None:
    parsed = [parse_meta(one, faults) for one in sections]
    for fields in sections[1:]:
        position = fields.entries["configVersion"].position
        first = sections[0].entries["configVersion"].position
        faults.add(position, f"configVersion is here twice, first on line {first.line}", "put all project settings into one section")
    return parsed[0] if parsed else None
