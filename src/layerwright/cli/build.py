"""`layerwright build`."""

from __future__ import annotations

from typing import Any

import click

from layerwright.cli.options import build_options, log_options, not_yet, option, project_options, registry_options, switch
from layerwright.cli.render import Renderer
from layerwright.cli.wiring import build_options as as_build_options
from layerwright.cli.wiring import cancelled_by_signals, open_project


@click.command("build")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@project_options
@build_options
@registry_options
@switch("--save-build-report", help="Write a report of the build.")
@option("--build-report-path", default=".werf-build-report.json", help="Where: ends in .json or .env.", metavar="FILE", show_default=True)
@log_options
@not_yet
def command(images: tuple[str, ...], save_build_report: bool, build_report_path: str, **options: Any) -> None:
    """Build images of werf.yaml at HEAD, and what they need; what is built already is reused.

    \b
    layerwright build             all images
    layerwright build app         one image
    layerwright build 'back*'     by pattern; '!name' excludes
    """
    if save_build_report:
        from layerwright.build.report import report_path

        report_path(build_report_path)  # refuse a wrong one before the work
    renderer = Renderer(quiet=options["quiet"], verbose=options["verbose"], color_mode=options["color_mode"])
    with open_project(options) as project, cancelled_by_signals() as cancel, renderer:
        result = project.build(images, options=as_build_options(options), on_event=renderer, cancel=cancel)
        if save_build_report:
            from layerwright.build.report import write_report

            write_report(result, build_report_path)
        renderer.summary(result)
