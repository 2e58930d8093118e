"""What a build looks like: on terminals of any size, in logs, folded in CI, as JSON, without colours; completion and help. Through tmux and plain pipes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.front import Front
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.terminal import Terminal, line_of

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

MIB = 1 << 20
GITHUB = {"GITHUB_ACTIONS": "true"}
GITLAB = {"GITLAB_CI": "true"}


def busybox_image(name: str, base: str, **stages: str) -> str:
    commands = "".join(f"  {stage}: [{json.dumps(command)}]\n" for stage, command in stages.items())
    return f"image: {name}\nfrom: {base}\nshell:\n{commands}"


@pytest.fixture
def slow(registry: RegistryServer, base_images: BaseImages) -> Iterator[Front]:
    """A registry that gives a MiB in a second; `base/large:1` has three of them that do not compress."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as out:
        entry = tarfile.TarInfo("large")
        entry.size = 3 * MIB
        out.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    base_images.push("base/large:1", [tar.getvalue()])
    with Front(registry, bytes_per_s=MIB) as front:
        yield front


@pytest.fixture
def several(project: Project, base_images: BaseImages, slow: Front) -> Project:
    """Two images at once: one waits for a slow registry, one for its own command."""
    project.write("hello", "x")
    pulling = f"image: pulling\nfrom: {slow.reference('base/large:1')}\ngit: [{{add: /hello, to: /hello}}]\n"
    running = busybox_image("running", base_images.busybox, install="echo begun; sleep 2; echo over")
    project.werf(f"{pulling}---\n{running}")
    project.commit()
    return project


def live(screen: str) -> list[str]:
    """The lines below what scrolls: each begins with a space."""
    return [line for line in screen.splitlines() if line.startswith(" ")]


# On a terminal.


def test_each_image_has_one_line_and_nothing_of_it_stays(lw: CommandLine, several: Project, tmp_path: Path) -> None:
    with Terminal(tmp_path, line_of(lw, "build", "-p", "2"), width=110) as terminal:
        terminal.until(lambda screen: bool(re.search(r"pulling +pull \S+ .* [\d.]+/3\.0 MiB +[\d.]+ [KM]iB/s +\d+s$", screen, re.MULTILINE)))
        shown = terminal.until(lambda screen: "begun" in screen and any("install" in line for line in live(screen)))
        rows = live(shown)
        assert len([line for line in rows if line.split()[0] == "pulling"]) == 1, shown
        assert len([line for line in rows if line.split()[0] == "running"]) == 1, shown
        assert re.match(r" images: \d done", rows[-1]), shown
        assert terminal.asked("cursor_flag") == "0"
        terminal.resize(40, 12)
        narrow = terminal.until(lambda screen: bool(live(screen)) and " done" in live(screen)[-1] and all(len(line) < 40 for line in live(screen)))
        assert len(live(narrow)) <= 6
        terminal.resize(90, 30)
        terminal.until(lambda screen: bool(re.match(r" images: \d done", (live(screen) or [""])[-1])))
        shown = terminal.ended()
        assert "ended with 0" in shown
        assert live(terminal.scrolled()) == []
        assert terminal.asked("cursor_flag") == "1"
        totals = re.search(
            r"^Running time [\d.]+ seconds  \(2 images, 4 stages built, 0 reused, (.*) MiB pulled, (\d+) requests\)$", terminal.scrolled(), re.MULTILINE
        )
        assert totals, shown
        assert float(totals[1]) >= 3


def test_more_images_than_a_small_terminal_holds_are_counted_and_ctrl_c_gives_the_cursor_back(
    lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path
) -> None:
    images = [busybox_image(f"image-{number}", base_images.busybox, install=f"sleep 60; : {number}") for number in range(8)]
    project.werf("---\n".join(images))
    project.commit()
    with Terminal(tmp_path, line_of(lw, "build", "-p", "8"), width=40, height=12) as terminal:
        shown = terminal.until(lambda screen: "and 4 more" in screen and screen.count("running") == 4)
        assert len(live(shown)) == 6
        assert terminal.asked("cursor_flag") == "0"
        terminal.type("C-c")
        shown = terminal.ended()
        assert "ended with 130" in shown
        assert "Stopped after" in shown
        assert live(shown) == []
        assert terminal.asked("cursor_flag") == "1"


@pytest.mark.parametrize(("times", "code"), [(1, 143), (2, 143)])
def test_a_terminated_build_gives_the_cursor_back(lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path, times: int, code: int) -> None:
    project.werf(busybox_image("app", base_images.busybox, install="trap '' TERM; sleep 60"))
    project.commit()
    pid_file = tmp_path / "pid"
    prefix = ("sh", "-c", f'echo $$ >{pid_file}; exec "$@"', "sh")
    with Terminal(tmp_path, line_of(lw, "build", prefix=prefix)) as terminal:
        terminal.until(lambda screen: "running" in screen)
        for _ in range(times):
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
        assert f"ended with {code}" in terminal.ended()
        assert terminal.asked("cursor_flag") == "1"
        assert "Error" not in terminal.screen()


def test_what_commands_print_moves_nothing_and_keeps_its_colours(lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path) -> None:
    hostile = r"printf 'one \033[2J\033[H\033]0;hijacked\007\033[31mred\033[0m\033[?1049h\033[10A\033c two\n'; printf '\033[35mopen'; printf '\n世界世界 wide\n'; sleep 1"
    project.werf(busybox_image("app", base_images.busybox, install=hostile))
    project.commit()
    with Terminal(tmp_path, line_of(lw, "build"), width=60, height=20) as terminal:
        terminal.ended()
        shown = terminal.scrolled()
        assert "Building stage app/from" in shown
        assert "app/install | one red two" in shown
        assert "app/install | 世界世界 wide" in shown
        assert (terminal.asked("alternate_on"), "hijacked" in terminal.asked("pane_title")) == ("0", False)
        coloured = terminal.coloured()
        assert re.search(r"\x1b\[31mred\x1b\[[0-9;]*m two", coloured), coloured
        assert re.search(r"\x1b\[35mopen\s*\x1b\[(0|39)m", coloured), "a colour ends with its line"


def test_no_color_leaves_the_live_area_and_drops_the_colours(lw: CommandLine, several: Project, tmp_path: Path) -> None:
    with Terminal(tmp_path, line_of(lw, "build", prefix=("env", "NO_COLOR=1"))) as terminal:
        terminal.until(lambda screen: bool(re.search(r"pulling +pull .*/3\.0 MiB", screen)))
        terminal.ended()
        assert "\x1b[3" not in terminal.coloured()


def test_a_dumb_terminal_gets_plain_lines(lw: CommandLine, several: Project, tmp_path: Path) -> None:
    with Terminal(tmp_path, line_of(lw, "build", prefix=("env", "TERM=dumb"))) as terminal:
        terminal.ended()
        assert "\x1b[" not in terminal.coloured()
        assert live(terminal.scrolled()) == []


# In a log.


def test_a_log_has_no_escapes_and_says_how_far_long_transfers_are(lw: CommandLine, several: Project) -> None:
    ran = lw("build", "-p", "2", env={"LAYERWRIGHT_LOG_PROGRESS_EVERY": "0.4"})
    assert not set("\x1b\r") & set(ran.stdout + ran.stderr)
    told = [float(amount) for amount in re.findall(r"^pulling: pull 127\S+base/large  ([\d.]+)/3\.0 MiB, \S+ \S+/s, \d+s$", ran.stdout, re.MULTILINE)]
    assert len(told) >= 3, ran
    assert told == sorted(told)
    assert re.search(r"^pull 127\S+base/large \w{12}  3\.0 MiB$", ran.stdout, re.MULTILINE)
    assert ran.stdout.splitlines()[-1].startswith("Running time ")


def test_a_silent_command_is_told_of(lw: CommandLine, several: Project) -> None:
    ran = lw("build", "running", env={"LAYERWRIGHT_LOG_PROGRESS_EVERY": "0.15"})
    assert re.search(r"^running/install: at work for \ds$", ran.stdout, re.MULTILINE), ran
    assert "at work" not in lw("build", "pulling", "--log-progress-every", "0").stdout


@pytest.fixture
def built(lw: CommandLine, project: Project) -> CommandLine:
    project.write("hello", "x")
    project.werf("image: app\nfrom: scratch\ngit: [{add: /hello, to: /hello}]\n")
    project.commit()
    lw("build")
    return lw


@pytest.mark.parametrize(
    ("env", "arguments", "coloured"),
    [
        ({}, (), False),
        ({"FORCE_COLOR": "1"}, (), True),
        ({"FORCE_COLOR": "0"}, (), False),
        ({"CLICOLOR_FORCE": "1"}, (), True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, (), False),
        ({"NO_COLOR": "1"}, ("--log-color-mode", "on"), True),
        ({"WERF_LOG_COLOR_MODE": "on"}, (), True),
        ({"FORCE_COLOR": "1"}, ("--log-color-mode", "off"), False),
    ],
)
def test_colours_are_where_they_are_wanted(built: CommandLine, env: dict[str, str], arguments: tuple[str, ...], coloured: bool) -> None:
    assert ("\x1b[32m" in built("build", *arguments, env=env).stdout) is coloured


def test_lines_begin_with_the_time_if_wanted(built: CommandLine) -> None:
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d Use previously", built("build", "--log-time").stdout)
    assert re.match(r"\d\d:\d\d:\d\d Use previously", built("build", "--log-time", "--log-time-format", "%H:%M:%S").stdout)
    env = {"WERF_LOG_TIME": "1", "WERF_LOG_TIME_FORMAT": "15h04"}
    assert re.match(r"\d\dh\d\d Use previously", built("build", env=env).stdout)


def test_the_totals_have_what_an_export_moved(built: CommandLine, registry: RegistryServer) -> None:
    exported = built("export", "app", "--to", f"docker://{registry.reference('terminal/exported:1')}")
    assert re.search(r"^Running time .* [\d.]+ (K|M)?i?B pushed, \d+ requests\)$", exported.stderr, re.MULTILINE), exported
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", exported.stdout)


def test_debug_says_what_is_asked_and_what_runs(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    project.werf(busybox_image("app", base_images.busybox, install="true"))
    project.commit()
    ran = lw("build", "--log-debug")
    assert re.search(r"^\[registry\] (GET|HEAD) \S+/manifests/\S+ 200$", ran.stdout, re.MULTILINE), ran
    assert re.search(r"^\[container\] app/install: /bin/sh, layers: 1, network host, env PATH ", ran.stdout, re.MULTILINE), ran
    assert "[registry]" not in lw("build", "--log-verbose", env={"LAYERWRIGHT_HOME": str(lw.home) + "2"}).stdout


# JSON.


def test_json_has_one_object_for_each_event(lw: CommandLine, several: Project) -> None:
    ran = lw("build", "-p", "2", "--log-format", "json")
    told = [json.loads(line) for line in ran.stderr.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"]) for one in told)
    names = [one["event"] for one in told]
    assert (names[0], names[-1]) == ("build_started", "build_done")
    assert sorted(told[0]["sets"][0]) == ["pulling", "running"]
    assert [one["text"] for one in told if one["event"] == "stage_output"] == ["begun", "over"]
    moved = [one for one in told if one["event"] == "progress" and one["image"] == "pulling" and one["action"] == "pull"]
    assert moved[-1]["done"] == moved[-1]["total"] > 3 * MIB - 1
    assert moved[-1]["finished"] is True
    done = told[-1]
    assert (done["built"], done["reused"], done["outcome"]) == (4, 0, "done")
    assert done["pulled_bytes"] > 3 * MIB
    assert re.fullmatch(r"(Image (pulling|running)  test:[0-9a-f]{56}\n){2}", ran.stdout)
    again = lw("build", env={"WERF_LOG_FORMAT": "json"})
    assert {json.loads(line)["event"] for line in again.stderr.splitlines()} == {"stage_reused", "image_done", "build_done"}
    assert lw("build", "-q", "--log-format=json").stderr == ""


def test_json_tells_errors_too(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    project.werf(busybox_image("app", base_images.busybox, install="echo half; exit 3"))
    project.commit()
    failed = lw("build", "--log-format", "json", code=1)
    told = [json.loads(line) for line in failed.stderr.splitlines()]
    assert [one["event"] for one in told[-3:]] == ["stage_failed", "build_done", "error"]
    assert told[-3]["log"] == "half"
    assert told[-2]["outcome"] == "failed"
    assert {key: told[-1][key] for key in ("what", "where", "exit_code")} == {
        "what": "image 'app', stage install: `echo half; exit 3` failed: exit status 3",
        "where": "werf.yaml:7",
        "exit_code": 1,
    }
    wrong = json.loads(lw("build", "--log-format", "json", "--nosuch", code=2).stderr)
    assert (wrong["event"], wrong["exit_code"]) == ("error", 2)
    project.werf("image: app\nfrom: x\nbogus: 1\nother: 2\n")
    project.commit()
    faults = [json.loads(line) for line in lw("build", code=2, env={"LAYERWRIGHT_LOG_FORMAT": "json"}).stderr.splitlines()]
    assert [one["where"] for one in faults] == ["werf.yaml:6:1", "werf.yaml:7:1"]


# Folds.


@pytest.fixture
def chatty(project: Project, base_images: BaseImages) -> Project:
    """Two images whose commands print in turns, and try to give orders to CI systems."""
    orders = (
        r"echo ::set-output name=a::b; echo '##[add-mask]x'; echo ::endgroup::; printf 'section_end:1:x\r\033[0K\n'; "
        "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.15; done"
    )
    project.werf("---\n".join(busybox_image(name, base_images.busybox, install=f"{orders}; echo {name}") for name in ("one", "two")))
    project.commit()
    return project


def test_github_folds_each_stage_and_takes_no_orders_from_it(lw: CommandLine, chatty: Project) -> None:
    ran = lw("build", "-p", "2", env=GITHUB)
    assert ran.stderr == ""
    commands, inside = obeyed(ran.stdout)
    assert [(name, rest) for name, rest in commands if name != "stop-commands"] in (
        [("group", "one/install: output"), ("endgroup", ""), ("group", "two/install: output"), ("endgroup", "")],
        [("group", "two/install: output"), ("endgroup", ""), ("group", "one/install: output"), ("endgroup", "")],
    )
    assert sorted(len(lines) for lines in inside) == [11, 11]
    assert all(len({line.partition(" | ")[0] for line in lines}) == 1 for lines in inside), "no fold mixes two stages"


def obeyed(log: str) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """What GitHub's runner would do with a log: the commands it obeys, and the lines while it was told to obey none."""
    commands: list[tuple[str, str]] = []
    stopped: list[list[str]] = []
    token = None
    for line in log.splitlines():
        found = re.match(r"\s*::([^ :]+)[^:]*::(.*)$", line)
        if token is not None:
            if found and found[1] == token:
                token = None
            else:
                stopped[-1].append(line)
        elif found:
            commands.append((found[1], found[2]))
            if found[1] == "stop-commands":
                token = found[2]
                stopped.append([])
    assert token is None
    return commands, stopped


def test_gitlab_folds_each_stage(lw: CommandLine, chatty: Project) -> None:
    out = lw("build", "-p", "2", env=GITLAB).stdout
    mark = re.compile(r"section_(start|end):\d+:([a-zA-Z0-9_.-]+)(?:\[collapsed=true\])?\r\x1b\[0K")
    marks = mark.findall(out)
    assert [kind for kind, _ in marks] == ["start", "end", "start", "end"]
    assert marks[0][1] == marks[1][1] != marks[2][1] == marks[3][1]
    _, first, between, second, rest = re.split(r"section_(?:start|end):\d+:[^\r]*\r\x1b\[0K", out)
    assert {first.count("one/install |"), first.count("two/install |")} == {0, 11}
    assert {second.count("one/install |"), second.count("two/install |")} == {0, 11}
    assert "| " not in between + rest
    assert len(re.findall("^Built stage", between + rest, re.MULTILINE)) >= 2
    assert "section_" not in lw("build", "--log-folding", "off", env=GITLAB).stdout


def test_what_a_failed_stage_printed_is_shown_unfolded(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    project.werf(busybox_image("app", base_images.busybox, install="echo why; echo ::error::mine; exit 3"))
    project.commit()
    failed = lw("build", env=GITHUB, code=1)
    after_folds = failed.stdout.rpartition("::endgroup::")[2]
    assert "app/install | why" in after_folds
    assert [name for name, _ in obeyed(after_folds)[0]] == ["stop-commands"]
    assert re.fullmatch(r"::error file=werf\.yaml,line=7::werf\.yaml:7: image 'app', stage install: .*%0A.*\n", failed.stderr), failed.stderr
    on_gitlab = lw("build", env=GITLAB, code=1).stdout
    assert "app/install | why" in on_gitlab.rpartition("section_end")[2]


def test_github_gets_warnings_as_annotations(built: CommandLine, project: Project) -> None:
    project.write("hello", "changed")
    assert re.search(r"^::warning::uncommitted changes are not in the images: hello", built("build", env=GITHUB).stderr, re.MULTILINE)


# Completion.


@pytest.fixture
def shop(built: CommandLine, project: Project, tmp_path: Path) -> CommandLine:
    """`layerwright` on PATH, and images to complete."""
    project.werf("image: backend\nfrom: scratch\n---\nimage: batch\nfrom: scratch\n---\nimage: frontend\nfrom: scratch\n")
    project.commit()
    program = tmp_path / "bin" / "layerwright"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m layerwright "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{built.environment()['PATH']}"
    return CommandLine(home=built.home, user_home=built.user_home, directory=built.directory, more={**built.more, "PATH": path})


def in_shell(lw: CommandLine, argv: list[str], setup: str, tmp_path: Path) -> Terminal:
    settings = " ".join(f"{name}='{value}'" for name, value in {**lw.environment(), "TERM": "xterm-256color", "PS1": "> ", "fish_greeting": ""}.items())
    terminal = Terminal(tmp_path, f"cd {lw.directory} && env {settings} {' '.join(argv)}", width=90)
    terminal.type(f"{setup}; echo re''ady", "Enter")
    terminal.until(lambda screen: bool(re.search("^ready", screen, re.MULTILINE)))
    return terminal


SHELLS: dict[str, tuple[list[str], str]] = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(layerwright completion)"'),
    "zsh": (["zsh", "-f"], 'autoload -U compinit; compinit -u -D; eval "$(layerwright completion --shell zsh)"'),
    "fish": (["fish", "--no-config"], "layerwright completion --shell fish | source"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_options_images_and_places(shop: CommandLine, tmp_path: Path, shell: str) -> None:
    find_program(shell)
    argv, setup = SHELLS[shell]
    with in_shell(shop, argv, setup, tmp_path) as terminal:
        for typed, completed in (
            ("layerwright bui", "layerwright build "),
            ("fro", "frontend "),
            ("--log-form", "--log-format "),
            ("js", "--log-format json"),
            ("--conf", "--config "),
            ("wer", "werf.yaml"),
        ):
            terminal.type("-l", "--", typed)
            terminal.type("Tab")
            terminal.until(lambda screen, completed=completed: completed.strip() in screen.replace("\n", ""))  # type: ignore[misc]
        terminal.type("C-u")  # not C-c: what is typed while a shell handles a signal may be lost
        terminal.type("-l", "--", "layerwright export backend --to oci-archive:he")
        terminal.type("Tab")
        terminal.until(lambda screen: "oci-archive:hello" in screen)


def test_bash_lists_the_images(shop: CommandLine, tmp_path: Path) -> None:
    argv, setup = SHELLS["bash"]
    with in_shell(shop, argv, setup, tmp_path) as terminal:
        terminal.type("-l", "--", "layerwright build ba")
        terminal.type("Tab", "Tab")
        terminal.until(lambda screen: bool(re.search(r"^backend +batch", screen, re.MULTILINE)))


def completed(lw: CommandLine, line: str) -> list[str]:
    env = {"_LAYERWRIGHT_COMPLETE": "bash", "COMP_LINE": line, "COMP_BEGUN": line.split(" ")[-1]}
    answer = lw(env=env)
    assert answer.stderr == ""
    return [one.split("\t")[2] for one in answer.stdout.splitlines()]


def test_completion_says_nothing_of_errors(shop: CommandLine, project: Project, tmp_path: Path) -> None:
    assert completed(shop, "layerwright build b") == ["backend", "batch"]
    assert completed(shop, "layerwright build backend b") == ["batch"]
    assert completed(shop, "layerwright run fr") == completed(shop, "layerwright stage image f") == ["frontend"]
    assert completed(shop, "layerwright build --log-format=") == ["text", "json"]
    assert "build" in completed(shop, "layerwright ")
    project.werf("image: [broken\n")
    project.commit()
    assert completed(shop, "layerwright build b") == []
    assert "--log-format" in completed(shop, "layerwright build --log")
    elsewhere = CommandLine(home=shop.home, user_home=shop.user_home, directory=tmp_path, more=shop.more)
    assert completed(elsewhere, "layerwright build b") == []
    assert completed(shop, "layerwright nosuch x 'unfinished") == []
    assert "no completion for powershell" in shop("completion", "--shell", "powershell", code=2).stderr


# Ends.


def test_a_terminated_run_says_nothing_and_ends_as_the_signal_has_it(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    project.werf(busybox_image("app", base_images.busybox, install="true"))
    project.commit()
    lw("build")
    argv = [sys.executable, "-m", "layerwright", "run", "-q", "app", "--", "sh", "-c", "echo up; exec sleep 60"]
    with subprocess.Popen(
        argv, cwd=lw.directory, env=lw.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        run.terminate()
        _, errors = run.communicate(timeout=20)
    assert (run.returncode, errors) == (143, "")
    missing = lw("run", "-q", "app", "--", "no-such-program", code=127)
    assert missing.stderr.startswith("Error: image 'app': there is no no-such-program"), missing
    assert missing.stderr.count("no-such-program") == 1
    assert lw("run", "-q", "app", "--", "/bin/../bin/echo", "there").stdout == "there\n"
    assert "no such file" in lw("image", "load", "/nowhere.tar", code=2).stderr


def test_mistakes_are_answered_with_what_is_to_be_had(built: CommandLine) -> None:
    assert "Did you mean: layerwright build" in built("buidl", code=2).stderr
    assert "Did you mean --log-quiet" in built("build", "--log-quite", code=2).stderr
    assert "--follow" not in built("build", "--foo", code=2).stderr
    assert "--parallel-tasks-limit" not in built("build", "--parallel-task", code=2).stderr
    assert "for example: layerwright export app --to" in built("export", code=2).stderr
