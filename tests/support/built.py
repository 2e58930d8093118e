"""One build as its report and its output tell it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.commandline import CommandLine, Ran


@dataclass(frozen=True, slots=True)
class Built:
    """What `layerwright build --save-build-report` left."""

    ran: Ran
    report: Mapping[str, Any]

    def content(self, image: str = "app") -> str:
        """The content digest: the image's tag."""
        digest: str = self.report["Images"][image]["DockerTag"]
        return digest

    def stages(self, image: str = "app") -> list[str]:
        return [stage["Name"] for stage in self.report["Images"][image]["Stages"]]

    def new(self, image: str = "app") -> list[str]:
        """The stages of the image that this run built."""
        return [stage["Name"] for stage in self.report["Images"][image]["Stages"] if stage["Rebuilt"]]

    def digests(self, image: str = "app") -> dict[str, str]:
        """Stage digests by name."""
        return {stage["Name"]: stage["DockerTag"] for stage in self.report["Images"][image]["Stages"]}

    @property
    def output(self) -> dict[str, str]:
        """What each stage's commands printed, by "image/stage"."""
        printed: dict[str, str] = {}
        for line in self.ran.stdout.splitlines():
            stage, separator, text = line.partition(" | ")
            if separator:
                printed[stage] = printed.get(stage, "") + text + "\n"
        return printed


def build(lw: CommandLine, *arguments: str) -> Built:
    """Build all images of the project, with a report."""
    report = lw.user_home / "report.json"
    ran = lw("build", "--save-build-report", "--build-report-path", str(report), *arguments)
    return Built(ran, json.loads(report.read_bytes()))


def export(lw: CommandLine, image: str = "app") -> Path:
    """The image as an OCI layout of its own."""
    made = lw.user_home / "exported"
    made.mkdir(exist_ok=True)
    layout = made / str(len(list(made.iterdir())))
    lw("export", image, "--to", f"oci:{layout}")
    return layout
