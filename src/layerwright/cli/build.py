"""`layerwright build`."""

from __future__ import annotations

from typing import Any

from layerwright.cli.auto_cleanup import cleaned_up_after
from layerwright.cli.command import command as define
from layerwright.cli.limits_of_store import after_build_options
from layerwright.cli.options import (
    build_options,
    image_argument,
    introspect_options,
    log_options,
    not_yet,
    option,
    outcome_options,
    project_options,
    registry_options,
    repo_options,
    switch,
)
from layerwright.cli.render import renderer_of
from layerwright.cli.wiring import build_options as as_build_options
from layerwright.cli.wiring import cancelled_by_signals, looking_into_stages, open_project


@define("build")
@image_argument("images", nargs=-1, metavar="[IMAGE]...")
@project_options
@build_options
@introspect_options
@repo_options
@outcome_options
@registry_options
@switch("--save-build-report", help="Write a report of the build.")
@option("--build-report-path", default=".werf-build-report.json", help="Where: ends in .json or .env.", metavar="FILE", show_default=True)
@after_build_options
@log_options
@not_yet
def command(images: tuple[str, ...], save_build_report: bool, build_report_path: str, **options: Any) -> None:
    """Build images of werf.yaml at HEAD, and what they need; what is built already is reused.

    \b
    layerwright build             all images
    layerwright build app         one image
    layerwright build 'back*'     by pattern; '!name' excludes
    layerwright build --repo registry.example/shop     stages kept there
    layerwright build --introspect-error       if a command fails, a shell there
    layerwright build --introspect-stage app/install
    """
    if save_build_report:
        from layerwright.build.report import report_path

        report_path(build_report_path)  # refuse a wrong one before the work
    renderer = renderer_of(options)
    building = as_build_options(options)
    with cleaned_up_after(options, renderer), open_project(options) as project, cancelled_by_signals(renderer.restore_terminal) as cancel, renderer:
        with looking_into_stages(project, building, renderer, cancel) as on_event:
            result = project.build(images, options=building, on_event=on_event, cancel=cancel)
        if save_build_report:
            from layerwright.build.report import write_report

            write_report(result, build_report_path)
        renderer.summary(result)
