"""What becomes of the states that a build keeps (`--introspect-...`): on a terminal a shell in each, elsewhere a line that says how to enter it later."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from layerwright.build.events import ContainerStarts, Event, Listener, StateKept
from layerwright.build.layer_makers import StageFailedError
from layerwright.cli.shown import size_text, visible
from layerwright.cli.wiring import cancelled_by_signals
from layerwright.errors import LayerwrightError
from layerwright.storage.kept_states import KeptState, StateInUse
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import default_home

if TYPE_CHECKING:
    from layerwright.build.options import Cancel
    from layerwright.cli.render import Renderer
    from layerwright.project import Project

MOMENTS = {"error": "after its failed command", "before-error": "before its commands", "stage": "as it was built"}


def is_on_terminal() -> bool:
    """Whether somebody can type into a shell here: all three are a terminal, and this is not a job in the background of one."""
    if not all(os.isatty(fd) for fd in (0, 1, 2)):
        return False
    with suppress(OSError):
        return os.tcgetpgrp(0) == os.getpgrp()
    return True  # a terminal, though not the one that controls this process


@contextmanager
def looking(project: Project, renderer: Renderer, cancel: Cancel) -> Iterator[Listener]:
    """The listener for one build. When a command failed, its states come after the build has ended: nobody waits at its locks for a shell to end."""
    after_failure: list[str] = []

    def listen(event: Event) -> None:
        renderer(event)
        if isinstance(event, StateKept):
            if event.moment != "stage":
                after_failure.append(event.state)
            elif is_on_terminal():
                _open_shell(project, renderer, cancel, _state(project.store, event.state))
            else:
                renderer.note(f"{event.image or '~'}/{event.stage}: {kept_text(project.store, _state(project.store, event.state))}")

    try:
        yield listen
    except StageFailedError as error:
        states = [state for name in after_failure if (state := project.store.kept_states.find(name)) is not None]
        if not states:
            raise
        if not is_on_terminal():
            told = "".join(f"\n  {MOMENTS[state.moment]}: {kept_text(project.store, state)}" for state in states)
            raise StageFailedError(error.what, where=error.where, mend=error.mend + told, log=error.log, states=error.states) from error
        with cancelled_by_signals(renderer.restore_terminal) as since_failure:  # a build that failed has set its own
            for state in states:
                _open_shell(project, renderer, since_failure, state)
        raise


def _state(store: LocalStore, state_id: str) -> KeptState:
    state = store.kept_states.find(state_id)
    if state is None:
        raise LayerwrightError(f"the state {state_id} is gone already", mend="build again")
    return state


def _open_shell(project: Project, renderer: Renderer, cancel: Cancel, state: KeptState) -> None:
    """A shell in the state, which is removed when it has ended; if it could not be opened or was stopped, the state stays."""

    def tell(event: Event) -> None:
        renderer(event)
        if isinstance(event, ContainerStarts):
            click.echo(banner(state), err=True)

    try:
        status = project.enter(state, on_event=tell, cancel=cancel)
    except LayerwrightError:
        renderer.note(f"{state.shown}: {kept_text(project.store, state)}")
        raise
    finally:
        renderer.take_back()
    goes_on = "the build goes on" if state.moment == "stage" else "the build has failed"
    renderer.note(f"The shell in {state.shown} ended with {status}; {goes_on}.")
    with suppress(StateInUse):
        project.store.kept_states.remove(state.id)


def banner(state: KeptState) -> str:
    """What stands above a shell: where it is, why, and what it can do."""
    from layerwright.build.entrance import reruns

    lines = ["", f"A shell in {state.shown}, {MOMENTS[state.moment]}"]
    if state.failure is not None:
        lines.append(f"  {state.failure.where}: {state.failure.what}")
    runs = reruns(state)
    if "rest" in runs:
        lines.append("  rerun         runs the failed command again; `rerun rest` it and those after it, `rerun all` all of the stage")
    elif runs:
        lines.append("  rerun         runs the commands of the stage")
    lines.append("  exit, Ctrl-D  ends the shell; what was changed in it is dropped")
    return visible("\n".join(lines)) + "\n"


def kept_text(store: LocalStore, state: KeptState) -> str:
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.until_ms // 1000))
    return f"the state is kept: {enter_command(store, state.id)}\n    ({size_text(state.size_bytes)} in {store.kept_states.path(state.id)}, until {until})"


def enter_command(store: LocalStore, state_id: str) -> str:
    """How to enter a state from where the environment is the same."""
    elsewhere = True
    with suppress(LayerwrightError):
        elsewhere = os.path.abspath(default_home(os.environ)) != store.paths.home
    return f"layerwright introspect {state_id}" + (f" --home {shlex.quote(store.paths.home)}" if elsewhere else "")


def is_shell_possible() -> str:
    """ "" if a shell can be opened here, else why not."""
    return "" if is_on_terminal() else f"standard {'input' if not sys.stdin.isatty() else 'output or error'} is no terminal"
