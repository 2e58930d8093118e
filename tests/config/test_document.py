"""Sections, positions, and what YAML itself can get wrong."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from layerwright.config import document
from layerwright.config.document import read_document
from layerwright.config.faults import Faults
from layerwright.config.nodes import Fields, Items, Node, Scalar


def plain(node: Node) -> Any:
    """Texts, lists and dicts."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Items):
        return [plain(one) for one in node.items]
    return {entry.key: plain(entry.value) for entry in node.entries.values()}


def sections_of(text: str) -> list[Any]:
    faults = Faults()
    read = read_document(text, "werf.yaml", faults)
    assert faults.found == []
    return [plain(one) for one in read.sections]


def faults_in(text: str) -> list[str]:
    faults = Faults()
    assert not read_document(text, "f", faults).whole or faults.found
    return [str(one) for one in faults.found]


@pytest.fixture(params=["C", "pure"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds for both of PyYAML's parsers."""
    if request.param == "pure":
        monkeypatch.setattr(document, "_Loader", yaml.BaseLoader)


@pytest.mark.parametrize("line", ["---", "---   ", "--- # note", "---#note", "---\t\r"])
def test_a_separator_parts_sections(line: str) -> None:
    assert sections_of(f"a: 1\n{line}\nb: 2\n") == [{"a": "1"}, {"b": "2"}]


@pytest.mark.parametrize("line", [" ---", "----", "--"])
def test_what_looks_like_a_separator_does_not_part(line: str) -> None:
    assert sections_of(f"a: x\n {line}\n") == [{"a": f"x {line.strip()}"}]


def test_empty_sections_are_dropped_wherever_they_stand() -> None:
    assert sections_of("---\n# nothing\n---\n\n---\na: 1\n---\n---\n  # x\n") == [{"a": "1"}]
    assert sections_of("") == []


def test_a_separator_cuts_even_a_block_scalar() -> None:
    assert sections_of("a: |\n  x\n---\nb: 1\n") == [{"a": "x\n"}, {"b": "1"}]


def test_lines_end_as_on_windows_too() -> None:
    assert sections_of("a: 1\r\n---\r\nb: 2\r\n") == [{"a": "1"}, {"b": "2"}]


def test_positions_count_from_the_beginning_of_the_file() -> None:
    read = read_document("# x\n---\na: 1\n---\nö: [é, {b: 1}]\n", "f", Faults())
    entry = read.sections[1].entries["ö"]
    assert isinstance(entry.value, Items)
    assert str(entry.position) == "f:5:1"
    assert [str(one.position) for one in entry.value.items] == ["f:5:5", "f:5:8"]


def test_what_follows_the_first_document_of_a_section_is_warned_of() -> None:
    faults = Faults()
    read = read_document("a: 1\n...\nb: 2\n", "f", faults)
    assert [plain(one) for one in read.sections] == [{"a": "1"}]
    assert str(faults.warnings[0].position) == "f:3:1"


def test_anchors_and_merge_keys_are_settled() -> None:
    assert sections_of("x: &x {a: 1}\ny: {<<: *x, b: 2}\nz: {<<: [*x, {c: 3}]}\n") == [{"x": {"a": "1"}, "y": {"a": "1", "b": "2"}, "z": {"a": "1", "c": "3"}}]


def test_a_quoted_merge_key_is_a_key() -> None:
    assert sections_of('"<<": 1\n') == [{"<<": "1"}]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 'f:4:3: the key "c" is here twice, first on line 3, keep one of the two'),
        ("1: a\n'1': b\n", 'f:2:1: the key "1" is here twice'),
        ("x: &x {a: 1}\ny:\n  a: 2\n  <<: *x\n", 'f:4:3: the key "a" is here twice, first on line 3'),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  a: 2\n", 'f:4:3: the key "a" is here twice, first on line 3'),
        ("<<: 1\n", "f:1:1: << takes keys with values or a list of such, and this is the number 1, give it an alias"),
        ("? [a]\n: b\n", "f:1:3: a key must be a text, and this is a list, write the key as one word"),
        ("a: *b\n", "f:1:4: no anchor &b stands before this alias in the same section, define the anchor above it"),
        ("a: &a 1\n---\nb: *a\n", "f:3:4: no anchor &a stands before this alias in the same section"),
        ("a: &a [*a]\n", "f:1:8: the value of anchor &a contains itself"),
        ("a: 1\n---\n- x\n", "f:3:1: a section must be keys with values, and this is a list, begin it with one of"),
        ("just text\n", "f:1:1: a section must be keys with values, and this is a text"),
        ("a: 1\n\tb: 2\n", "f:2:1: this is not YAML: found "),
        ("a: b: c\n", "f:1:5: this is not YAML: mapping values are not allowed"),
        ("a: [1, 2\nb: 1\n", "f:2:2: this is not YAML: "),
        ('a: "x\n', "f:2:1: this is not YAML: found unexpected end of stream while scanning a quoted scalar, close the quote that is opened"),
        ("a: 1\n---\nb:\n  c: 1\n d: 2\n", "f:5:2: this is not YAML: "),
        ("a: x\x07\n", 'f:1:5: the character U+0007 is not allowed in YAML, write it as "\\x07"'),
        (
            "a: 1\nb: {{ .Values.x }}\nc: {{ y }}\n",
            'f:2:4: Go templates are used here, "{{ .Values.x }}" (and 1 more in this file), and they are not supported yet',
        ),
        ("a: " + "[" * 101 + "]" * 101, "f:1:103: this is nested more than 100 levels deep"),
    ],
)
def test_what_is_wrong_with_the_yaml_is_told_with_its_place(text: str, fault: str) -> None:
    assert faults_in(text)[0].startswith(fault)


def test_every_section_that_cannot_be_read_is_told_and_the_others_are_read() -> None:
    faults = Faults()
    read = read_document("a: b: c\n---\nx: 1\n---\n[\n", "f", faults)
    assert [plain(one) for one in read.sections] == [{"x": "1"}]
    assert not read.whole
    assert [one.position.line for one in faults.found] == [1, 6]


def test_a_bomb_of_aliases_is_refused_before_it_bursts() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (fault,) = faults_in("\n".join(lines))
    assert "holds more than 100000 values once its aliases are replaced" in fault


def test_depth_costs_no_recursion() -> None:
    assert "nested more than" in faults_in("- " * 50_000)[0]


@given(st.text("ab:-[]{}&*<!|>'\"#?, \n\t%@`~1.\\", max_size=60))
def test_any_text_gives_sections_or_faults_with_places(text: str) -> None:
    faults = Faults()
    read = read_document(text, "f", faults)
    assert read.whole or faults.found
    for fault in faults.found:
        assert fault.position.line <= text.count("\n") + 2
        assert fault.what
        assert fault.mend
    assert all(isinstance(one, Fields) for one in read.sections)


@pytest.mark.parametrize(
    ("text", "boolean", "integer", "string"),
    [
        ("y", True, None, False),
        ("Off", False, None, False),
        ("oN", None, None, True),
        ("'yes'", None, None, True),
        ("012", None, 10, False),
        ("0o17", None, 15, False),
        ("-0x1F", None, -31, False),
        ("0b11", None, 3, False),
        ("1_000", None, 1000, False),
        ("1.7", None, 1, False),
        ("-1.7", None, -1, False),
        ("1e3", None, 1000, False),
        (".inf", None, None, False),
        ("089", None, 89, False),
        ("12:30", None, None, True),
        ("2020-01-01", None, None, True),
        ("~", None, None, False),
        ("'~'", None, None, True),
        ("!!str 12", None, None, True),
        ("!mine 12", None, None, True),
        ("|\n  12", None, None, True),
        ("_", None, None, True),
        ("0x", None, None, True),
    ],
)
def test_a_scalar_means_what_yaml_1_1_says(text: str, boolean: bool | None, integer: int | None, string: bool) -> None:
    node = read_document(f"a: {text}\n", "f", Faults()).sections[0].entries["a"].value
    assert isinstance(node, Scalar)
    assert (node.boolean, node.integer, node.is_string) == (boolean, integer, string)
