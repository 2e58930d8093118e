"""The schema's own language: a section of werf.yaml is a class, its keys are attributes, and each key names the reader of its value.

    class GitKeys(Table):
        title = "git"
        add = Key(absolute_path, "/")
        url = Unsupported("remote git repositories are", "add this repository as a submodule")

    keys = GitKeys(fields, faults)      # every fault of this section is told now
    keys.add                            # "/", or what is written, as a cleaned path

Source: werf.yaml reference, "YAML dialect and type coercion" and "Unknown keys".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar, overload

from layerwright.config.faults import Faults, quoted, suggestion
from layerwright.config.model import Position
from layerwright.config.nodes import Fields, Items, Node, is_null

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
TableT = TypeVar("TableT", bound="Table")


class Wrong(Exception):
    """The value cannot be used; its fault is told already."""


class Reader(Protocol[T_co]):
    """Makes a value of a node, or tells a fault about the key `name` and raises Wrong."""

    def __call__(self, node: Node, name: str, faults: Faults) -> T_co: ...


class Key(Generic[T]):
    """One key of a table. Absent and null give `default`; `required` says how to mend its absence. `name` is for keys that Python reserves."""

    def __init__(self, read: Reader[T], default: T, *, required: str = "", name: str = "") -> None:
        self.read = read
        self.default = default
        self.required = required
        self.name = name

    def __set_name__(self, owner: type[Table], attribute: str) -> None:
        self.name = self.name or attribute

    @overload
    def __get__(self, table: None, owner: type[Table]) -> Key[T]: ...
    @overload
    def __get__(self, table: Table, owner: type[Table]) -> T: ...
    def __get__(self, table: Table | None, owner: type[Table]) -> Key[T] | T:
        if table is None:
            return self
        value: T = table.values.get(self.name, self.default)
        return value


class Unsupported(Key[None]):
    """A key that werf knows and we do not act upon yet: refused by name, unless its value is empty."""

    def __init__(self, subject: str, instead: str, *, name: str = "") -> None:
        super().__init__(_nothing, None, name=name)
        self.subject = subject
        self.instead = instead


class Table:
    """A map of keys, read as its class says. Unknown keys are faults, or warnings if `lenient`."""

    title: ClassVar[str] = ""
    lenient: ClassVar[bool] = False
    keys: ClassVar[Mapping[str, Key[Any]]] = {}

    def __init_subclass__(cls) -> None:
        cls.keys = {key.name: key for base in reversed(cls.__mro__) for key in vars(base).values() if isinstance(key, Key)}

    def __init__(self, fields: Fields, faults: Faults) -> None:
        self.fields = fields
        self.position = fields.position
        self.values: dict[str, Any] = {}
        for name, key in self.keys.items():
            self._read(name, key, faults)
        for entry in fields.entries.values():
            if entry.key not in self.keys:
                self._tell_unknown(entry.key, entry.position, faults)

    def has(self, name: str) -> bool:
        """Whether the key is written with a value other than null."""
        return name in self.fields.entries and not is_null(self.fields.entries[name].value)

    def at(self, name: str) -> Position:
        """Where the key stands, or the section if it is absent."""
        return self.fields.entries[name].position if name in self.fields.entries else self.position

    def value_at(self, name: str) -> Position:
        return self.fields.entries[name].value.position if name in self.fields.entries else self.position

    @classmethod
    def shown(cls, name: str) -> str:
        return f"{cls.title}.{name}" if cls.title else name

    def _read(self, name: str, key: Key[Any], faults: Faults) -> None:
        if not self.has(name):
            if key.required:
                faults.add(self.at(name), f"{self.shown(name)} is missing", key.required)
            return
        entry = self.fields.entries[name]
        if isinstance(key, Unsupported):
            if not _is_empty(entry.value):
                faults.unsupported(entry.position, f"{self.shown(name)}: {key.subject}", key.instead)
            return
        try:
            self.values[name] = key.read(entry.value, self.shown(name), faults)
        except Wrong:
            pass

    def _tell_unknown(self, name: str, position: Position, faults: Faults) -> None:
        place = f" in {self.title}" if self.title else ""
        meant = suggestion(name, self.keys)
        mend = f"did you mean {quoted(meant)}?" if meant else f"take it away; known{place or ' here'} are {', '.join(self.keys)}"
        if self.lenient:
            faults.warn(position, f"the key {quoted(name)} is unknown{place} and has no effect: {mend}")
        else:
            faults.add(position, f"the key {quoted(name)} is unknown{place}", mend)


def section(table: type[TableT]) -> Reader[TableT]:
    """A map of keys."""

    def read(node: Node, name: str, faults: Faults) -> TableT:
        if not isinstance(node, Fields):
            example = next(iter(table.keys))
            faults.add(node.position, f"{name} wants a map of keys, and this is {node.shown}", f'write its keys below it, indented, for example "{example}: …"')
            raise Wrong
        return table(node, faults)

    return read


def sections(table: type[TableT]) -> Reader[tuple[TableT, ...]]:
    """A list of maps."""
    one = section(table)

    def read(node: Node, name: str, faults: Faults) -> tuple[TableT, ...]:
        if not isinstance(node, Items):
            faults.add(node.position, f"{name} wants a list, and this is {node.shown}", 'begin each item with "- "')
            raise Wrong
        return read_each(one, node, f"{name}[]", faults)

    return read


def read_each(read: Reader[T], node: Items, name: str, faults: Faults) -> tuple[T, ...]:
    """Every item that can be read; the faults of all the others are told."""
    found: list[T] = []
    for item in node.items:
        try:
            found.append(read(item, name, faults))
        except Wrong:
            pass
    return tuple(found)


def _nothing(node: Node, name: str, faults: Faults) -> None:
    return None


def _is_empty(node: Node) -> bool:
    """Nothing that could ask for the unsupported: no text, no items, no keys."""
    if isinstance(node, Items):
        return not node.items
    return not node.entries if isinstance(node, Fields) else not node.text
