"""The library at work: two images built in a thread while this one watches, a third given up after a time, a report read, an image exported.

    python examples/library/build_and_watch.py [BASE]

BASE is an image with a shell, debian:12-slim if it is not given. Everything happens in a temporary directory, the store included. Commands
run in containers, so an OCI runtime is needed (apt-get install runc).
"""

from __future__ import annotations

import queue
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import layerwright

GIVE_UP_AFTER_S = 2.0

WERF_YAML = """\
configVersion: 1
project: library-example
---
image: words
from: {base}
git:
  - add: /words.txt
    to: /words.txt
    stageDependencies:
      setup: words.txt
shell:
  setup:
    - sort /words.txt > /sorted
---
image: reader
fromImage: words
imageSpec:
  config:
    cmd: [cat, /sorted]
---
image: endless
from: {base}
shell:
  setup:
    - echo this takes an hour
    - sleep 3600
"""


def make_repository(directory: Path, base: str) -> None:
    """A project: a git repository with werf.yaml in it. What is not committed is not built."""
    directory.mkdir()
    (directory / "werf.yaml").write_text(WERF_YAML.format(base=base))
    (directory / "words.txt").write_text("world\nhello\n")
    who = ("-c", "user.name=example", "-c", "user.email=example@example.com")
    for command in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "--message", "An example")):
        subprocess.run(("git", *command), cwd=directory, check=True)


def build_and_watch(project: layerwright.Project) -> layerwright.BuildResult:
    """Build in another thread; events arrive here while it goes on, until `None` says that it has ended."""
    events: queue.Queue[layerwright.Event | None] = queue.Queue()
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(project.build, ["words", "reader"], on_event=events.put)
        building.add_done_callback(lambda ended: events.put(None))
        while (event := events.get()) is not None:
            match event:
                case layerwright.StageStarted():
                    print(f"{event.image}/{event.stage}: {event.reason}")
                case layerwright.StageOutput():
                    print(f"{event.image}/{event.stage} | {event.text}")
                case layerwright.StageBuilt():
                    print(f"{event.image}/{event.stage}: built, {max(event.added_bytes, 0)} bytes added")
        return building.result()  # raises what went wrong over there


def give_up_in_time(project: layerwright.Project, image: str) -> None:
    """Any thread may set a `Cancel`; the build ends its containers, and raises."""
    cancel = layerwright.Cancel()
    timer = Timer(GIVE_UP_AFTER_S, cancel.set)
    timer.start()
    try:
        project.build([image], cancel=cancel)
    except layerwright.Cancelled:
        print(f"{image}: given up after {GIVE_UP_AFTER_S:.0f} s")
    finally:
        timer.cancel()


def show_report(result: layerwright.BuildResult) -> None:
    for image in layerwright.report_of(result).images:
        stages = ", ".join(stage.name for stage in image.stages if stage.rebuilt) or "nothing"
        print(f"{image.name}: {image.content_digest[:12]}, built now: {stages}")


def main(base: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        make_repository(Path(scratch) / "project", base)
        with layerwright.open_project(f"{scratch}/project", home=f"{scratch}/store") as project:
            show_report(build_and_watch(project))
            give_up_in_time(project, "endless")
            again = project.build(["words", "reader"])
            print(f"again: {again.built} stages built, {again.reused} reused")
            exported = project.export(again.image("reader"), f"oci-archive:{scratch}/reader.tar")
            print(f"exported: {exported.digest}, {Path(scratch, 'reader.tar').stat().st_size} bytes")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "debian:12-slim")
    except layerwright.LayerwrightError as error:
        raise SystemExit(f"error: {error}") from None
