"""What a container of a kept state is given: pure."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from layerwright.build.entrance import container, reruns, tools
from layerwright.oci.digest import DiffId
from layerwright.runtime.script import PLACE
from layerwright.storage.kept_states import Failure, KeptState

STATE = KeptState(
    id="app-install-0000",
    moment="error",
    project="shop",
    image="app",
    stage="install",
    commit="c" * 40,
    kept_ms=0,
    flavour="root",
    layers=(DiffId("sha256:" + "a" * 64),),
    env=("PATH=/bin:/usr/bin",),
    mounts=(("tmp_dir", "/scratch"),),
    network="none",
    runtime="",
    shell="/bin/sh",
    commands=("echo one", "echo 'it''s'; false", "echo three"),
    failure=Failure(what="`false` failed", where="werf.yaml:3", status=1, command=1),
    cwd="/usr/a b",
    exports="export WHO='it'\\''s me'\n",
)
BEFORE = replace(STATE, moment="before-error", cwd="", exports="")


def test_a_shell_is_like_the_container_of_the_commands() -> None:
    run = container(STATE, (), kept="/kept", terminal=True, term="xterm")
    assert (run.args, run.cwd, run.user, run.network, run.mounts, run.kept) == (("/bin/sh", "-i"), "/", (0, 0, ()), "none", STATE.mounts, "/kept")
    assert run.env == (*STATE.env, "TERM=xterm", f"ENV={PLACE}/rc")
    bash = container(replace(STATE, shell="/usr/bin/bash", env=("TERM=vt100",)), (), kept="/kept", terminal=True, term="xterm")
    assert bash.args == ("/usr/bin/bash", "--noprofile", "--rcfile", f"{PLACE}/rc", "-i")
    assert bash.env == ("TERM=vt100",)


def test_a_command_gets_the_environment_and_nothing_more() -> None:
    run = container(BEFORE, ("ls", "-l"), kept="/kept", terminal=False, term="xterm")
    assert (run.args, run.env, run.kept) == (("ls", "-l"), STATE.env, "")


def test_what_can_be_run_again() -> None:
    assert reruns(STATE) == {"": STATE.commands[1:2], "rest": STATE.commands[1:], "all": STATE.commands}
    assert reruns(BEFORE) == {"": STATE.commands}
    assert reruns(replace(STATE, failure=replace(STATE.failure, command=None))) == {"": STATE.commands}  # type: ignore[type-var]
    assert reruns(replace(STATE, commands=())) == {}
    assert tools(replace(STATE, shell="")) == {}
    assert set(tools(replace(STATE, commands=()))) == {"rc"}


SHELLS = {"bash": ["bash", "--noprofile", "--norc"], "dash": ["dash"], "busybox": ["busybox", "sh"]}


@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize(
    ("state", "typed", "printed"),
    [
        (STATE, 'echo "$WHO|$PWD|$PS1|${ENV-none}"', "it's me|{place}|app/install:$PWD# |none\n"),
        (STATE, "rerun || echo got $?", "its\ngot 1\n"),
        (STATE, "rerun rest || echo got $?", "its\ngot 1\n"),
        (STATE, "rerun all || echo got $?", "one\nits\ngot 1\n"),
        (STATE, "rerun most 2>&1 || echo got $?", "rerun: there is rerun, rerun rest, rerun all\ngot 2\n"),
        (BEFORE, "rerun || echo got $?", "one\nits\ngot 1\n"),
        (replace(BEFORE, image="it's $(odd)"), 'echo "$PS1"', "it_s___odd_/install:$PWD# \n"),
    ],
)
def test_every_shell_reads_the_start_file(tmp_path: Path, name: str, state: KeptState, typed: str, printed: str) -> None:
    shell = shutil.which(SHELLS[name][0])
    if shell is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "a b").mkdir()
    own = replace(state, shell="/bin/bash" if name == "bash" else "/bin/sh", cwd=str(tmp_path / "a b") if state.cwd else "")
    for file, text in tools(own).items():
        (tmp_path / file).write_text(text.replace(PLACE, str(tmp_path)).replace("/bin/sh -e", f"{' '.join([shell, *SHELLS[name][1:]])} -e"))
    (tmp_path / "typed").write_text(f". {tmp_path}/rc\n{typed}\n")
    done = subprocess.run(
        [*SHELLS[name], tmp_path / "typed"], env={"PATH": "/bin:/usr/bin", "ENV": "x"}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.stdout == printed.replace("{place}", str(tmp_path / "a b")), done.stderr
