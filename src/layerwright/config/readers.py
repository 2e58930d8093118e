"""Readers of single values: what a node must be, and what it becomes. Source: werf.yaml reference, "YAML dialect" (coercion) and "Shared value rules"."""

from __future__ import annotations

import re
from collections.abc import Mapping

from layerwright.config.faults import Faults, listed, quoted
from layerwright.config.nodes import Fields, Items, Node, Scalar
from layerwright.config.schema import Reader, T, Wrong, read_each
from layerwright.globs import BadGlob, check_glob, clean_path

_DURATION = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|ms|s|m|h))+)\Z")


def text(node: Node, name: str, faults: Faults) -> str:
    """Any scalar, by its source text: 1.10 is "1.10"; null is ""."""
    if not isinstance(node, Scalar):
        faults.add(node.position, f"{name} wants one text, and this is {node.shown}", f"write one value: {_last(name)}: VALUE")
        raise Wrong
    return "" if node.is_null else node.text


def string(node: Node, name: str, faults: Faults) -> str:
    """A scalar that is a text for YAML too: 80 and yes need quotes."""
    if not isinstance(node, Scalar) or not node.is_string:
        mend = f'put quotes around it: "{node.text}"' if isinstance(node, Scalar) and not node.is_null else "write a text, in quotes if it is empty"
        faults.add(node.position, f"{name} wants texts, and this is {node.shown}", mend)
        raise Wrong
    return node.text


def filled(node: Node, name: str, faults: Faults) -> str:
    """A text that is not empty."""
    value = text(node, name, faults)
    if not value:
        faults.add(node.position, f"{name} is empty", "write its value, or take the key away")
        raise Wrong
    return value


def flag(node: Node, name: str, faults: Faults) -> bool:
    value = node.boolean if isinstance(node, Scalar) else None
    if value is None:
        faults.add(
            node.position, f"{name} wants true or false, and this is {node.shown}", f"write {_last(name)}: true, or {_last(name)}: false, without quotes"
        )
        raise Wrong
    return value


def integer(node: Node, name: str, faults: Faults) -> int:
    value = node.integer if isinstance(node, Scalar) else None
    if value is None:
        faults.add(
            node.position, f"{name} wants a whole number, and this is {node.shown}", f"write digits without quotes and unit, for example {_last(name)}: 10"
        )
        raise Wrong
    return value


def natural(node: Node, name: str, faults: Faults) -> int:
    value = integer(node, name, faults)
    if value < 0:
        faults.add(node.position, f"{name} wants a number of 0 or more, and this is {value}", "take the minus sign away")
        raise Wrong
    return value


def duration(node: Node, name: str, faults: Faults) -> str:
    """A duration as Go writes it, kept as text; a bare number is nanoseconds."""
    value = text(node, name, faults)
    if not (_DURATION.match(value) or (isinstance(node, Scalar) and node.integer is not None)):
        faults.add(
            node.position,
            f"{name} wants a duration, and this is {quoted(value)}",
            "write numbers with the units h, m, s, ms, us or ns, for example 168h or 1h30m; there is no unit for days",
        )
        raise Wrong
    return value


def absolute_path(node: Node, name: str, faults: Faults) -> str:
    """A path from the root, cleaned."""
    value = text(node, name, faults)
    if not value.startswith("/"):
        faults.add(node.position, f"{name} wants an absolute path, and this is {quoted(value)}", f'begin it with "/": {quoted(clean_path("/" + value))}')
        raise Wrong
    return clean_path(value)


def relative_glob(node: Node, name: str, faults: Faults) -> str:
    """A glob that stays below the directory it is relative to, cleaned and known to be readable."""
    value = string(node, name, faults)
    cleaned = clean_path(value)
    if value.startswith("/") or cleaned == ".." or cleaned.startswith("../"):
        mend = f'write it relative to "add": {quoted(clean_path("/" + value)[1:])}'
        faults.add(node.position, f'{name} wants paths relative to "add", and this is {quoted(value)}', mend)
        raise Wrong
    return _readable_glob(cleaned, node, name, faults)


def any_glob(node: Node, name: str, faults: Faults) -> str:
    return _readable_glob(text(node, name, faults), node, name, faults)


def _readable_glob(pattern: str, node: Node, name: str, faults: Faults) -> str:
    try:
        check_glob(pattern)
    except BadGlob as error:
        faults.add(node.position, f"{name}: {quoted(pattern)} is not a path pattern", str(error))
        raise Wrong from error
    return pattern


def name_or_regexp(node: Node, name: str, faults: Faults) -> str:
    """A literal text, or a regular expression between slashes."""
    value = text(node, name, faults)
    if len(value) > 1 and value.startswith("/") and value.endswith("/"):
        try:
            re.compile(value[1:-1])
        except (re.error, RecursionError, OverflowError) as error:
            faults.add(
                node.position,
                f"{name}: {quoted(value)} is not a regular expression: {error}",
                "correct it, or write the text without slashes around it to take it literally",
            )
            raise Wrong from error
    return value


def choice(*allowed: str) -> Reader[str]:
    """One of the words, in exactly this spelling."""

    def read(node: Node, name: str, faults: Faults) -> str:
        value = text(node, name, faults)
        if value not in allowed:
            faults.add(node.position, f"{name} cannot be {quoted(value)}", f"write one of {listed(allowed)}")
            raise Wrong
        return value

    return read


def many(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """A list; one bare value is not enough."""

    def read_list(node: Node, name: str, faults: Faults) -> tuple[T, ...]:
        if not isinstance(node, Items):
            mend = f"write it as a list: {_last(name)}: [{node.text}]" if isinstance(node, Scalar) else 'begin each item with "- "'
            faults.add(node.position, f"{name} wants a list, and this is {node.shown}", mend)
            raise Wrong
        return read_each(read, node, name, faults)

    return read_list


def one_or_many(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """One value or a list of them."""

    def read_either(node: Node, name: str, faults: Faults) -> tuple[T, ...]:
        if isinstance(node, Fields):
            faults.add(
                node.position,
                f"{name} wants one text or a list of texts, and this is {node.shown}",
                'write a list, one text an item; put quotes around a text that holds ": "',
            )
            raise Wrong
        return read_each(read, node, name, faults) if isinstance(node, Items) else (read(node, name, faults),)

    return read_either


def text_map(node: Node, name: str, faults: Faults) -> Mapping[str, str]:
    """Free keys, each with one text."""
    if not isinstance(node, Fields):
        faults.add(node.position, f"{name} wants names with values, and this is {node.shown}", 'write "NAME: value" below it, indented, one a line')
        raise Wrong
    found: dict[str, str] = {}
    for entry in node.entries.values():
        try:
            found[entry.key] = text(entry.value, f"{name}.{entry.key}", faults)
        except Wrong:
            pass
    return found


def _last(name: str) -> str:
    return name.rpartition(".")[2].removesuffix("[]")
