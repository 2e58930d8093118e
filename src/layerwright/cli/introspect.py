"""`layerwright introspect`: the states of stages that builds kept."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import click

from layerwright.build.own_store import open_store
from layerwright.cli.command import CommandWithArguments
from layerwright.cli.command import command as define
from layerwright.cli.options import option, registry_options, switch
from layerwright.cli.shown import size_text
from layerwright.errors import UsageError
from layerwright.storage.kept_states import KeptState
from layerwright.storage.local import LocalStore


@define("introspect", cls=CommandWithArguments)
@click.argument("state", required=False, metavar="[STATE]")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
@switch("--remove", help="Remove the named states, or with --all every one.", own=True)
@switch("--all", "everything", help="With --remove: every state.", own=True)
@switch("--json", "as_json", help="Print the list as JSON.", own=True)
@option("--runtime", default="", help="OCI runtime: a name or a path.  [default: the one that the stage had]", metavar="PROGRAM")
@option("--home", "home", default=None, help="The store.  [default: $XDG_DATA_HOME/layerwright]", metavar="DIR", envvar="LAYERWRIGHT_HOME")
@registry_options
def command(state: str | None, arguments: tuple[str, ...], remove: bool, everything: bool, as_json: bool, home: str | None, **options: Any) -> int:
    """List the states of stages that builds kept, or enter one. A shell in it, or a command, whose exit status is given.

    `layerwright build --introspect-error` keeps the state of a stage that failed. What is changed in a state is dropped when the shell ends.

    \b
    layerwright introspect                                  what is kept
    layerwright introspect app-install-3f2c                 a shell in it
    layerwright introspect app-install-3f2c -- cat /app/build.log
    layerwright introspect --remove app-install-3f2c        or --remove --all
    """
    named = (*((state,) if state else ()), *arguments)
    if everything and (not remove or named):
        raise click.UsageError("--all goes with --remove, and names nothing")
    if remove and not named and not everything:
        raise click.UsageError("name what to remove: layerwright introspect --remove STATE..., or --remove --all")
    if arguments and state is None and not remove:
        raise click.UsageError("name the state to run it in: layerwright introspect STATE -- COMMAND")
    if as_json and (named or remove):
        raise click.UsageError("--json is for the list: layerwright introspect --json")
    with open_store(home, os.environ) as store:
        if remove:
            _remove(store, [one.id for one in store.kept_states.all()] if everything else [_find(store, name).id for name in named])
        elif state is None:
            store.kept_states.prune()
            _print_json(store) if as_json else _print_list(store)
        else:
            return _enter(store, _find(store, state), arguments, options)
    return 0


def _find(store: LocalStore, name: str) -> KeptState:
    found = store.kept_states.find(name)
    if found is not None:
        return found
    from layerwright.config.faults import suggestion

    names = [one.id for one in store.kept_states.all()]
    meant = suggestion(name, names)
    known = f"there are: {', '.join(names)}" if names else "none is kept: `layerwright build --introspect-error` keeps that of a stage that fails"
    raise UsageError(f"no state {name!r} is kept", where=store.paths.introspect, mend=f"{f'did you mean {meant}? ' if meant else ''}{known}")


def _remove(store: LocalStore, names: list[str]) -> None:
    for name in dict.fromkeys(names):
        store.kept_states.remove(name)
        click.echo(name)


def _print_list(store: LocalStore) -> None:
    states = store.kept_states.all()
    if not states:
        click.echo("no state is kept: `layerwright build --introspect-error` keeps that of a stage that fails", err=True)
    rows = [_row(state) for state in states]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        click.echo("  ".join((*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4])).rstrip())


def _row(state: KeptState) -> tuple[str, ...]:
    until = time.strftime("until %Y-%m-%d %H:%M", time.localtime(state.until_ms // 1000))
    return state.id, state.shown, state.moment, size_text(state.size_bytes), until


def _print_json(store: LocalStore) -> None:
    shown = [
        {
            "id": state.id,
            "project": state.project,
            "image": state.image,
            "stage": state.stage,
            "moment": state.moment,
            "commit": state.commit,
            "failed": None if state.failure is None else {"what": state.failure.what, "where": state.failure.where, "status": state.failure.status},
            "path": store.kept_states.path(state.id),
            "size_bytes": state.size_bytes,
            "kept_ms": state.kept_ms,
            "until_ms": state.until_ms,
        }
        for state in store.kept_states.all()
    ]
    click.echo(json.dumps(shown, indent=2))


def _enter(store: LocalStore, state: KeptState, arguments: tuple[str, ...], options: dict[str, Any]) -> int:
    from layerwright.build.entrance import enter, opened_trees
    from layerwright.build.events import ContainerStarts, Event
    from layerwright.build.registries import make_registry
    from layerwright.cli.looking import banner, is_shell_possible
    from layerwright.cli.run import NotInImage
    from layerwright.cli.wiring import cancelled_by_signals
    from layerwright.runtime.runner import ProgramNotStarted

    if not arguments and (lacking := is_shell_possible()):
        raise click.UsageError(f"{lacking}, which a shell needs: name a command: layerwright introspect {state.id} -- COMMAND")
    registry = make_registry(
        os.environ,
        insecure=options["insecure_registry"],
        skip_tls_verify=options["skip_tls_verify_registry"],
        docker_config=options["docker_config"],
        mirrors=options["container_registry_mirror"],
    )

    def tell(event: Event) -> None:
        if isinstance(event, ContainerStarts) and not arguments:
            click.echo(banner(state), err=True)

    runtime = options["runtime"] or state.runtime
    with cancelled_by_signals() as cancel, opened_trees(store, lambda: registry, runtime=runtime, cancel=cancel, tell=tell) as trees:
        try:
            return enter(store, trees, state, arguments, cancel=cancel)
        except ProgramNotStarted as error:
            raise NotInImage(f"state {state.id}: {error.what}", mend=error.mend) from error
