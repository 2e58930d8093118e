from __future__ import annotations

import pytest

from layerwright.errors import UsageError
from layerwright.registry.options import RegistryOptions
from layerwright.registry.tuning import tuned


def test_nothing_said_changes_nothing() -> None:
    options = RegistryOptions()
    assert tuned(options, {"LAYERWRIGHT_REGISTRY_TIMEOUT": ""}) is options


def test_what_is_said_is_kept_to() -> None:
    env = {
        "LAYERWRIGHT_REGISTRY_TIMEOUT": "5.5",
        "LAYERWRIGHT_REGISTRY_RETRIES": "0",
        "LAYERWRIGHT_REGISTRY_LONGEST_WAIT": "120",
        "LAYERWRIGHT_REGISTRY_LOWEST_SPEED": "0",
    }
    found = tuned(RegistryOptions(), env)
    assert (found.read_timeout_s, found.connect_timeout_s, found.commit_timeout_s) == (5.5, 5.5, 55.0)
    assert (found.attempts, found.longest_wait_s, found.lowest_speed) == (1, 120.0, 0)
    assert tuned(RegistryOptions(), {"LAYERWRIGHT_REGISTRY_TIMEOUT": "300"}).connect_timeout_s == 10.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "0"),
        ("TIMEOUT", "nan"),
        ("TIMEOUT", "inf"),
        ("RETRIES", "-1"),
        ("RETRIES", "1.5"),
        ("LONGEST_WAIT", "-1"),
        ("LOWEST_SPEED", "1k"),
    ],
)
def test_what_is_of_no_use_is_told(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"LAYERWRIGHT_REGISTRY_{name}: '{text}' is not"):
        tuned(RegistryOptions(), {f"LAYERWRIGHT_REGISTRY_{name}": text})
