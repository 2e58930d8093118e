"""The help of every command: its width, its examples, and that the table of commands is whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from layerwright.cli import json_log
from layerwright.cli.help import TASKS, WIDTH, examples, summary
from layerwright.cli.main import COMMANDS, root

DOCS = Path(__file__).parent.parent.parent / "docs"


def commands(group: click.Group = root, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())
LEAVES = {path: command for path, command in ALL.items() if not isinstance(command, click.Group) or command.invoke_without_command}


def shown(*path: str) -> str:
    ran = CliRunner().invoke(root, [*path, "--help"], prog_name="layerwright", terminal_width=200)
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize("path", [(), *ALL], ids=" ".join)
def test_help_fits_into_eighty_columns(path: tuple[str, ...]) -> None:
    text = shown(*path)
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert text.startswith(f"Usage: layerwright {' '.join(path)}".rstrip())


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_example_is_a_command_that_can_be_given(path: tuple[str, ...]) -> None:
    lines = examples(LEAVES[path])
    assert lines, "there is none"
    assert f"layerwright {' '.join(path)}" in lines[0]
    assert all(line in shown(*path) for line in lines)
    for line in lines:
        call = re.split(r"\s{2,}|\s[|<>]", line)[0]
        parse(shlex.split(call)[1:])


def parse(words: list[str]) -> None:
    """Raises UsageError where the command line would."""
    context = root.make_context("layerwright", words)
    command: click.Command = root
    while isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_command_says_in_one_sentence_what_it_does(path: tuple[str, ...]) -> None:
    said = summary(ALL[path])
    assert said[0].isupper()
    assert 8 < len(said) <= 120


def test_the_help_of_all_has_every_command_once_and_under_a_task() -> None:
    text = shown()
    for name in COMMANDS:
        assert len(re.findall(rf"^  {name} ", text, re.MULTILINE)) == 1, name
        assert any(name in task for task in TASKS.values()), f"{name} belongs to a task of cli.help"
    assert "More:" not in text


def test_every_option_says_what_it_is_for() -> None:
    silent = [
        f"{' '.join(path)} {param.opts[0]}"
        for path, command in ALL.items()
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden and not param.help
    ]
    assert silent == []


def test_the_documented_events_are_those_that_are_written() -> None:
    table = re.findall(r"^\| `(\w+)` \| [^|]* \| (.*) \|$", (DOCS / "terminal.md").read_text(), re.MULTILINE)
    documented = {name: tuple(re.findall(r"`(\w+)`", fields)) for name, fields in table}
    written = {name: event._fields for event, name in json_log.NAMES.items()} | {"error": json_log.ERROR_FIELDS, "host_cleanup": json_log.HOST_CLEANUP_FIELDS}  # type: ignore[attr-defined]
    assert documented == written
