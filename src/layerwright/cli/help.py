"""What `--help` shows: one sentence, the usage, examples, the options in groups, and their twins in the environment. Loaded for help only."""

from __future__ import annotations

import inspect
import textwrap

import click

# Which commands serve which task; what stands in none is listed last.
TASKS = {
    "Build and use images": ("build", "run", "export", "stage", "introspect"),
    "Understand": ("plan", "explain", "config", "completion", "version"),
    "Keep base images, log in": ("image", "cr", "lock"),
    "Free disk space": ("host", "cleanup", "purge"),
}
GROUPS = ("", "Project", "Build", "Registry", "Log")
WIDTH = 80


def summary(command: click.Command) -> str:
    """The first sentence of what the command says of itself."""
    text = " ".join(_paragraphs(command)[0].split())
    end = text.find(". ")
    return (text if end < 0 else text[:end]).removesuffix(".")


def _paragraphs(command: click.Command) -> list[str]:
    text = inspect.cleandoc(command.help or "").partition("\f")[0]
    return [part for part in text.split("\n\n") if part.strip()] or [""]


def examples(command: click.Command) -> list[str]:
    """The lines of the docstring that show how the command is called."""
    shown = [part.removeprefix("\b\n") for part in _paragraphs(command) if part.startswith("\b")]
    return [line for part in shown for line in part.splitlines() if line.startswith("layerwright ")]


def write_help(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The whole help of one command, at most WIDTH columns wide."""
    formatter.width = min(formatter.width, WIDTH)
    command.format_usage(ctx, formatter)
    _write_text(command, formatter)
    _write_examples(command, formatter)
    _write_options(command, ctx, formatter)
    _write_twins(command, ctx, formatter)


def write_group_help(group: click.Group, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    formatter.width = min(formatter.width, WIDTH)
    group.format_usage(ctx, formatter)
    _write_text(group, formatter)
    commands = {name: found for name in group.list_commands(ctx) if (found := group.get_command(ctx, name)) is not None and not found.hidden}
    _write_examples(group, formatter)
    for title, names in _tasks(list(commands)).items() if ctx.parent is None else (("Commands", list(commands)),):
        with formatter.section(title):
            formatter.write_dl([(name, summary(commands[name])) for name in names], col_max=20)
    _write_options(group, ctx, formatter)
    formatter.write_paragraph()
    formatter.write_text(f"`{ctx.command_path} COMMAND --help` tells more of a command.")


def _tasks(names: list[str]) -> dict[str, list[str]]:
    placed = {title: [name for name in task if name in names] for title, task in TASKS.items()}
    rest = [name for name in names if not any(name in task for task in placed.values())]
    return {title: task for title, task in ({**placed, "More": rest}).items() if task}


def _write_text(command: click.Command, formatter: click.HelpFormatter) -> None:
    for part in _paragraphs(command):
        if not part.startswith("\b"):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(part)
        elif not any(line.startswith("layerwright ") for line in part.splitlines()):
            formatter.write_paragraph()
            formatter.write(textwrap.indent(part.removeprefix("\b\n"), "  ") + "\n")


def _write_examples(command: click.Command, formatter: click.HelpFormatter) -> None:
    if shown := examples(command):
        with formatter.section("Examples"):
            for line in shown:
                formatter.write(f"  {line}\n")


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    records: dict[str, list[tuple[str, str]]] = {name: [] for name in GROUPS}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None:
            records.setdefault(getattr(param, "group", ""), []).append(record)
    for name, rows in records.items():
        if rows:
            with formatter.section(f"{name} options" if name else "Options"):
                formatter.write_dl(rows, col_max=27)


def _write_twins(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """How options are given as variables: the rule, and what is an exception to it."""
    options = [param for param in command.params if isinstance(param, click.Option) and param.envvar and not param.hidden]
    if not options:
        return
    ours = [_long(one) for one in options if not any(name.startswith("WERF_") for name in _variables(one))]
    others = [f"{_long(one)} also {name}" for one in options for name in _variables(one) if not name.startswith(("WERF_", "LAYERWRIGHT_"))]
    rule = "Environment: --some-option is also LAYERWRIGHT_SOME_OPTION"
    others += [f"{_long(one)} only {name}" for one in options if (name := _only_of_werf(one))]
    if len(ours) < len(options):
        rule += " or WERF_SOME_OPTION"
        rule += f" ({', '.join(ours)}: only the first)" if ours else ""
    formatter.write_paragraph()
    formatter.write_text(f"{rule}{'; ' if others else ''}{'; '.join(others)}.")


def _variables(option: click.Option) -> list[str]:
    return [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())


def _only_of_werf(option: click.Option) -> str:
    """The variable of an option that has none of ours: `run` has --shell, too."""
    names = _variables(option)
    return names[0] if not any(name.startswith("LAYERWRIGHT_") for name in names) else ""


def _long(option: click.Option) -> str:
    return max(option.opts, key=len)
