"""imageSpec applied to an image config."""

from __future__ import annotations

from typing import Any

import pytest

from layerwright.config.model import Healthcheck, ImageSpec, Position
from layerwright.errors import UsageError
from layerwright.oci.image_config import History, ImageConfig
from layerwright.oci.platform import Platform
from layerwright.stages.image_spec import apply_image_spec, removed_essential
from layerwright.stages.instructions import expand

AT = Position("werf.yaml", 9, 1)
BASE = ImageConfig(
    platform=Platform("linux", "amd64"),
    author="base",
    env=("PATH=/bin", "A=1", "AB=2", "WERF_COMMIT_HASH=abc"),
    cmd=("base-cmd",),
    entrypoint=("base-entrypoint",),
    user="nobody",
    working_dir="/srv",
    volumes=("/data", "/old"),
    exposed_ports=("80/tcp",),
    labels={"a": "1", "ab": "2", "werf": "demo", "werf-version": "1"},
    history=(History(created_by="base"),),
)


def applied(**said: Any) -> ImageConfig:
    return apply_image_spec(BASE, ImageSpec(position=AT, **said), image="app", project="demo")


def test_labels_are_removed_then_set_and_names_are_filled_in() -> None:
    assert applied(remove_labels=("a",), labels={"%image%": "%project%/%image%", "x": "50%"}).labels == {
        "ab": "2",
        "werf": "demo",
        "werf-version": "1",
        "app": "demo/app",
        "x": "50%",
    }


def test_a_pattern_removes_whole_names_and_never_the_essential_labels() -> None:
    assert applied(remove_labels=("/a.*|werf.*/",)).labels == {"werf": "demo"}
    assert removed_essential(ImageSpec(remove_labels=("/werf.*/",), position=AT)) != ()
    assert removed_essential(ImageSpec(remove_labels=("/werf.*/",), keep_essential_werf_labels=True, position=AT)) == ()
    assert removed_essential(ImageSpec(remove_labels=("a",), position=AT)) == ()


def test_env_is_removed_then_set_and_values_see_the_original_environment() -> None:
    assert applied(remove_env=("A",), env={"PATH": "/x:$PATH", "B": "${A}-${NONE}", "C": "$B"}).env == ("PATH=/x:/bin", "AB=2", "B=1-", "C=")
    assert applied(remove_env=("/A.*/",)).env == ("PATH=/bin",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "1"),
        ("\\$A", "$A"),
        ("a\\\\b", "a\\b"),
        ("'$A'", "$A"),
        ('"$A"', "1"),
        ("${AB}x", "2x"),
        ("$ABx", ""),
        ("", ""),
        ("${A:-x}", "1"),
        ("${N:-x$A}", "x1"),
        ("${A:+x}", "x"),
        ("${N:+x}", ""),
    ],
)
def test_words_are_expanded_as_docker_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "AB": "2"}) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (("base-cmd",), ("base-entrypoint",))),
        ({"cmd": ("x",)}, (("x",), ("base-entrypoint",))),
        ({"entrypoint": ("x",)}, ((), ("x",))),
        ({"cmd": ("x",), "entrypoint": ("y",)}, (("x",), ("y",))),
        ({"clear_cmd": True}, ((), ("base-entrypoint",))),
        ({"clear_entrypoint": True}, (("base-cmd",), ("",))),
        ({"clear_cmd": True, "cmd": ("x",)}, (("x",), ("base-entrypoint",))),
        ({"clear_entrypoint": True, "entrypoint": ("x",), "cmd": ("y",)}, (("y",), ("x",))),
    ],
)
def test_cmd_and_entrypoint(said: Any, expected: Any) -> None:
    config = applied(**said)
    assert (config.cmd, config.entrypoint) == expected


def test_what_is_cleared_can_be_set_anew() -> None:
    assert (applied(clear_user=True).user, applied(clear_user=True, user="x").user, applied().user) == ("", "x", "nobody")
    assert (applied(clear_working_dir=True).working_dir, applied(working_dir="/x").working_dir, applied().working_dir) == ("", "/x", "/srv")


def test_volumes_are_removed_then_added_and_ports_are_replaced() -> None:
    assert applied(remove_volumes=("/old",), volumes=("/new",)).volumes == ("/data", "/new")
    assert (applied(expose=("443",)).exposed_ports, applied(expose=()).exposed_ports, applied().exposed_ports) == (("443/tcp",), (), ("80/tcp",))


def test_author_stop_signal_history_and_healthcheck() -> None:
    config = applied(author="me", stop_signal="SIGINT", clear_history=True, healthcheck=Healthcheck(test=("CMD", "x"), interval_s=5, retries=2))
    assert (config.author, config.stop_signal, config.history) == ("me", "SIGINT", ())
    assert config.healthcheck == {"Test": ["CMD", "x"], "Interval": 5 * 10**9, "Retries": 2}
    assert (applied().author, applied().history) == ("base", BASE.history)


def test_a_removal_that_is_no_expression_names_its_line() -> None:
    with pytest.raises(UsageError) as raised:
        applied(remove_env=("/(/",))
    assert raised.value.where == "werf.yaml:9:1"
