"""Which stages `--introspect-stage` means."""

from __future__ import annotations

import pytest

from layerwright.build.introspection import chosen_stages
from layerwright.config.model import Config
from layerwright.errors import UsageError
from tests.config.loading import META, load

WERF = """
image: ~
from: scratch
shell: {install: [a]}
---
image: back/api
final: false
from: base:1
shell: {beforeInstall: [a], install: [b]}
---
image: back/worker
final: false
from: scratch
git: [{add: /, to: /app}]
"""


@pytest.fixture
def config() -> Config:
    return load(f"{META}---{WERF}")


ALL = ("", "back/api", "back/worker")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], {}),
        (["install"], {"": {"install"}, "back/api": {"install"}}),
        (["*/install"], {"": {"install"}, "back/api": {"install"}}),
        (["~/install"], {"": {"install"}}),
        (["back/api/install", "back/api/beforeInstall"], {"back/api": {"install", "beforeInstall"}}),
        (["back/*/from"], {"back/api": {"from"}, "back/worker": {"from"}}),
        ([" back/worker/gitLatestPatch "], {"back/worker": {"gitLatestPatch"}}),
    ],
)
def test_stages_are_chosen_by_image_and_name(config: Config, wanted: list[str], chosen: dict[str, set[str]]) -> None:
    assert chosen_stages(config, ALL, wanted) == chosen


@pytest.mark.parametrize(
    ("built", "wanted", "said"),
    [
        (ALL, "instal", "'instal' is no stage\n  did you mean 'install'? there are: from, beforeInstall"),
        (ALL, "", "'' is no stage\n  there are: from"),
        (ALL, "back/apo/install", "no image is named 'back/apo'\n  did you mean 'back/api'?"),
        (ALL, "back/api/setup", "image 'back/api' has no stage setup\n  there are: from, beforeInstall, install"),
        (ALL, "setup", "no image of this run has a stage setup"),
        (("",), "back/api/install", "back/api is not built in this run\n  name it: layerwright build back/api"),
    ],
)
def test_what_names_no_stage_is_refused(config: Config, built: tuple[str, ...], wanted: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        chosen_stages(config, built, [wanted])
    assert said in str(error.value)
