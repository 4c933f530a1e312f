"""Odd input, the short form: some inputs of each target, the same in every run.

``python -m tests.fuzz`` is the long form. Where an input fails here hypothesis makes it smaller.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.registry import TARGETS
from tests.fuzz.run import folder_in_memory, in_process, made
from tests.fuzz.target import Target

pytestmark = pytest.mark.project

EXAMPLES = {"settings": 10, "files of settings": 4, "sweep files": 20}
"""Inputs of a target here; of most `MANY`."""
MANY = 50


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(os.environ, "MLMODELDEV_CLUSTER", "local")
    caplog.set_level("CRITICAL")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.whole])
def test_odd_input_is_answered(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=EXAMPLES.get(name, MANY),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def inputs(rng) -> None:
        target.try_one(target.make(rng), folder)

    with folder_in_memory() as folder:
        inputs()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.whole])
def test_odd_input_of_commands_is_answered(name: str) -> None:
    _commands(TARGETS[name], 5)


def _commands(target: Target, count: int) -> None:
    """Try inputs in this process; the long form takes one for each."""
    with folder_in_memory() as folder:
        for number in range(count):
            fault = in_process(target, made(target, number), folder)
            assert fault is None, f"input {number}: {fault}"
