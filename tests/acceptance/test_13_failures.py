"""Looking into stages: shells on a terminal in the state that a failed command left, states kept where there is no terminal, and what a kill leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.built import export
from tests.support.commandline import CommandLine
from tests.support.exported import read_layout
from tests.support.machine import find_program
from tests.support.processes import await_that
from tests.support.project import Project
from tests.support.pseudo_terminal import PseudoTerminal
from tests.support.unprivileged import Unprivileged

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

INSTALL = """
        - mkdir -p /srv/deep && cd /srv/deep && export WHO="it's me"
        - echo early >/early; echo kept >/scratch/file
        - |
          echo looking
          test -e /cache/mended
        - echo late >/late
"""


@pytest.fixture
def failing(project: Project, base_images: BaseImages) -> Project:
    """The image `app`, whose stage install fails in its third command as long as /cache/mended, in a build_dir mount, is not there."""
    project.write("werf-giterminism.yaml", "giterminismConfigVersion: 1\nconfig: {stapel: {mount: {allowBuildDir: true}}}\n")
    project.werf(
        f"image: app\nfrom: {base_images.busybox}\nmount: [{{from: tmp_dir, to: /scratch}}, {{from: build_dir, to: /cache}}]\n"
        f"shell:\n  beforeInstall: ['echo tools >/tools']\n  install:{INSTALL}"
    )
    project.commit()
    return project


@pytest.fixture
def terminal(lw: CommandLine) -> Callable[..., PseudoTerminal]:
    def run(*arguments: str) -> PseudoTerminal:
        return PseudoTerminal((sys.executable, "-m", "layerwright", *arguments), env=lw.environment(), directory=lw.directory)

    return run


def traces(home: Path) -> list[str]:
    """Processes that have the store's directories mounted, and mounts of it on this machine."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(home) in line]
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and int(process.name) != os.getpid() and str(home) in (process / "mountinfo").read_text(errors="replace"):
                found.append((process / "cmdline").read_text(errors="replace"))
        except OSError:
            pass
    return found


def states(lw: CommandLine) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(lw("introspect", "--json").stdout)
    return listed


def ids(lw: CommandLine) -> list[str]:
    return [str(state["id"]) for state in states(lw)]


# On a terminal.


def test_a_shell_opens_where_the_command_failed(lw: CommandLine, failing: Project, terminal: Callable[..., PseudoTerminal]) -> None:
    with terminal("build", "--introspect-error") as shell:
        shell.wait_for(r"^A shell in app/install, after its failed command$")
        shell.wait_for(r"werf\.yaml:14: .*`test -e /cache/mended` failed: exit status 1")
        shell.wait_for(r"app/install:/srv/deep# $")
        shell.type('cat /early /tools /scratch/file; echo "$WHO" in $PWD; id -u; ls /late\n')
        shell.wait_for(r"^early\ntools\nkept\nit's me in /srv/deep\n0\nls: /late: No such file")
        shell.type("stty size; tty\n")
        shell.wait_for(r"^40 120\n/dev/pts/0$")
        shell.resize(33, 99)
        shell.type("until [ \"$(stty size)\" = '33 99' ]; do sleep 0.1; done; echo resi''zed\n")
        shell.wait_for(r"^resized$")
        shell.type("rerun\n")
        shell.wait_for(r"^looking$")
        shell.type("echo got $?; touch /mine /cache/mended; rerun rest && cat /late\n")
        shell.wait_for(r"^got 1\nlooking\nlate$")
        shell.type("exit 5\n")
        shell.wait_for(r"^The shell in app/install ended with 5; the build has failed\.\nError: werf\.yaml:14: image 'app', stage install")
        assert shell.end() == 1
        assert shell.has_settings_of_before()
    assert traces(lw.home) == []
    assert ids(lw) == []
    assert not list((lw.home / "work").iterdir())
    # The mount is the project's own, so the command finds what it lacked: the build goes on as if nobody had looked.
    assert "Use previously built image for app/beforeInstall" in lw("build").stdout
    files = read_layout(export(lw)).files
    assert "late" in files
    assert "mine" not in files


def test_the_interrupt_and_the_stop_key_go_to_the_shell(lw: CommandLine, failing: Project, terminal: Callable[..., PseudoTerminal]) -> None:
    with terminal("build", "--introspect-error") as shell:
        shell.wait_for(r"app/install:/srv/deep# $")
        shell.type("sh -c 'echo begins; exec sleep 1000'\n")
        shell.wait_for(r"^begins$")
        shell.type("\x03")
        shell.wait_for(r"app/install:/srv/deep# $")
        shell.type("sh -c 'echo begins; exec sleep 1000'\n")
        shell.wait_for(r"^begins$")
        shell.type("\x1a")
        shell.wait_for(r"Stopped")
        shell.type("kill -9 %1\n")
        shell.wait_for(r"app/install:/srv/deep# $")
        shell.type("\x04\x04")  # of a job that it believes to be stopped it warns once
        assert shell.end() == 1
        assert shell.has_settings_of_before()
    assert traces(lw.home) == []


def test_before_error_shows_the_state_before_the_commands(lw: CommandLine, failing: Project, terminal: Callable[..., PseudoTerminal]) -> None:
    with terminal("build", "--introspect-before-error") as shell:
        shell.wait_for(r"^A shell in app/install, before its commands$")
        shell.wait_for(r"app/install:/# $")
        shell.type("cat /tools; ls /early /scratch/file; rerun; echo got $?\n")
        shell.wait_for(r"^tools\nls: /early: No such file or directory\nls: /scratch/file: No such file or directory\nlooking\ngot 1$")
        shell.type("cat /early; exit\n")
        shell.wait_for(r"^early$")
        assert shell.end() == 1


def test_both_flags_open_one_shell_after_the_other(lw: CommandLine, failing: Project, terminal: Callable[..., PseudoTerminal]) -> None:
    with terminal("build", "--introspect-before-error", "--introspect-error") as shell:
        shell.wait_for(r"before its commands$")
        shell.wait_for(r"app/install:/# $")
        shell.type("exit\n")
        shell.wait_for(r"after its failed command$")
        shell.wait_for(r"app/install:/srv/deep# $")
        shell.type("exit\n")
        assert shell.end() == 1


def test_a_stage_is_looked_into_when_it_is_built_and_when_it_is_reused(
    lw: CommandLine, failing: Project, terminal: Callable[..., PseudoTerminal], tmp_path: Path
) -> None:
    lw("build", code=1)
    (cache,) = (lw.home / "mounts" / "test").iterdir()
    (cache / "mended").touch()
    shutil.rmtree(lw.home / "records")
    for go in ("built", "reused", "reused whole"):
        with terminal("build", "--introspect-stage", "app/beforeInstall") as shell:
            if go == "built":
                shell.wait_for(r"Built stage app/beforeInstall")
            shell.wait_for(r"^A shell in app/beforeInstall, as it was built$")
            shell.wait_for(r"app/beforeInstall:/# $")
            shell.type("cat /tools; ls /late; touch /mine /tools2\n")
            shell.wait_for(r"^tools\nls: /late: No such file")
            shell.type("exit 3\n")
            shell.wait_for(r"The shell in app/beforeInstall ended with 3; the build goes on\.$")
            assert shell.end() == 0
            assert re.search(r"^Image app  ", shell.shown, re.MULTILINE)
            assert ("Built stage app/install" in shell.shown) == (go == "built")
        if go == "built":
            shutil.rmtree(lw.home / "records" / "image")  # only the stages are found next time
    assert ids(lw) == []
    assert "mine" not in read_layout(export(lw)).files
    alone = lw.with_home(tmp_path / "alone")
    alone("build", code=1)
    (cache,) = (alone.home / "mounts" / "test").iterdir()
    (cache / "mended").touch()
    alone("build")
    assert alone("stage", "image", "app").stdout == lw("stage", "image", "app").stdout


def test_a_closed_terminal_leaves_the_state_and_nothing_that_runs(lw: CommandLine, failing: Project, terminal: Callable[..., PseudoTerminal]) -> None:
    with terminal("build", "--introspect-error") as shell:
        shell.wait_for(r"app/install:/srv/deep# $")
        shell.type("trap '' HUP; sleep 1000\n")
        shell.hang_up()
        shell.process.wait(30)
    await_that(lambda: not traces(lw.home))
    (state,) = ids(lw)
    assert lw("introspect", state, "--", "cat", "/early").stdout == "early\n"


def test_bash_is_the_shell_where_the_image_has_it(lw: CommandLine, project: Project, debian: str, terminal: Callable[..., PseudoTerminal]) -> None:
    project.werf(f"image: app\nfrom: {debian}\nshell:\n  install: ['cd /tmp; export WHO=\"a  b\"', 'echo x >/made; f() {{ false; }}; f']\n")
    project.commit()
    with terminal("build", "--introspect-error") as shell:
        shell.wait_for(r"app/install:/tmp# $")
        shell.type('echo "$BASH_VERSION|$WHO"; cat /made; rerun; echo got $?\n')
        shell.wait_for(r"^[45]\.[^|\n]*\|a  b\nx\ngot 1$")
        shell.type("exit\n")
        assert shell.end() == 1


# Without a terminal.


def test_a_state_is_kept_listed_entered_and_removed(lw: CommandLine, failing: Project) -> None:
    failed = lw("build", "--introspect-error", code=1)
    (state,) = states(lw)
    name = str(state["id"])
    assert re.fullmatch(r"app-install-[0-9a-f]{4}", name)
    assert f"the state is kept: layerwright introspect {name}\n" in failed.stderr
    assert f"in {lw.home}/introspect/{name}, until 20" in failed.stderr
    assert "Failed stage app/install" in failed.stdout
    assert (state["image"], state["stage"], state["moment"], state["commit"]) == ("app", "install", "error", failing.head())
    assert state["path"] == f"{lw.home}/introspect/{name}"
    assert int(str(state["until_ms"])) - int(str(state["kept_ms"])) == 7 * 24 * 3600 * 1000
    assert int(str(state["size_bytes"])) > 0
    (line,) = lw("introspect").stdout.splitlines()
    assert line.startswith(f"{name}  app/install  error  ")
    for _ in range(2):  # what is changed in it is dropped
        seen = lw("introspect", name, "--", "sh", "-c", "cat /early /scratch/file; ls /mine /scratch; touch /mine /scratch/mine; pwd; exit 42", code=42)
        assert seen.stdout == "early\nkept\n/scratch:\nfile\n/\n"
    assert lw("introspect", name, "--", "sh", "-c", ". /dev/.layerwright/rc; pwd; rerun", code=1).stdout == "/srv/deep\nlooking\n"
    assert "is no terminal, which a shell needs" in lw("introspect", name, code=2).stderr
    assert "no-such-program" in lw("introspect", name, "--", "no-such-program", code=127).stderr
    assert f"did you mean {name}?" in lw("introspect", f"{name}x", code=2).stderr
    assert lw("introspect", "--remove", name).stdout == f"{name}\n"
    assert not list((lw.home / "introspect").iterdir())
    assert lw("introspect").stdout == ""
    assert traces(lw.home) == []


def test_a_state_deeper_than_paths_may_be_long_is_kept_and_removed(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    name = "d" * 200
    nest = f"n={name}; mkdir $n; cd $n; for i in 1 2 3 4 5 6; do for j in 1 2 3 4 5 6; do mkdir $n; cd $n; done; done; echo deep >f; false"
    project.werf(f"image: app\nfrom: {base_images.busybox}\nshell: {{install: ['{nest}']}}\n")
    project.commit()
    failed = lw("build", "--introspect-error", code=1)
    assert "stage install" in failed.stderr
    assert "bug in layerwright" not in failed.stderr
    (state,) = ids(lw)
    assert lw("introspect", state, "--", "ls", f"/{name}").stdout == f"{name}\n"
    lw("introspect", "--remove", state)
    assert not list((lw.home / "introspect").iterdir())
    assert not list((lw.home / "work").iterdir())


def test_both_moments_are_kept_and_all_are_removed(lw: CommandLine, failing: Project) -> None:
    lw("build", "--introspect-error", "--introspect-before-error", code=1)
    found = {str(state["moment"]): str(state["id"]) for state in states(lw)}
    assert set(found) == {"error", "before-error"}
    listed = ("ls", "/early", "/tools")
    assert lw("introspect", found["error"], "--", *listed).stdout == "/early\n/tools\n"
    assert lw("introspect", found["before-error"], "--", *listed, code=1).stdout == "/tools\n"
    assert sorted(lw("introspect", "--remove", "--all").stdout.split()) == sorted(found.values())
    assert ids(lw) == []


def test_a_failure_without_the_flags_names_them_and_keeps_nothing(lw: CommandLine, failing: Project) -> None:
    assert "--introspect-error opens a shell" in lw("build", code=1).stderr
    assert ids(lw) == []
    assert not (lw.home / "introspect").exists()


@pytest.mark.parametrize("name", ["LAYERWRIGHT", "WERF"])
def test_the_flags_have_twins(lw: CommandLine, failing: Project, name: str) -> None:
    env = {f"{name}_INTROSPECT_ERROR": "1", f"{name}_INTROSPECT_STAGE": "app/from beforeInstall"}
    lw("build", code=1, env=env)
    assert sorted((state["stage"], state["moment"]) for state in states(lw)) == [("beforeInstall", "stage"), ("from", "stage"), ("install", "error")]


def test_a_state_outlives_its_trees_or_says_why_not(lw: CommandLine, failing: Project) -> None:
    lw("build", "--introspect-error", code=1)
    (state,) = ids(lw)
    trees = {len(list(tree.rglob("*"))): tree for tree in (lw.home / "trees.root").iterdir()}
    shutil.rmtree(trees.pop(max(trees)))  # the base image's, of which there is a blob
    assert lw("introspect", state, "--", "cat", "/early").stdout == "early\n"
    (own,) = trees.values()
    shutil.rmtree(own)  # that of beforeInstall, of which there is nothing else
    gone = lw("introspect", state, "--", "cat", "/early", code=1)
    assert f"the state {state} cannot be entered any more" in gone.stderr
    assert f"layerwright introspect --remove {state}" in gone.stderr
    lw("introspect", "--remove", state)


def test_declared_stages_are_looked_into_and_ten_states_at_most_are_kept(lw: CommandLine, project: Project) -> None:
    project.write("bb", Path(find_program("busybox")).read_bytes(), executable=True)
    images = [f"image: app/{number}\nfrom: scratch\ngit: [{{add: /bb, to: /bin{number}/busybox}}]\n" for number in range(12)]
    project.werf("---\n".join(images))
    project.commit()
    built = lw("build", "--introspect-stage", "gitArchive")
    assert built.stderr.count("the state is kept: layerwright introspect app-") == 12
    found = {str(state["image"]): str(state["id"]) for state in states(lw)}
    assert list(found) == [f"app/{number}" for number in range(2, 12)]
    assert lw("introspect", found["app/7"], "--", "/bin7/busybox", "ls", "/").stdout.split() == ["bin7", "dev", "etc", "proc", "sys"]
    reused = lw("build", "app/3", "--introspect-stage", "app/3/gitArchive")
    assert "Use previously built image for app/3/gitArchive" in reused.stdout
    assert "app-3-gitarchive-" in reused.stderr


def test_an_image_without_a_shell_says_so(lw: CommandLine, project: Project, terminal: Callable[..., PseudoTerminal]) -> None:
    project.write("file", "x")
    project.werf("from: scratch\nimage: ~\ngit: [{add: /file, to: /file}]\n")
    project.commit()
    with terminal("build", "--introspect-stage", "~/gitArchive") as shell:
        shell.wait_for(r"^Error: the image of ~/gitArchive has neither bash nor sh\n  name a program that it has: layerwright introspect (\S+) -- PROGRAM$")
        assert shell.end() == 1
        assert shell.has_settings_of_before()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--introspect-stage", "app/instal"), "did you mean 'install'?"),
        (("--introspect-stage", "ap/install"), "did you mean 'app'?"),
        (("--introspect-stage", "app/setup"), "image 'app' has no stage setup"),
        (("--introspect-stage", "setup"), "no image of this run has a stage setup"),
        (("app", "--introspect-stage", "other/from"), "other is not built in this run"),
    ],
)
def test_a_stage_that_is_none_of_this_run_is_refused(lw: CommandLine, failing: Project, arguments: Sequence[str], said: str) -> None:
    text = (failing.path / "werf.yaml").read_text()
    failing.write("werf.yaml", f"{text}---\nimage: other\nfrom: scratch\n")
    failing.commit()
    failed = lw("build", *arguments, code=2)
    assert said in failed.stderr
    assert "Building" not in failed.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--remove",), "name what to remove"),
        (("--all",), "--all goes with --remove"),
        (("nosuch",), "no state 'nosuch' is kept"),
        (("../../etc",), "no state '../../etc' is kept"),
        (("nosuch", "--json"), "--json is for the list"),
    ],
)
def test_wrong_usage_of_introspect_ends_with_2(lw: CommandLine, arguments: Sequence[str], said: str) -> None:
    assert said in lw("introspect", *arguments, code=2).stderr


def test_who_is_not_root_looks_into_his_stages_too(lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path) -> None:
    """What the commands made belongs to users that only the worker may act for."""
    project.werf(f"image: app\nfrom: {base_images.busybox}\nshell:\n  install: ['mkdir -m 700 /of33 && touch /of33/file && chown -R 33:33 /of33', 'false']\n")
    project.commit()
    user = Unprivileged(place=tmp_path / "of-user").settle()
    of_user = CommandLine(home=user.home / "store", user_home=user.home, directory=lw.directory, prefix=user.prefix([tmp_path]))
    of_user("build", "--introspect-error", code=1)
    (state,) = ids(of_user)
    assert of_user("introspect", state, "--", "stat", "-c", "%n %u", "/of33", "/of33/file").stdout == "/of33 33\n/of33/file 33\n"
    assert of_user("introspect", "--remove", state).stdout == f"{state}\n"
    assert not list((user.home / "store" / "introspect").iterdir())
    with PseudoTerminal(
        (*of_user.prefix, sys.executable, "-m", "layerwright", "build", "--introspect-error"), env=of_user.environment(), directory=lw.directory
    ) as shell:
        shell.wait_for(r"app/install:/# $")
        shell.type("id -u; stat -c %u /of33/file; stty size; exit\n")
        shell.wait_for(r"^0\n33\n40 120$")
        assert shell.end() == 1
    assert not list((user.home / "store" / "work").iterdir())


# Killed.


@pytest.mark.parametrize(("sync", "is_kept"), [(1, False), (2, False), (3, True)])
def test_a_kill_while_keeping_leaves_a_whole_state_or_none(lw: CommandLine, failing: Project, sync: int, is_kept: bool) -> None:
    """Killed as it syncs the file, the directory of the state, or the one that has it by then."""
    lw("build", code=1)
    when = f"inject=fsync:signal=KILL:when={sync}"
    argv = (find_program("strace"), "-f", "-qq", "-o", os.devnull, "-e", "trace=fsync", "-e", when, sys.executable, "-m", "layerwright", "build")
    done = subprocess.run((*argv, "--introspect-error"), cwd=lw.directory, env=lw.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    await_that(lambda: not traces(lw.home))
    kept = [path.name for path in (lw.home / "introspect").glob("*")]
    assert kept == ids(lw)
    assert len(kept) == is_kept
    for state in kept:
        assert lw("introspect", state, "--", "cat", "/early").stdout == "early\n"
    lw("build", "--introspect-error", code=1)
    assert len(ids(lw)) == is_kept + 1
    assert not list((lw.home / "work").iterdir())
