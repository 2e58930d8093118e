"""From text to nodes with positions: splits werf.yaml into sections and reads each as YAML. The only module that loads PyYAML.

Nodes are plain: what a scalar means is decided later, by the schema. Anchors, merge keys and duplicate keys are settled here.
Source: werf.yaml reference, "Splitting into sections" and "YAML dialect and type coercion".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from layerwright.config.faults import Faults, quoted
from layerwright.config.model import Position
from layerwright.config.nodes import Entry, Fields, Items, Node, Scalar

_SEPARATOR = re.compile(r"^---[ \t\r]*(?:#[^\n]*)?$", re.MULTILINE)
_SOMETHING = re.compile(r"^[ \t\r]*[^#\s]", re.MULTILINE)
_TEMPLATE = re.compile(r"\{\{")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_NODES = 100_000  # of one section, aliases expanded
_MOST_DEPTH = 100
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # the C one is fifteen times faster, and absent from some builds

# What libyaml says, by a part of it, and what usually mends it.
_REMEDIES = (
    ("tab character", "indent with spaces"),
    ("cannot start any token", "quote the text that holds this character, and indent with spaces, not tabs"),
    ("mapping values are not allowed", 'put quotes around a text that holds ": ", or correct the indentation'),
    ("could not find expected ':'", 'end the key of this line with ": ", or indent the line to continue the text above'),
    ("did not find expected key", "align this line with the keys above it"),
    ("did not find expected '-' indicator", 'begin this line with "- " like the other items, or correct its indentation'),
    ("did not find expected ',' or", "close the [ or { before this place, or separate its items with commas"),
    ("unexpected end of stream", "close the quote that is opened before this place"),
    ("did not find expected comment or line break", "quote the text, or leave only one value on this line"),
    ("did not find expected alphabetic or numeric character", "quote a text that begins with * or &"),
    ("did not find expected node content", "write a value here, or take the comma or bracket away"),
)


@dataclass(frozen=True, slots=True)
class Document:
    """The sections that could be read, in order, and the texts of those that could not."""

    sections: tuple[Fields, ...]
    unread: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return not self.unread


def read_document(text: str, file: str, faults: Faults) -> Document:
    """Every section of `text`. What cannot be read is added to `faults`."""
    if _tell_templates(text, file, faults) or _tell_unprintable(text, file, faults):
        return Document((), (text,))
    read = [(_read_section(part, file, line, faults), part) for part, line in _split(text)]
    return Document(tuple(fields for fields, _ in read if fields is not None), tuple(part for fields, part in read if fields is None))


def read_single(text: str, file: str, faults: Faults) -> Fields | None:
    """The one mapping that `text` holds; an empty text is an empty mapping, None a text that cannot be read."""
    if _tell_unprintable(text, file, faults):
        return None
    if not _SOMETHING.search(text):
        return Fields({}, 1, Position(file, 1, 1))
    return _read_section(text, file, 0, faults)


def _split(text: str) -> Iterator[tuple[str, int]]:
    """Each section that is more than comments, with the number of lines before it."""
    begin = line = 0
    for separator in [*_SEPARATOR.finditer(text), None]:
        end = separator.start() if separator else len(text)
        part = text[begin:end]
        if _SOMETHING.search(part):
            yield part, line
        line += part.count("\n")
        if separator:
            begin = separator.end()


def _tell_templates(text: str, file: str, faults: Faults) -> bool:
    found = list(_TEMPLATE.finditer(text))
    if found:
        line = text[found[0].start() :].partition("\n")[0]
        more = f" (and {len(found) - 1} more in this file)" if len(found) > 1 else ""
        faults.unsupported(
            _position_of(text, found[0].start(), file),
            f"Go templates are used here, {quoted(line, 40)}{more}, and they are",
            "write the rendered text into the file",
        )
    return bool(found)


def _tell_unprintable(text: str, file: str, faults: Faults) -> bool:
    found = _UNPRINTABLE.search(text)
    if found:
        faults.add(
            _position_of(text, found.start(), file),
            f"the character U+{ord(found[0]):04X} is not allowed in YAML",
            f'write it as "\\x{ord(found[0]):02x}" within double quotes, and save the file as UTF-8'
            if ord(found[0]) < 256
            else "take it away, and save the file as UTF-8",
        )
    return found is not None


def _position_of(text: str, index: int, file: str) -> Position:
    return Position(file, text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _read_section(text: str, file: str, lines_before: int, faults: Faults) -> Fields | None:
    composer = _Composer(file, lines_before, faults)
    try:
        node = composer.compose(text)
    except yaml.MarkedYAMLError as error:
        composer.tell(error)
        return None
    except _CannotGoOn:
        return None
    if not isinstance(node, Fields):
        faults.add(
            node.position, f"a section must be keys with values, and this is {node.shown}", 'begin it with one of "configVersion:", "image:" and "dockerfile:"'
        )
        return None
    return node


class _CannotGoOn(Exception):
    """A fault that makes the rest of the section unreadable, told already."""


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet. `children` of a mapping are its keys and values in turn."""

    mapping: bool
    anchor: str | None
    position: Position
    children: list[Node] = field(default_factory=list)


class _Composer:
    """Builds the nodes of one section from the parser's events, without recursion: depth is the file's choice, our stack is not."""

    def __init__(self, file: str, lines_before: int, faults: Faults) -> None:
        self._file = file
        self._lines_before = lines_before
        self._faults = faults
        self._anchors: dict[str, Node | None] = {}  # None: not closed yet

    def compose(self, text: str) -> Node:
        """The first YAML document of `text`; warns if there are more."""
        loader = _Loader(text)
        try:
            root = self._compose_document(loader)
            self._warn_of_rest(loader)
        finally:
            loader.dispose()
        return root

    def tell(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        position = self._position(mark) if mark else Position(self._file, self._lines_before + 1, 1)
        problem = f"{error.problem or 'it cannot be read'}{f' {error.context}' if error.context else ''}"
        remedy = next((mend for part, mend in _REMEDIES if part in problem), "look for a missing quote, colon or indentation in this line and the one before")
        self._faults.add(position, f"this is not YAML: {problem}", remedy)

    def _position(self, mark: Any) -> Position:
        return Position(self._file, self._lines_before + mark.line + 1, mark.column + 1)

    def _compose_document(self, loader: Any) -> Node:
        waiting: list[_Open] = []
        while True:
            event = loader.get_event()
            node: Node
            if isinstance(event, yaml.ScalarEvent):
                node = self._scalar(event)
            elif isinstance(event, yaml.AliasEvent):
                node = self._aliased(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._open(event, waiting)
                continue
            elif isinstance(event, yaml.CollectionEndEvent):
                node = self._closed(waiting.pop())
            elif isinstance(event, yaml.StreamEndEvent):
                return Scalar("", False, 1, Position(self._file, self._lines_before + 1, 1))
            else:
                continue
            if not waiting:
                return node
            waiting[-1].children.append(node)

    def _warn_of_rest(self, loader: Any) -> None:
        """werf reads only the first document of a section and drops the rest without a word; we say the word."""
        loader.get_event()
        try:
            event = loader.get_event()
            mark = None if isinstance(event, yaml.StreamEndEvent) else event.start_mark
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
        if mark is not None:
            self._faults.warn(
                self._position(mark),
                'what follows here is not read: a section ends at "..." and at "--- text"; begin a new section with "---" alone on its line',
            )

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        tag = event.tag or ""
        plain = not event.style and (not tag or (tag.startswith("tag:yaml.org,2002:") and tag != "tag:yaml.org,2002:str"))
        position = self._position(event.start_mark)
        node = Scalar(event.value, not plain, 1, position, block=event.style in ("|", ">"))
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _aliased(self, event: yaml.AliasEvent) -> Node:
        position = self._position(event.start_mark)
        anchor = str(event.anchor)
        if anchor not in self._anchors:
            self._refuse(
                position, f"no anchor &{anchor} stands before this alias in the same section", "define the anchor above it: anchors do not reach across ---"
            )
        node = self._anchors[anchor]
        if node is None:
            self._refuse(position, f"the value of anchor &{anchor} contains itself", "take the alias out of the value that the anchor names")
        return node

    def _open(self, event: yaml.CollectionStartEvent, waiting: list[_Open]) -> None:
        position = self._position(event.start_mark)
        if len(waiting) >= _MOST_DEPTH:
            self._refuse(position, f"this is nested more than {_MOST_DEPTH} levels deep", "close the brackets before it")
        waiting.append(_Open(isinstance(event, yaml.MappingStartEvent), event.anchor, position))
        if event.anchor:
            self._anchors[event.anchor] = None

    def _closed(self, open_: _Open) -> Node:
        size = 1 + sum(child.size for child in open_.children)
        if size > _MOST_NODES:
            self._refuse(
                open_.position, f"this section holds more than {_MOST_NODES} values once its aliases are replaced", "repeat less through anchors and aliases"
            )
        node = self._fields(open_, size) if open_.mapping else Items(tuple(open_.children), size, open_.position)
        if open_.anchor:
            self._anchors[open_.anchor] = node
        return node

    def _refuse(self, position: Position, what: str, mend: str) -> NoReturn:
        self._faults.add(position, what, mend)
        raise _CannotGoOn

    def _fields(self, open_: _Open, size: int) -> Fields:
        entries: dict[str, Entry] = {}
        merged: set[str] = set()
        for key, value in zip(open_.children[::2], open_.children[1::2], strict=True):
            if not isinstance(key, Scalar):
                self._faults.add(key.position, f"a key must be a text, and this is {key.shown}", "write the key as one word, and its value behind a colon")
            elif key.text == "<<" and not key.quoted:
                for entry in self._merged(key, value):
                    merged.add(entry.key)
                    self._enter(entries, entry, merged)
            else:
                self._enter(entries, Entry(key.text, key.position, value), merged)
        return Fields(entries, size, open_.position)

    def _enter(self, entries: dict[str, Entry], entry: Entry, merged: set[str]) -> None:
        first = entries.setdefault(entry.key, entry)
        if first is not entry:
            what = f"the key {quoted(entry.key)} is here twice, first on line {first.position.line}"
            mend = "keep one of the two" + ("; what comes in through << cannot be written again" if entry.key in merged else "")
            self._faults.add(entry.position, what, mend)

    def _merged(self, key: Scalar, value: Node) -> Iterator[Entry]:
        """The entries that `<<: value` brings, placed where the << stands."""
        for source in value.items if isinstance(value, Items) else (value,):
            if isinstance(source, Fields):
                yield from (Entry(one.key, key.position, one.value) for one in source.entries.values())
            else:
                self._faults.add(
                    key.position,
                    f"<< takes keys with values or a list of such, and this is {source.shown}",
                    "give it an alias of a mapping, for example <<: *common",
                )
