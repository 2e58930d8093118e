"""Entering a kept state: a shell or a program in a container like the one that the stage's commands had. What it changes is dropped when it ends."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from layerwright.build.cabinet import Cabinet
from layerwright.build.tree_calls import tree_calls
from layerwright.build.trees import ImageRun, Trees
from layerwright.errors import LayerwrightError
from layerwright.layers.index import BadIndex
from layerwright.runtime.script import PLACE, is_bash, script
from layerwright.storage.contract import MissingBlob
from layerwright.storage.kept_states import KeptState
from layerwright.storage.local import LocalStore

if TYPE_CHECKING:
    from layerwright.build.events import Listener
    from layerwright.build.options import Cancel
    from layerwright.registry.client import Registry


class CannotEnter(LayerwrightError):
    """The state is there, and nobody can be let into it."""


def enter(store: LocalStore, trees: Trees, state: KeptState, command: Sequence[str] = (), *, cancel: Cancel, files: tuple[int, int, int] = (0, 1, 2)) -> int:
    """Run `command`, or the image's shell if it is empty, in `state` on the given stdin, stdout and stderr; its exit status.

    Raises CannotEnter, StateGone, Cancelled, MachineLacks, ProgramNotStarted.
    """
    if not command and not state.shell:
        raise CannotEnter(
            f"the image of {state.shown} has neither bash nor sh", mend=f"name a program that it has: layerwright introspect {state.id} -- PROGRAM"
        )
    if state.flavour != store.flavour:
        raise CannotEnter(
            f"the state {state.id} was kept by another user, or by this one with other subordinate ids ({state.flavour}, not {store.flavour})",
            mend=f"enter it as that user, or remove it: layerwright introspect --remove {state.id}",
        )
    run = container(state, command, kept=store.kept_states.path(state.id), terminal=all(os.isatty(fd) for fd in files), term=os.environ.get("TERM", ""))
    try:
        with store.kept_states.held(state.id):
            return trees.run_image(run, files=files, cancel=cancel)
    except (MissingBlob, BadIndex) as missing:
        raise CannotEnter(
            f"the state {state.id} cannot be entered any more: {missing.what if isinstance(missing, MissingBlob) else missing}",
            mend=f"build again with --introspect-error; this one can only be removed: layerwright introspect --remove {state.id}",
        ) from missing


@contextmanager
def opened_trees(store: LocalStore, registry: Callable[[], Registry], *, runtime: str, cancel: Cancel, tell: Listener) -> Iterator[Trees]:
    """What `enter` works with, where no project is open. `tell` hears of what is fetched and unpacked, and ContainerStarts."""
    calls = tree_calls(store)
    try:
        owner = calls if calls.flavour.user_namespace else None
        yield Trees(store, Cabinet(store, registry, owner=owner, cancelled=cancel.is_set), calls, runtime=runtime, tell=tell)
    finally:
        calls.close()


def container(state: KeptState, command: Sequence[str], *, kept: str, terminal: bool, term: str) -> ImageRun:
    """The container of a kept state; pure. A shell starts where the failed command was and with what it had exported; a program starts at / with nothing more."""
    run = ImageRun(
        args=tuple(command),
        env=state.env,
        cwd="/",
        user=(0, 0, ()),
        network=state.network,
        layers=state.layers,
        terminal=terminal,
        kept=kept if state.moment == "error" else "",
        mounts=state.mounts,
        project=state.project,
        tools=tools(state),
    )
    names = {item.partition("=")[0] for item in state.env}
    if terminal and term and "TERM" not in names:
        run = replace(run, env=(*run.env, f"TERM={term}"))
    if command:
        return run
    if is_bash(state.shell):
        return replace(run, args=(state.shell, "--noprofile", "--rcfile", f"{PLACE}/rc", "-i"))
    return replace(run, args=(state.shell, "-i"), env=(*run.env, f"ENV={PLACE}/rc"))


# What the shell has at hand. It lies below /dev, which is no part of any image.


def tools(state: KeptState) -> Mapping[str, str]:
    """Files by name: the commands of the stage to read, scripts to run them again, and what the shell reads when it starts."""
    if not state.shell:
        return {}
    files = {"rc": _start_file(state)}
    if not state.commands:
        return files
    files["commands"] = "".join(f"# {number}\n{command.rstrip()}\n\n" for number, command in enumerate(state.commands, 1))
    return files | {f"rerun-{word or 'failed'}": _script(state, commands) for word, commands in reruns(state).items()}


def reruns(state: KeptState) -> Mapping[str, tuple[str, ...]]:
    """What `rerun WORD` in the shell runs; "" is `rerun` alone. Empty where the stage has no commands."""
    failed = state.failure.command if state.failure is not None and state.moment == "error" else None
    if not state.commands:
        return {}
    if failed is None:
        return {"": state.commands}
    return {"": state.commands[failed : failed + 1], "rest": state.commands[failed:], "all": state.commands}


def _script(state: KeptState, commands: Sequence[str]) -> str:
    return script(commands, state.shell).decode("utf-8", "surrogateescape")


def _start_file(state: KeptState) -> str:
    lines = ["unset ENV"]
    if state.exports:
        lines.append(state.exports.rstrip("\n"))
    if state.cwd:
        lines.append(f"cd {shlex.quote(state.cwd)}")
    name = re.sub(r"[^A-Za-z0-9/._~-]", "_", state.shown)
    lines.append(f"PS1='{name}:$PWD# '")
    if runs := reruns(state):
        lines += ["rerun() (", '  case "${1-}" in']
        for word in runs:
            go = "cd / && " if word == "all" or "rest" not in runs else ""
            lines.append(f"  '{word}') {go}exec {shlex.quote(state.shell)} -e {PLACE}/rerun-{word or 'failed'} ;;")
        lines += [f"  *) echo 'rerun: there is {', '.join(f'rerun {word}'.rstrip() for word in runs)}' >&2; exit 2 ;;", "  esac", ")"]
    return "\n".join(lines) + "\n"
