"""The command line: every command and flag, what goes to which stream, exit codes, and odd surroundings. Never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine, Ran
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.terminal import Terminal, line_of

COMMANDS = (
    ("build",),
    ("run",),
    ("export",),
    ("stage", "image"),
    ("config", "list"),
    ("config", "graph"),
    ("image", "load"),
    ("image", "ls"),
    ("image", "rm"),
    ("image", "pull"),
    ("introspect",),
    ("version",),
)


@pytest.fixture
def declared(project: Project, base_images: BaseImages) -> Project:
    """Two images that no command is needed for: `app` stands on `base`."""
    project.write("hello", "hello\n")
    project.werf(
        f"""
        image: base
        final: false
        from: {base_images.busybox}
        ---
        image: app
        fromImage: base
        git:
          - add: /hello
            to: /srv/hello
        imageSpec:
          config: {{env: {{A: b}}}}
        """
    )
    project.commit()
    return project


@pytest.fixture
def with_command(project: Project, base_images: BaseImages) -> Project:
    project.werf(f"image: app\nfrom: {base_images.busybox}\nshell:\n  install: ['echo made >/made']\n")
    project.commit()
    return project


def run_raw(lw: CommandLine, shell_line: str) -> Ran:
    """Run a shell line in which `layerwright` is the command."""
    line = f'layerwright() {{ "{sys.executable}" -m layerwright "$@"; }}; {shell_line}'
    done = subprocess.run(["bash", "-c", line], cwd=lw.directory, env=lw.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return Ran((shell_line,), done.returncode, done.stdout, done.stderr)


# Help and names.


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(lw: CommandLine, command: Sequence[str]) -> None:
    shown = lw(*command, "--help")
    assert shown.stderr == ""
    assert shown.stdout.startswith(f"Usage: layerwright {' '.join(command)}")
    assert re.search(rf"^  layerwright {' '.join(command)}", shown.stdout, re.MULTILINE)
    for line in re.findall(r"^  (-.*)$", shown.stdout, re.MULTILINE):
        assert re.search(r"\S {2,}\S", line) or len(line) > 25, f"{line}: says nothing of what it is for"


def test_the_help_of_all_lists_the_commands(lw: CommandLine) -> None:
    shown = lw("--help").stdout
    assert {command for command, *_ in COMMANDS} <= set(re.findall(r"^  ([a-z]+)  ", shown, re.MULTILINE))
    assert lw("-h").stdout == shown


def test_version_prints_the_version_only(lw: CommandLine) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", lw("version").stdout)
    assert lw("--version").stdout == lw("version").stdout


# Flags and their twins in the environment.


def test_a_flag_has_twins_and_the_nearest_wins(lw: CommandLine, declared: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    at = str(declared.path)
    assert "no git work tree" in lw("config", "list", directory=elsewhere, code=2).stderr
    for env in ({"LAYERWRIGHT_DIR": at}, {"WERF_DIR": at}, {"LAYERWRIGHT_DIR": at, "WERF_DIR": "/nowhere"}):
        assert lw("config", "list", directory=elsewhere, env=env).stdout == "base\napp\n"
    assert lw("config", "list", "--dir", at, directory=elsewhere, env={"LAYERWRIGHT_DIR": "/nowhere"}).stdout == "base\napp\n"


@pytest.mark.parametrize("name", ["LAYERWRIGHT", "WERF"])
def test_switches_and_values_are_read_from_the_environment(lw: CommandLine, declared: Project, tmp_path: Path, name: str) -> None:
    report = tmp_path / "report.json"
    env = {f"{name}_SAVE_BUILD_REPORT": "1", f"{name}_BUILD_REPORT_PATH": str(report), f"{name}_LOG_QUIET": "true", f"{name}_LOG_COLOR_MODE": "on"}
    assert lw("build", env=env).stdout == ""
    assert set(json.loads(report.read_text())["Images"]) == {"base", "app"}
    report.unlink()
    off = {**env, f"{name}_SAVE_BUILD_REPORT": "false", f"{name}_LOG_QUIET": "0"}
    assert "\x1b[32mUse previously built image" in lw("build", env=off).stdout
    assert not report.exists()
    assert lw("config", "list", env={f"{name}_FINAL_IMAGES_ONLY": "yes"}).stdout == "app\n"
    assert "'nonsense' is not" in lw("build", env={f"{name}_PLATFORM": "nonsense"}, code=2).stderr
    assert (
        "not there" in lw("build", env={f"{name}_CONFIG": "other.yaml"}, code=2).stderr
        or "other.yaml" in lw("build", env={f"{name}_CONFIG": "other.yaml"}, code=2).stderr
    )


@pytest.mark.parametrize("flag", ["--synchronization", "--virtual-merge", "--dev", "--env", "--follow", "--ssh-key"])
def test_what_werf_has_and_we_have_not_yet_is_refused_by_name(lw: CommandLine, declared: Project, flag: str) -> None:
    value = () if flag in ("--dev", "--follow", "--virtual-merge") else ("x",)
    assert re.search(rf"^Error: {flag}: .* not supported yet", lw("build", flag, *value, code=2).stderr, re.MULTILINE)


# What is printed.


def test_a_build_prints_a_line_for_each_stage(lw: CommandLine, declared: Project) -> None:
    first = lw("build")
    stages = ["base/from", "app/from", "app/gitArchive", "app/imageSpec"]
    assert re.findall(r"^Building stage (\S+)$", first.stdout, re.MULTILINE) == stages
    assert re.findall(r"^Built stage (\S+)  \(", first.stdout, re.MULTILINE) == stages
    assert "\x1b" not in first.stdout
    assert first.stderr == ""
    second = lw("build", "app")
    assert re.findall(r"^Use previously built image for (\S+)", second.stdout, re.MULTILINE) == stages
    assert "Build" not in second.stdout
    name = lw("stage", "image", "app").stdout
    assert f"Image app  {name}" in second.stdout
    assert re.search(r"^Running time \d+\.\d\d seconds", second.stdout, re.MULTILINE)
    assert "reused" in second.stdout


def test_quiet_prints_nothing_and_verbose_the_reasons(lw: CommandLine, declared: Project) -> None:
    reasons = lw("build", "--log-verbose").stdout
    assert re.search(r"^Building stage base/from  \(no stage \w+ in storage\)$", reasons, re.MULTILINE)
    assert (lw("build", "-q").stdout, lw("build", "-q").stderr) == ("", "")


def test_results_alone_are_on_standard_output(lw: CommandLine, declared: Project, tmp_path: Path) -> None:
    assert lw("stage", "image", "app", code=1).stdout == ""
    exported = lw("export", "app", "--to", f"oci-archive:{tmp_path}/app.tar")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", exported.stdout)
    assert "Building stage app/from" in exported.stderr
    assert re.fullmatch(r"test:[0-9a-f]{56}\n", lw("stage", "image", "app").stdout)
    assert lw("config", "list").stdout == "base\napp\n"
    assert lw("config", "list", "--final-images-only").stdout == "app\n"
    assert lw("config", "graph").stdout == "- image: base\n- image: app\n  dependsOn:\n    from: base\n"
    assert lw("config", "graph", "base").stdout == "- image: base\n"


def test_images_are_chosen_by_patterns(lw: CommandLine, declared: Project) -> None:
    assert "app/" not in lw("build", "b*").stdout
    assert "no image" in lw("build", "nothing*", code=2).stderr
    assert "app/from" in lw("build", "*", "!base").stdout
    assert "no image is named 'missing'" in lw("build", "missing", code=2).stderr


def test_the_report_says_what_was_built(lw: CommandLine, declared: Project, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    reports = []
    for _ in range(2):
        lw("build", "--save-build-report", "--build-report-path", str(report))
        reports.append(json.loads(report.read_text()))
    name = lw("stage", "image", "app").stdout.strip()
    for read, rebuilt in zip(reports, (True, False), strict=True):
        app = read["Images"]["app"]
        assert (app["DockerImageName"], app["WerfImageName"], app["Final"], app["Rebuilt"]) == (name, "app", True, rebuilt)
        assert app["DockerTag"] == name.partition(":")[2]
        assert app["Commit"] == declared.head()
        assert [stage["Name"] for stage in app["Stages"]] == ["from", "gitArchive", "imageSpec"]
        assert {stage["Rebuilt"] for stage in app["Stages"]} == {rebuilt}
        assert read["Images"]["base"]["Final"] is False
    assert reports[0]["Images"]["app"]["DockerImageID"] == reports[1]["Images"]["app"]["DockerImageID"]
    lw("build", "--save-build-report", "--build-report-path", str(tmp_path / "report.env"))
    lines = dict(line.split("=", 1) for line in (tmp_path / "report.env").read_text().splitlines())
    assert (lines["WERF_APP_DOCKER_IMAGE_NAME"], lines["WERF_BASE_FINAL"]) == (name, "false")
    lw("build", "--save-build-report", directory=declared.path)
    assert json.loads((declared.path / ".werf-build-report.json").read_text())["Images"]
    assert "ends in .json or .env" in lw("build", "--save-build-report", "--build-report-path", "r.xml", code=2).stderr


def test_uncommitted_changes_are_warned_of(lw: CommandLine, declared: Project) -> None:
    declared.write("hello", "changed")
    for _ in range(2):
        assert "Warning: uncommitted changes are not in the images: hello" in lw("build", "-q").stderr


# Exporting.


@pytest.mark.parametrize("kind", ["oci-archive:{}/app.tar", "docker-archive:{}/app.tar:example.com/app:1", "oci:{}/app", "docker://{registry}/exported/app:1"])
def test_skopeo_reads_every_export(lw: CommandLine, declared: Project, tmp_path: Path, registry: RegistryServer, kind: str) -> None:
    to = kind.format(tmp_path, registry=registry.address)
    lw("export", "app", "--to", to)
    source = to if not to.startswith("docker-archive") else f"docker-archive:{tmp_path}/app.tar:example.com/app:1"
    command = [find_program("skopeo"), "inspect", "--config", *(["--tls-verify=false"] if to.startswith("docker:") else []), source]
    config = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert "A=b" in config["config"]["Env"]
    assert not [label for label in config["config"].get("Labels") or {} if label.startswith("werf")]


@pytest.mark.parametrize("to", ["app.tar", "tar:app.tar", "oci-archive:", "docker:example.com/app", "docker://not a reference"])
def test_a_wrong_destination_is_refused_before_anything_is_built(lw: CommandLine, declared: Project, to: str) -> None:
    failed = lw("export", "app", "--to", to, code=2)
    assert failed.stderr.startswith("Error: ")
    assert "Building" not in failed.stderr
    assert not lw.home.exists()


# Running.


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_run_hands_arguments_files_and_the_exit_code_through(lw: CommandLine, with_command: Project) -> None:
    words = ["a b", "it's", "$HOME", "", "--help", "-x", "*"]
    assert lw("run", "-q", "app", "--", "printf", "<%s>", *words).stdout == "".join(f"<{word}>" for word in words)
    built = lw("run", "app", "--", "sh", "-c", "echo to out; echo to err >&2; exit 42", code=42)
    assert built.stdout == "to out\n"
    assert built.stderr.endswith("to err\n")
    assert "Use previously built image for app/install" in built.stderr
    piped = run_raw(lw, "printf 'one\\ntwo\\n' | layerwright run -q app -- sed s/o/0/g | cat")
    assert piped.stdout == "0ne\ntw0\n"
    assert lw("run", "-q", "-e", "A=x y", "--env-var", "B=", "app", "--", "sh", "-c", 'echo "$A|$B"').stdout == "x y|\n"
    assert lw("run", "-q", "-u", "www-data", "-w", "/tmp", "app", "--", "sh", "-c", "id -u; pwd").stdout == "33\n/tmp\n"
    assert lw("run", "-q", "--entrypoint", "/bin/echo", "app", "--", "given").stdout == "given\n"
    assert lw("run", "-q", "--dry-run", "app", "--", "ls", "a b").stdout == "ls 'a b'\n"
    assert lw("run", "-q", "--dry-run", "--", "ls", "--", "-q").stdout == "ls -- -q\n"  # the only image
    assert lw("run", "-q", "app", env={"LAYERWRIGHT_ENTRYPOINT": "/bin/pwd"}).stdout == "/\n"
    numbered = {"LAYERWRIGHT_ENV_VAR_1": "A=from the environment", "LAYERWRIGHT_ENV_VAR_2": "B=2"}
    assert lw("run", "-q", "-e", "B=3", "app", "--", "sh", "-c", 'echo "$A $B"', env=numbered).stdout == "from the environment 3\n"


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_run_says_what_is_wrong(lw: CommandLine, with_command: Project) -> None:
    assert "no-such-program" in lw("run", "-q", "app", "--", "no-such-program", code=127).stderr
    assert "'nobodyatall' is not in the image's /etc/passwd" in lw("run", "-q", "-u", "nobodyatall", "app", "--", "id", code=2).stderr
    assert "go behind --" in lw("run", "app", "ls", "-l", code=2).stderr
    assert "exclude one another" in lw("run", "--shell", "app", "--", "ls", code=2).stderr
    assert "write NAME=VALUE" in lw("run", "-e", "A", "app", code=2).stderr


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_what_a_command_changes_in_a_run_is_gone_after_it(lw: CommandLine, with_command: Project) -> None:
    lw("run", "-q", "app", "--", "rm", "/made")
    assert lw("run", "-q", "app", "--", "cat", "/made").stdout == "made\n"


# Exit codes and odd surroundings.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build", "--nosuch"), "No such option"),
        (("buidl",), "No such command"),
        (("cleanup",), "not supported yet"),
        (("export", "app"), "--to"),
        (("build", "--parallel", "0"), "not a number of images"),
        (("build", "--backend-network", "moon"), "moon"),
        (("build", "--git-work-tree", "/nowhere"), "/nowhere"),
        (("image", "rm", "nosuch:1"), "no image"),
        (("run", "app", "-e", "=x", "--", "env"), "write NAME=VALUE"),
        (("introspect", "--", "ls"), "name the state"),
    ],
)
def test_wrong_usage_ends_with_2(lw: CommandLine, declared: Project, arguments: Sequence[str], said: str) -> None:
    failed = lw(*arguments, code=2)
    assert said in failed.stderr
    assert failed.stdout == ""
    assert "bug" not in failed.stderr


@pytest.mark.parametrize("words", [(), ("cr",), ("host",)])
def test_no_command_is_answered_by_the_help_alone(lw: CommandLine, words: Sequence[str]) -> None:
    failed = lw(*words, code=2)
    assert failed.stderr.count("Usage:") == 1
    assert "Error" not in failed.stderr
    assert "No command was given" in lw(*words, env={"LAYERWRIGHT_LOG_FORMAT": "json"}, code=2).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("image", "pull", "ann:s3cret@r.example/app"),
        ("image", "pull", "ann:s3/cret@r.example/app@sha256:12"),
        ("export", "app", "--to", "docker://ann:s3cret@r.example/app:1"),
        ("export", "app", "--to", "https://ann:s3cret@r.example/app:1"),
        ("cr", "login", "http://ann:s3cret@r.example"),
        ("cr", "logout", "ann:s3/cret@r.example"),
    ],
)
def test_a_login_in_the_wrong_place_is_not_shown(lw: CommandLine, declared: Project, words: Sequence[str]) -> None:
    failed = lw(*words, code=2)
    assert "***@r.example" in failed.stderr
    assert "s3" not in failed.stderr


def test_every_fault_of_a_configuration_is_told_at_once(lw: CommandLine, project: Project) -> None:
    project.werf("image: app\nfrom: x\nbogus: 1\nshell: {install: {a: b}}\n")
    project.commit()
    failed = lw("build", code=2)
    assert re.search(r"werf\.yaml:6:", failed.stderr)
    assert re.search(r"werf\.yaml:7:", failed.stderr)


def test_a_base_that_is_not_there_ends_with_1(lw: CommandLine, project: Project, registry: RegistryServer) -> None:
    project.werf(f"image: app\nfrom: {registry.reference('no/such:1')}\n")
    project.commit()
    failed = lw("build", code=1)
    assert failed.stderr.startswith("Error: werf.yaml:5:")
    assert len(failed.stderr.splitlines()) == 2  # what is wrong, and how to mend it


@pytest.mark.needs_root
def test_a_missing_program_ends_with_3_and_how_to_get_it(lw: CommandLine, with_command: Project, tmp_path: Path) -> None:
    assert "apt-get install git" in lw("build", env={"PATH": str(tmp_path)}, code=3).stderr
    runtimes = [
        path
        for name in ("crun", "runc")
        for path in (f"/usr/bin/{name}", f"/usr/sbin/{name}", f"/usr/local/bin/{name}", f"/usr/local/sbin/{name}")
        if os.path.exists(path)
    ]
    hide = "".join(f"mount --bind /dev/null {path} && " for path in runtimes)
    argv = ["unshare", "--mount", "sh", "-c", f'{hide}exec "$0" -m layerwright build', sys.executable]
    done = subprocess.run(argv, cwd=lw.directory, env=lw.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "no OCI runtime is installed" in done.stderr
    assert "apt-get install runc" in done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("layerwright build >&-", 0, ""),
        ("layerwright build 2>&- >&-", 0, ""),
        ("layerwright config list <&-", 0, ""),
        ("layerwright build nosuch 2>&-", 2, ""),
        ("layerwright config list >/dev/full", 3, "standard output: No space left on device"),
        ("layerwright build nosuch 2>/dev/full", 2, ""),
        ("layerwright config list | true", 0, ""),
        ("set -o pipefail; yes | head -n 100000 | layerwright config list | cat", 0, ""),
        ("LAYERWRIGHT_HOME=/proc/nowhere layerwright build", 3, "/proc/nowhere"),
        ("touch ../file; LAYERWRIGHT_HOME=../file layerwright build", 3, "file"),
        ("HOME= LAYERWRIGHT_HOME= layerwright config list", 2, "set LAYERWRIGHT_HOME to a directory of yours"),
        ("HOME=here LAYERWRIGHT_HOME= layerwright config list", 2, "HOME is 'here', which does not begin with /"),
        ("cd / && layerwright build", 2, "no git work tree"),
        ("rm -rf ../gone && mkdir ../gone && cd ../gone && rmdir ../gone && layerwright build", 3, "No such file or directory"),
    ],
)
def test_odd_surroundings_are_no_traceback(lw: CommandLine, declared: Project, line: str, code: int, said: str) -> None:
    ran = run_raw(lw, line)
    assert ran.code in ((code, 1, 141) if "|" in line else (code,)), ran
    assert said in ran.stderr, ran
    assert "Traceback" not in ran.stderr
    assert "bug in" not in ran.stderr
    assert "Exception ignored" not in ran.stderr


# On a terminal.


@pytest.mark.parametrize("width", [100, 30])
def test_a_terminal_shows_what_is_moving_and_keeps_no_trace_of_it(
    lw: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path, width: int
) -> None:
    from tests.support.base_images import push_busybox
    from tests.support.front import Front
    from tools.base_image import make_busybox_tar

    push_busybox(registry, tmp_path)
    assert make_busybox_tar()
    with Front(registry, bytes_per_s=700_000) as slow:
        project.write("hello", "x")
        project.werf(f"image: app\nfrom: {slow.reference('base/busybox:1')}\ngit: [{{add: /hello, to: /hello}}]\n")
        project.commit()
        with Terminal(tmp_path, line_of(lw, "build"), width=width) as terminal:
            seen = watch(terminal)
    moving = [screen for screen in seen if re.search(r"[\d.]+(/[\d.]+)? (KiB|MiB|kB|MB|bytes)", screen) and "ended with" not in screen]
    assert moving, seen
    assert all(sum("pull 127" in line for line in screen.splitlines()) <= 2 for screen in seen), "the moving line is drawn in its place"
    assert "ended with 0" in seen[-1]
    assert "Building stage app/gitArchive" in seen[-1]
    assert "━" not in seen[-1]


def watch(terminal: Terminal) -> list[str]:
    """Every different screen until the program has ended."""
    seen: list[str] = []
    end = time.monotonic() + 30
    while time.monotonic() < end and not (seen and "ended with" in seen[-1]):
        screen = terminal.screen()
        if not seen or seen[-1] != screen:
            seen.append(screen)
        time.sleep(0.05)
    return seen
