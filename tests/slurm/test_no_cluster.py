"""Where there can be no Slurm: its tests are skipped, or fail if it is demanded."""

from __future__ import annotations

import pytest

from tests.slurm import fixture
from tests.slurm.cluster import Missing


@pytest.mark.parametrize("phase", ["pytest_runtest_setup", "pytest_runtest_call"])
@pytest.mark.parametrize("demanded", [False, True])
def test_no_slurm_is_a_skip_unless_it_is_demanded(
    monkeypatch: pytest.MonkeyPatch, phase: str, demanded: bool
) -> None:
    monkeypatch.setenv("SLURM_TESTS", "require" if demanded else "")
    running = getattr(fixture, phase)()
    next(running)
    outcome = pytest.fail.Exception if demanded else pytest.skip.Exception
    with pytest.raises(outcome, match="needs root"):
        running.throw(Missing("a Slurm of the tests' own needs root"))


def test_what_else_goes_wrong_stays_an_error() -> None:
    running = fixture.pytest_runtest_call()
    next(running)
    with pytest.raises(RuntimeError, match="did not come up"):
        running.throw(RuntimeError("the cluster did not come up"))
