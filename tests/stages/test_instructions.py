"""The `docker` section applied to an image config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from layerwright.config.model import Docker, Position
from layerwright.errors import UsageError
from layerwright.oci.image_config import ImageConfig, with_reset_commands
from layerwright.oci.platform import Platform
from layerwright.stages.instructions import apply_instructions

AT = Position("werf.yaml", 7, 3)
BASE = ImageConfig(
    platform=Platform("linux", "amd64"),
    env=("PATH=/bin", "A=1", "B=2"),
    cmd=("base-cmd",),
    entrypoint=("base-entrypoint",),
    user="nobody",
    working_dir="/srv",
    volumes=("/data",),
    exposed_ports=("80/tcp",),
    labels={"a": "1", "b": "2"},
)


def applied(config: ImageConfig = BASE, **said: Any) -> ImageConfig:
    return apply_instructions(config, Docker(position=AT, **said))


# What the seeds' pages and the identity table say of CMD and ENTRYPOINT.


@pytest.mark.parametrize(
    ("cmd", "entrypoint", "expected"),
    [
        (None, None, ((), ("",))),
        (("x",), None, (("x",), ("",))),
        (None, ("x",), (None, ("x",))),
        (("x",), ("y",), (("x",), ("y",))),
        ((), ("",), ((), ("",))),
        ((), None, ((), ("",))),
    ],
)
def test_the_first_stage_resets_what_a_base_does_not_say(cmd: Any, entrypoint: Any, expected: Any) -> None:
    reset = with_reset_commands(replace(BASE, cmd=cmd, entrypoint=entrypoint))
    assert (reset.cmd, reset.entrypoint) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (("base-cmd",), ("base-entrypoint",))),
        ({"cmd": ("x", "y")}, (("x", "y"), ("",))),
        ({"entrypoint": ("x",)}, ((), ("x",))),
        ({"cmd": ("x",), "entrypoint": ("y",)}, (("x",), ("y",))),
        ({"cmd": ()}, ((), ("",))),
        ({"entrypoint": ()}, ((), ())),
        ({"cmd": "x y"}, (("/bin/sh", "-c", "x y"), ("",))),
        ({"cmd": '["x", "a b"]'}, (("x", "a b"), ("",))),
        ({"cmd": "[ -f x ] && y"}, (("/bin/sh", "-c", "[ -f x ] && y"), ("",))),
        ({"entrypoint": "x y"}, ((), ("/bin/sh", "-c", "x y"))),
    ],
)
def test_cmd_alone_resets_the_entrypoint_and_entrypoint_alone_the_cmd(said: Any, expected: Any) -> None:
    config = applied(**said)
    assert (config.cmd, config.entrypoint) == expected


def test_env_keeps_the_place_of_a_known_name_and_appends_new_ones() -> None:
    assert applied(env={"NEW": "x y", "A": "3"}).env == ("PATH=/bin", "A=3", "B=2", "NEW=x y")


def test_variables_are_those_of_the_image_and_of_names_before() -> None:
    config = applied(
        env={"PATH": "/app/bin:$PATH", "C": "${A}-$D", "D": "x", "E": "$D"}, workdir="/srv/$A", user="u$B", label={"l": "\\$A"}, volume=("/v/${E}",)
    )
    assert config.env == ("PATH=/app/bin:/bin", "A=1", "B=2", "C=1-", "D=x", "E=x")
    assert (config.working_dir, config.user, config.labels["l"], config.volumes) == ("/srv/1", "u2", "$A", ("/data", "/v/x"))


def test_exact_values_are_taken_as_they_stand() -> None:
    assert applied(env={"PATH": "/app:$PATH"}, exact_values=True).env[0] == "PATH=/app:$PATH"


def test_labels_volumes_and_ports_are_added() -> None:
    config = applied(label={"b": "3", "c": "4"}, volume=("/x",), expose=("443", "53/udp", "8000-8010"))
    assert config.labels == {"a": "1", "b": "3", "c": "4"}
    assert config.volumes == ("/data", "/x")
    assert config.exposed_ports == ("443/tcp", "53/udp", "80/tcp", "8000-8010/tcp")


@pytest.mark.parametrize(("wanted", "expected"), [("", "/srv"), ("/app", "/app"), ("app", "/srv/app")])
def test_a_relative_workdir_goes_below_the_present_one(wanted: str, expected: str) -> None:
    assert applied(workdir=wanted).working_dir == expected


def test_user_and_the_rest_stay_if_they_are_not_said() -> None:
    assert applied() == BASE
    assert applied(user="root").user == "root"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NONE", {"Test": ["NONE"]}),
        ("CMD curl -f http://localhost/", {"Test": ["CMD-SHELL", "curl -f http://localhost/"]}),
        ('CMD ["curl", "-f", "x y"]', {"Test": ["CMD", "curl", "-f", "x y"]}),
        (
            "--interval=1m30s --timeout=500ms --start-period=2h --retries=5 CMD true",
            {"Test": ["CMD-SHELL", "true"], "Interval": 90 * 10**9, "Timeout": 5 * 10**8, "StartPeriod": 7200 * 10**9, "Retries": 5},
        ),
    ],
)
def test_healthchecks(text: str, expected: dict[str, Any]) -> None:
    assert applied(healthcheck=text).healthcheck == expected


@pytest.mark.parametrize(
    "text", ["", "RUN x", "CMD", "--interval=5 CMD x", "--interval=s CMD x", "--retries=x CMD x", "--what=1s CMD x", "--interval=1.2.3s CMD x"]
)
def test_a_healthcheck_that_cannot_be_read_names_its_line(text: str) -> None:
    if not text:
        assert applied(healthcheck=text).healthcheck is None
        return
    with pytest.raises(UsageError) as raised:
        applied(healthcheck=text)
    assert raised.value.where == "werf.yaml:7:3"
    assert raised.value.mend


@pytest.mark.parametrize("port", ["", "x", "80/what", "80-x", "-80"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(UsageError):
        applied(expose=(port,))
