"""The library, used by programs of its own: the example and every block of the page run, and what the page promises holds."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tools.base_image import make_busybox_tar, write_layout

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 120


def python(lw: CommandLine, program: str, *arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program with every warning an error; what Python says of files left open goes to stderr."""
    return subprocess.run(
        (sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program), *arguments),
        cwd=directory or lw.directory,
        env=lw.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def silent(lw: CommandLine, program: str, *arguments: str) -> dict[str, Any]:
    """What the program put into `told`; it must have printed nothing at all."""
    answer = lw.user_home / "told.json"
    end = f"with open({str(answer)!r}, 'w') as file:\n    json.dump(told, file)\n"
    ran = python(lw, f"import json, sys\nimport layerwright\ntold = {{}}\n{textwrap.dedent(program)}\n{end}", *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), ran
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


@pytest.fixture
def commands(lw: CommandLine, project: Project, base_images: BaseImages) -> CommandLine:
    """Images that are built, that fail, and that take for ever."""
    project.write("file", "content\n")
    project.werf(f"""
        image: app
        from: {base_images.busybox}
        git: [{{add: /file, to: /file}}]
        shell: {{setup: [echo to stdout, echo to stderr >&2, cat /file > /copy]}}
        ---
        image: broken
        from: {base_images.busybox}
        shell: {{setup: [echo before, exit 3]}}
        ---
        image: endless
        from: {base_images.busybox}
        shell: {{setup: [echo started, sleep 1000000]}}
        """)
    project.commit()
    project.write("file", "not committed\n")
    return lw


# The example and the page.


@pytest.mark.needs_runtime
def test_the_example_runs(lw: CommandLine, base_images: BaseImages) -> None:
    program = (ROOT / "examples/library/build_and_watch.py").read_text()
    ran = python(lw, program, base_images.busybox)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    for line in (
        r"words/setup: no stage [0-9a-f]{12} in storage",
        r"reader: [0-9a-f]{12}, built now: from, imageSpec",
        r"endless: given up after 2 s",
        r"again: 0 stages built, \d+ reused",
        r"exported: sha256:[0-9a-f]{64}, \d+ bytes",
    ):
        assert re.search(f"^{line}$", ran.stdout, re.MULTILINE), (line, ran.stdout)


@pytest.mark.needs_runtime
def test_every_block_of_the_page_runs(lw: CommandLine, tmp_path: Path, base_images: BaseImages) -> None:
    guide = (ROOT / "docs/getting-started.md").read_text()
    config = re.search(r"```yaml\n(.*?)```", guide, re.DOTALL)
    assert config is not None
    project = Project(tmp_path / "path/to/project")
    project.write("werf.yaml", config[1].replace("debian:12-slim", base_images.busybox))
    project.write("words.txt", "world\nhello\n")
    project.commit()
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    ran = python(lw, "\n".join(blocks), directory=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    lines = ran.stdout.splitlines()
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines[:4]] == [f"greeter {stage}" for stage in ("from", "gitArchive", "setup", "imageSpec")]
    assert lines[6:8] == ["hello", "world"]
    assert "4 stages reused" in lines
    assert any(line.startswith("greeter setup Reuse found, built at") for line in lines)
    assert any(line.startswith(base_images.registry.address) for line in lines)


# Nothing printed, nothing global.


@pytest.mark.needs_runtime
def test_nothing_is_printed_whatever_happens(commands: CommandLine) -> None:
    """Seen at the descriptors, so that what programs of a build print would be seen, too."""
    told = silent(
        commands,
        """
        events = []
        with layerwright.open_project() as project:
            project.build(["app"], on_event=events.append)
            project.build(["app"], on_event=events.append)
            try:
                project.build(["broken"], on_event=events.append)
            except layerwright.StageFailedError as error:
                told["log"] = error.log
            project.export(project.find("app"), "oci:layout", on_event=events.append)
        told["output"] = [event.text for event in events if isinstance(event, layerwright.StageOutput)]
        told["warnings"] = [event.text for event in events if isinstance(event, layerwright.Warned)]
        told["ends"] = [event.outcome for event in events if isinstance(event, layerwright.BuildDone)]
        """,
    )
    assert sorted(told["output"]) == ["before", "to stderr", "to stdout"]
    assert told["log"].split() == ["before"]
    assert any("uncommitted" in text for text in told["warnings"])
    assert told["ends"] == ["done", "done", "failed"]


@pytest.mark.needs_runtime
def test_nothing_of_the_process_changes_in_a_thread_of_its_own(commands: CommandLine) -> None:
    told = silent(
        commands,
        """
        import gc, locale, logging, os, signal, socket, threading
        from pathlib import Path

        def state():
            gc.collect()
            mask = os.umask(0o22)
            os.umask(mask)
            return {
                "environment": dict(os.environ), "directory": os.getcwd(), "umask": mask, "locale": locale.setlocale(locale.LC_ALL),
                "signals": [str(signal.getsignal(one)) for one in sorted(signal.valid_signals())], "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
                "logging": [str(logging.getLogger().handlers), logging.getLogger().level, logging.root.manager.disable],
                "timeout": socket.getdefaulttimeout(), "threads": sorted(one.name for one in threading.enumerate()), "hooks": [str(sys.excepthook), str(threading.excepthook)],
                "files": len(os.listdir("/proc/self/fd")), "recursion": sys.getrecursionlimit(), "limits": Path("/proc/self/limits").read_text(), "mounts": Path("/proc/self/mountinfo").read_text(),
            }

        def work(answers, names):
            with layerwright.open_project() as project:
                try:
                    answers.append(project.build(names).image(names[0]).rebuilt)
                except layerwright.LayerwrightError as error:
                    answers.append(type(error).__name__)

        before, answers = state(), []
        for names in (["app"], ["broken"], ["app"]):
            thread = threading.Thread(target=work, args=(answers, names))
            thread.start()
            thread.join()
        after = state()
        told["answers"] = answers
        told["changed"] = {name: [str(before[name]), str(after[name])] for name in before if before[name] != after[name]}
        """,
    )
    assert told["answers"] == [True, "StageFailedError", False]
    assert told["changed"] == {}


def test_projects_with_different_users_work_at_once_in_one_process(lw: CommandLine, tmp_path: Path) -> None:
    """Each has a registry with a password of its own, a directory of credentials, a home and an environment."""
    with RegistryServer(tmp_path / "one", users={"anna": "a"}) as one, RegistryServer(tmp_path / "two", users={"bert": "b"}) as two:
        for number, (server, login) in enumerate(((one, b"anna:a"), (two, b"bert:b"))):
            logins(tmp_path / f"docker{number}", {server.address: login})
            pushed(server, login.decode(), tmp_path / f"layout{number}")
            project = Project(tmp_path / f"project{number}")
            project.write("file", f"{number}\n")
            project.werf(f"image: app\nfrom: {server.address}/base:1\ngit: [{{add: /file, to: /file}}]\n")
            project.commit()
        told = silent(
            lw,
            """
            import os
            from concurrent.futures import ThreadPoolExecutor
            from threading import Barrier

            place = sys.argv[1]
            together = Barrier(2)

            def work(number, config):
                env = {"PATH": os.environ["PATH"], "HOME": f"{place}/home{number}", "LAYERWRIGHT_HOME": f"{place}/store{number}{config}", "DOCKER_CONFIG": f"{place}/docker{config}"}
                with layerwright.open_project(f"{place}/project{number}", env=env) as project:
                    together.wait()
                    try:
                        return project.build().image("app").content_digest
                    except layerwright.LayerwrightError as error:
                        return error.what

            with ThreadPoolExecutor(2) as pool:
                told["right"] = list(pool.map(work, (0, 1), (0, 1)))
                told["wrong"] = list(pool.map(work, (0, 1), (1, 0)))
            """,
            str(tmp_path),
        )
    assert len(set(told["right"])) == 2
    assert all(re.fullmatch("[0-9a-f]{56}", one) for one in told["right"])
    assert ["401 Unauthorized" in one for one in told["wrong"]] == [True, True], told["wrong"]
    assert not (lw.home / "records").exists()


def logins(directory: Path, logins: dict[str, bytes]) -> None:
    directory.mkdir()
    auths = {host: {"auth": base64.b64encode(login).decode()} for host, login in logins.items()}
    (directory / "config.json").write_text(json.dumps({"auths": auths}))


def pushed(server: RegistryServer, login: str, layout: Path) -> None:
    write_layout(layout, [make_busybox_tar()], {"Cmd": ["sh"]})
    command = (find_program("skopeo"), "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", f"--dest-creds={login}", f"oci:{layout}:latest")
    subprocess.run((*command, f"docker://{server.address}/base:1"), check=True, stdin=subprocess.DEVNULL, capture_output=True)


# Stopped.


CANCELLED = """
    import threading, time
    cancel = layerwright.Cancel()
    stop_at = {stop_at!r}

    def stop():
        cancel.set()
        told["set"] = time.monotonic()

    def watch(event):
        if stop_at and stop_at in repr(event) and not cancel.is_set():
            threading.Thread(target=stop).start()

    try:
        with layerwright.open_project({arguments}) as project:
            {before}
            {call}
        told["outcome"] = "went on to its end"
    except layerwright.Cancelled:
        told["outcome"] = "cancelled"
        told["patience_s"] = time.monotonic() - told["set"]
    """
PATIENCE_S = 30.0  # it takes a fraction of a second; on a machine that is busy with other tests it may take longer


def assert_stopped(lw: CommandLine, told: dict[str, Any]) -> None:
    """It was, long before it would have ended by itself, and left no process and no work behind."""
    assert told["outcome"] == "cancelled"
    assert told["patience_s"] < PATIENCE_S
    assert not list((lw.home / "work").glob("*")) if (lw.home / "work").exists() else True
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            mounts = (folder / "mountinfo").read_text(errors="replace")
        except OSError:
            continue
        assert str(lw.home) not in command + mounts, command


@contextmanager
def stalled() -> Iterator[tuple[str, threading.Event]]:
    """A registry that takes connections and says nothing; its address, and what is set once somebody came."""
    came = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            try:
                while True:
                    taken.append(server.accept()[0])
                    came.set()
            except OSError:
                pass

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}", came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in taken:
                one.close()


def test_a_pull_from_a_registry_that_hangs_can_be_stopped(lw: CommandLine, project: Project) -> None:
    with stalled() as (address, came):
        project.werf(f"image: app\nfrom: {address}/base:1\nimageSpec: {{config: {{env: {{A: b}}}}}}\n")
        project.commit()
        program = CANCELLED.format(stop_at="StageStarted", arguments="", before="pass", call="project.build(on_event=watch, cancel=cancel)")
        told = silent(lw, program.replace("def stop():", "def stop():\n        time.sleep(0.3)  # by then it waits for the registry"))
        assert came.is_set()
    assert_stopped(lw, told)


@pytest.mark.needs_runtime
def test_a_command_can_be_stopped(commands: CommandLine) -> None:
    program = CANCELLED.format(stop_at="text='started'", arguments="", before="pass", call="project.build(['endless'], on_event=watch, cancel=cancel)")
    assert_stopped(commands, silent(commands, program))


def test_an_export_can_be_stopped(lw: CommandLine, project: Project) -> None:
    project.write("large", b"\0" * (64 << 20))
    project.werf("image: app\nfrom: scratch\ngit: [{add: /large, to: /large}]\n")
    project.commit()
    call = "project.export(built, 'oci-archive:../out/a.tar', compression='none', on_event=watch, cancel=cancel)"
    (lw.directory.parent / "out").mkdir()
    told = silent(lw, CANCELLED.format(stop_at="action='export'", arguments="", before="built = project.build().image('app')", call=f"time.sleep(0); {call}"))
    assert_stopped(lw, told)
    assert os.listdir(lw.directory.parent / "out") == []


@pytest.mark.parametrize("call", ["plan", "build"])
def test_planning_can_be_stopped_while_git_hangs(lw: CommandLine, project: Project, tmp_path: Path, call: str) -> None:
    """git stands in for a repository so large, or a promised one so far away, that it does not answer: it is asked to list the commit, and sleeps."""
    project.write("file", "x\n")
    project.werf("image: app\nfrom: scratch\ngit: [{add: /, to: /app}]\n")
    project.commit()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(
        f'#!/bin/sh\nfor word; do [ "$word" = ls-tree ] && touch {tmp_path}/asked && exec sleep 1000000; done\nexec {find_program("git")} "$@"\n'
    )
    (programs / "git").chmod(0o755)
    before = """import os
            def stop_when_asked():
                while not os.path.exists(sys.argv[1]):
                    time.sleep(0.01)
                stop()
            threading.Thread(target=stop_when_asked).start()"""
    arguments = f"env={{**__import__('os').environ, 'PATH': {str(programs)!r} + ':' + __import__('os').environ['PATH']}}"
    told = silent(lw, CANCELLED.format(stop_at="", arguments=arguments, before=before, call=f"project.{call}(cancel=cancel)"), f"{tmp_path}/asked")
    assert_stopped(lw, told)


def test_a_cancel_that_is_set_already_lets_nothing_begin(lw: CommandLine, project: Project) -> None:
    project.werf("image: app\nfrom: scratch\nimageSpec: {config: {env: {A: b}}}\n")
    project.commit()
    told = silent(
        lw,
        """
        cancel = layerwright.Cancel()
        cancel.set()
        with layerwright.open_project() as project:
            for call in (project.build, project.plan):
                try:
                    call(cancel=cancel)
                except layerwright.Cancelled:
                    told[call.__name__] = "cancelled"
            told["after"] = project.build().built
        """,
    )
    assert told == {"build": "cancelled", "plan": "cancelled", "after": 2}


@pytest.mark.needs_runtime
def test_a_build_that_fails_does_not_set_the_cancel_of_its_caller(commands: CommandLine) -> None:
    told = silent(
        commands,
        """
        cancel = layerwright.Cancel()
        with layerwright.open_project() as project:
            try:
                project.build(["broken"], cancel=cancel)
            except layerwright.StageFailedError as error:
                told["log"] = error.log
        told["set"] = cancel.is_set()
        """,
    )
    assert told == {"log": "before", "set": False}


# Base images.


def test_base_images_are_taken_listed_and_forgotten(lw: CommandLine, base_images: BaseImages, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", [make_busybox_tar()])
    told = silent(
        lw,
        """
        reference, layout = sys.argv[1:]
        moved = []
        with layerwright.open_images() as images:
            pulled = images.pull(reference, on_event=moved.append)
            (loaded,) = images.load(layout, name="example.com/loaded:1")
            told["listed"] = [image.reference for image in images.list()]
            told["same"] = [pulled, loaded] == sorted(images.list(), key=lambda image: image.source != "pull")
            gone, freed = images.remove(["example.com/loaded:1"])
            told["gone"] = [image.reference for image in gone]
            told["left"] = [image.reference for image in images.list()]
            try:
                images.remove(["example.com/loaded:1"])
            except layerwright.UsageError as error:
                told["mend"] = error.mend
        told["moved"] = max(event.done for event in moved if isinstance(event, layerwright.Progress))
        """,
        base_images.busybox,
        str(tmp_path / "layout"),
    )
    assert told["listed"] == sorted([base_images.busybox, "example.com/loaded:1"])
    assert (told["gone"], told["left"]) == (["example.com/loaded:1"], [base_images.busybox])
    assert told["same"]
    assert told["moved"] > 100_000
    assert "image ls" in told["mend"]
