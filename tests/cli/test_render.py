"""What foreign text can do to a log: nothing."""

from __future__ import annotations

import io

import pytest

from layerwright.build.events import Event, StageBuilt, StageFailed, StageOutput, StageStarted, Warned
from layerwright.cli.lines import LogSettings
from layerwright.cli.render import Renderer

NAME = "app\x1b[2J\n::warning::forged"  # an image may be called anything
SHOWN = "app::warning::forged"
EVENTS: tuple[Event, ...] = (
    StageStarted(image=NAME, stage="install", reason="\x1b]0;title\x07a\n::error::forged changed"),
    StageOutput(image=NAME, stage="install", text="hi"),
    StageBuilt(image=NAME, stage="install", digest="d" * 56, commit="c" * 40, size_bytes=1, added_bytes=1, seconds=1.0),
    StageFailed(image=NAME, stage="setup", log="hi"),
    Warned(text="careful", image=NAME),
)


@pytest.mark.parametrize("folding", ["off", "gitlab", "github"])
def test_names_and_reasons_cannot_begin_a_line_or_move_the_cursor(folding: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with Renderer(LogSettings(verbose=True, folding=folding, progress_every_s=0), out=out, err=err, env={}) as renderer:
        for event in EVENTS:
            renderer(event)
    lines = (out.getvalue() + err.getvalue()).splitlines()
    assert not [line for line in lines if line.startswith(("::warning::forged", "::error::forged"))]
    assert f"Built stage {SHOWN}/install" in out.getvalue()
    assert "\x1b" not in out.getvalue().replace("\x1b[0K", "")
