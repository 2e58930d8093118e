"""Choosing images by patterns."""

from __future__ import annotations

import pytest

from layerwright.config.load import load_config
from layerwright.config.select import select_images
from layerwright.errors import UsageError

CONFIG = load_config(
    {
        "werf.yaml": b"configVersion: 1\nproject: x\n---\nimage: [app, app_a, modules/api, web]\nfrom: x\n---\nimage: tool\nfinal: false\nfrom: x\n---\nartifact: art\nfrom: x\n"
    }.get
)
NAMELESS = load_config({"werf.yaml": b"configVersion: 1\nproject: x\n---\nimage: ~\nfrom: x\n"}.get)
ALL = ("app", "app_a", "modules/api", "web", "tool", "art")


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([], ALL),
        (["app"], ("app",)),
        (["web", "app"], ("app", "web")),
        (["app*"], ("app", "app_a")),
        (["*_a"], ("app_a",)),
        (["*"], ("app", "app_a", "web", "tool", "art")),
        (["*/*"], ("modules/api",)),
        (["[wt]?*"], ("web", "tool")),
        (["!app*"], ("modules/api", "web", "tool", "art")),
        (["!nothing"], ALL),
        (["app*", "!*_a"], ("app",)),
        (["app*", "app_a", "!*_a"], ("app", "app_a")),
        (["app", "!app"], ("app",)),
    ],
)
def test_patterns_choose_images_in_the_order_of_the_file(patterns: list[str], names: tuple[str, ...]) -> None:
    assert select_images(CONFIG, patterns) == names


def test_final_images_alone() -> None:
    assert select_images(CONFIG, [], final_only=True) == ("app", "app_a", "modules/api", "web")
    with pytest.raises(UsageError, match="'tool' names no final image"):
        select_images(CONFIG, ["tool"], final_only=True)


def test_the_nameless_image_is_a_tilde() -> None:
    assert select_images(NAMELESS, ["~"]) == ("",)
    assert select_images(NAMELESS, []) == ("",)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("ap", "no image is named 'ap'"),
        ("x*", "no image is named 'x*'"),
        ("**", "'**' is not allowed in the image pattern"),
        ("a|b", "'|' is not allowed"),
        ("!a$", "'$' is not allowed"),
        ("a&", "'&' is not allowed"),
        ("a" * 101, "is longer than 100 characters"),
        ("[a", "is not an image pattern: a [ is not closed"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_told(pattern: str, what: str) -> None:
    with pytest.raises(UsageError) as raised:
        select_images(CONFIG, [pattern])
    assert what in raised.value.what
    assert raised.value.mend


def test_a_mistyped_name_is_answered_with_the_meant_one() -> None:
    with pytest.raises(UsageError) as raised:
        select_images(CONFIG, ["module/api"])
    assert raised.value.mend.startswith("did you mean 'modules/api'?")
