from __future__ import annotations

import signal

import pytest

from layerwright.errors import Cancelled, LayerwrightError
from layerwright.git.program import GitFailed, failed
from layerwright.host.run import Process
from tests.git.repositories import ENV


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, Cancelled), (signal.SIGKILL, GitFailed)])
def test_ctrl_c_that_reaches_git_first_is_a_stop_and_no_damage(number: int, error: type[LayerwrightError]) -> None:
    with Process(["sh", "-c", f"kill -{number} $$"], env=ENV) as process:
        process.wait()
        assert type(failed(process.failure(), what="cannot read", where="/repo")) is error
