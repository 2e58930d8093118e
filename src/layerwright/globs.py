"""Path globs, translated to regular expressions. A leaf: imports nothing of ours.

Source: werf.yaml reference, "Path filters (globs)"; doublestar 4, "Patterns": `*` and `?` stay inside a path component, `**` as a whole component stands for
any number of them, `[a-z]`, `[^x]` and `[!x]` are classes, `{x,y}` alternatives that may nest, a backslash makes the next character literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

_MOST_ALTERNATIVES = 1000  # what the braces of one glob may expand to


class BadGlob(ValueError):
    """A glob that cannot be read; the text says what is wrong with it."""


class Globs:
    """Several globs as one question: does a path match any of them? Raises BadGlob."""

    __slots__ = ("_matches",)

    def __init__(self, patterns: Iterable[str]) -> None:
        self._matches = _filter_expression(tuple(patterns)).fullmatch

    def match(self, path: bytes | str) -> bool:
        """Whether `path`, relative and clean, is named by a glob or lies below what a glob names; "", "." and "/" are the root."""
        text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
        return self._matches("" if text in (".", "/") else text) is not None


def check_glob(pattern: str) -> None:
    """Raise BadGlob if `pattern` is malformed."""
    _filter_expression((pattern,))


def clean_path(path: str) -> str:
    """`path` without `//`, `.`, inner `..` and trailing slash, by its text alone; "" is "."."""
    rooted = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part == ".." and kept and kept[-1] != "..":
            kept.pop()
        elif part == ".." and rooted:
            continue
        elif part not in ("", "."):
            kept.append(part)
    return "/" * rooted + "/".join(kept) or "."


@lru_cache(maxsize=4096)
def expression(pattern: str, *, braces: bool = True) -> re.Pattern[str]:
    """The regular expression whose `fullmatch` is what `pattern`, as written, matches. Without `braces`, `{` and `}` are ordinary. Raises BadGlob."""
    plain = _without_braces(pattern) if braces else [pattern]
    return re.compile("|".join(dict.fromkeys(_translate(one) for one in plain)), re.DOTALL)


@lru_cache(maxsize=1024)
def _filter_expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(dict.fromkeys(one for pattern in patterns for one in _alternatives(pattern))) or "(?!)", re.DOTALL)


def _alternatives(pattern: str) -> Iterator[str]:
    """The glob itself, and what lies below it once trailing components of only `*` are gone."""
    cleaned = clean_path(pattern)
    parts = cleaned.split("/") if cleaned not in (".", "/") else []
    while parts and parts[-1].strip("*") == "":
        parts.pop()
    trimmed = "/".join(parts).strip("/")
    if not trimmed:
        yield ".*"
        return
    if cleaned.startswith("/"):  # the second alternative of the reference has lost this slash
        yield f"(?:{expression(cleaned).pattern})"
    yield f"(?:{expression(trimmed).pattern})(?:/.*)?"


def _without_braces(pattern: str) -> list[str]:
    """Every glob that `pattern` stands for once one alternative of each pair of braces is chosen."""
    done: list[str] = []
    waiting = [(pattern, 0)]
    while waiting:
        text, start = waiting.pop()
        found = _first_braces(text, start)
        if found is None:
            done.append(text)
        else:
            opening, closing, commas = found
            edges = [opening, *commas, closing]
            chosen = [text[:opening] + text[left + 1 : right] + text[closing + 1 :] for left, right in zip(edges, edges[1:], strict=False)]
            waiting.extend((one, opening) for one in reversed(chosen))
        if len(done) + len(waiting) > _MOST_ALTERNATIVES:
            raise BadGlob(f"its braces stand for more than {_MOST_ALTERNATIVES} alternatives")
    return done


def _first_braces(text: str, start: int) -> tuple[int, int, list[int]] | None:
    """Where the first pair of braces from `start` on opens and closes, and its own commas."""
    at = start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "[":
            at = _class_end(text, at) - 1
        elif text[at] == "}":
            raise BadGlob("a } closes no {; write \\} for the character")
        elif text[at] == "{":
            return at, *_closing_brace(text, at)
        at += 1
    return None


def _closing_brace(text: str, opening: int) -> tuple[int, list[int]]:
    depth, commas, at = 0, [], opening
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "{":
            depth += 1
        elif text[at] == "," and depth == 1:
            commas.append(at)
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at, commas
        at += 1
    raise BadGlob("a { is not closed; write \\{ for the character")


def _class_end(text: str, opening: int) -> int:
    """The index behind the class that opens at `opening`."""
    at = opening + 1
    if text[at : at + 1] in ("^", "!"):
        at += 1
    if text[at : at + 1] == "]":
        raise BadGlob("a class [] is empty; write \\[ for the character")
    while at < len(text) and text[at] != "]":
        at += 2 if text[at] == "\\" else 1
    if at >= len(text):
        raise BadGlob("a [ is not closed; write \\[ for the character")
    return at + 1


def _translate(text: str) -> str:
    """A glob without braces as a regular expression."""
    out: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == "*":
            at = _translate_stars(text, at, out)
        elif character == "[":
            end = _class_end(text, at)
            out.append(_translate_class(text[at + 1 : end - 1]))
            at = end
        elif character == "?":
            out.append("[^/]")
            at += 1
        else:
            at += character == "\\"
            if at >= len(text):
                raise BadGlob("it ends in a single backslash; write \\\\ for the character")
            out.append(re.escape(text[at]))
            at += 1
    return "".join(out)


def _translate_stars(text: str, start: int, out: list[str]) -> int:
    """Append what the stars at `start` stand for, and return the index behind them and the slash they take along."""
    end = start
    while text[end : end + 1] == "*":
        end += 1
    alone = end - start == 2 and (start == 0 or text[start - 1] == "/")
    if alone and end == len(text):
        if out and out[-1] == "/":  # a/** is also a itself
            out[-1] = "(?:/.*)?"
        elif not out or out[-1] != _ANY_COMPONENTS:
            out.append(".*")
        else:
            out[-1] = ".*"
        return end
    if alone and text[end] == "/":
        if not out or out[-1] != _ANY_COMPONENTS:  # **/**/ is **/, and costs less
            out.append(_ANY_COMPONENTS)
        return end + 1
    out.append("[^/]*")
    return end


_ANY_COMPONENTS = "(?:.*/)?"


def _translate_class(inside: str) -> str:
    """The text between [ and ] as a class of Python, which never takes the slash."""
    negated = inside[0] in "^!"
    ranges: list[str] = []
    characters = _class_characters(inside[1:] if negated else inside)
    at = 0
    while at < len(characters):
        first = characters[at][0]
        if at + 2 < len(characters) and characters[at + 1] == ("-", False):
            last = characters[at + 2][0]
            if first <= last:  # a range the wrong way round holds nothing
                ranges.append(f"{re.escape(first)}-{re.escape(last)}")
            at += 3
        else:
            ranges.append(re.escape(first))
            at += 1
    if negated:
        return f"[^/{''.join(ranges)}]"
    return f"(?!/)[{''.join(ranges)}]" if ranges else "(?!)"


def _class_characters(inside: str) -> list[tuple[str, bool]]:
    """The characters of a class, each with whether a backslash made it literal."""
    found = re.findall(r"(\\?)(.)", inside, re.DOTALL)
    return [(character, bool(backslash)) for backslash, character in found]
