"""Commands as this program has them: with examples and groups of options in their help, and with mistakes answered by what to do instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from layerwright.cli.options import NOT_YET, REFUSED_IN_ENV, not_supported, twins


class Command(click.Command):
    """A command. `checks_env`: refuses the variables of options that would change what it does, and are not supported yet."""

    checks_env = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse by name what werf has and we do not yet."""
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in NOT_YET:
                raise not_supported(error.option_name, ctx) from error
            raise
        if getattr(self.callback, "refuses_not_yet", False) and not ctx.resilient_parsing:
            for flag in REFUSED_IN_ENV:
                if flag in NOT_YET and any(_is_set(flag, os.environ.get(name, "")) for name in twins(flag)):
                    raise not_supported(flag, ctx)
        return rest

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from layerwright.cli.help import write_help

        write_help(self, ctx, formatter)

    def get_short_help_str(self, limit: int = 45) -> str:
        from layerwright.cli.help import summary

        return summary(self)


class CommandWithArguments(Command):
    """A command that runs another: its parameter `arguments` is what stands behind `--`, also where the argument before it is left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:end])
        ctx.params["arguments"] = (*ctx.params["arguments"], *args[end + 1 :])
        return rest


class Group(click.Group):
    """A command with commands below it."""

    command_class = Command
    group_class = type

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from layerwright.cli.help import write_group_help

        write_group_help(self, ctx, formatter)

    def get_short_help_str(self, limit: int = 45) -> str:
        from layerwright.cli.help import summary

        return summary(self)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise click.UsageError(no_such_command(ctx, args[0], self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)


def no_such_command(ctx: click.Context, word: str, known: list[str]) -> str:
    from layerwright.config.faults import suggestion  # only who mistypes pays

    close = suggestion(word, known)
    return f"No such command '{word}'. " + (f"Did you mean: {ctx.command_path} {close}" if close else f"There are: {', '.join(known)}")


def _is_set(flag: str, value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "t", "y", "on") if NOT_YET_SWITCHES.get(flag) else bool(value)


NOT_YET_SWITCHES = dict.fromkeys(("--dev", "--virtual-merge"), True)


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` for a command of ours."""
    return click.command(name, **{"cls": Command, **settings})


def group(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Group]:
    """`click.group` for a group of ours."""
    return click.group(name, cls=Group, **settings)
