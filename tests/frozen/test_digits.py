"""The small trial of the digits comes to the recorded numbers, also after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.frozen import digits, trained
from tests.frozen.commands import Place

pytestmark = [pytest.mark.slow, pytest.mark.project]
RECORDED = json.loads(digits.FILE.read_text(encoding="utf-8"))
NAMES = ("files", "record", "settings", "training_state")
NUMBERS = ("rows", "log", "cka", "config")
WEIGHTS = ("weights", "best_weights")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The trial undisturbed, and disturbed; both at the same time, in places of their own."""
    ways: tuple[Callable[[Place], Path], ...] = (digits.train, digits.train_disturbed)
    places = [Place(tmp_path_factory.mktemp(name)) for name in ("undisturbed", "disturbed")]
    with ThreadPoolExecutor(2) as pool:
        undisturbed, disturbed = pool.map(lambda way, place: way(place), ways, places)
    return undisturbed, disturbed


@pytest.fixture(scope="module")
def result(folders: tuple[Path, Path]) -> dict[str, Any]:
    """What the undisturbed trial came to."""
    return digits.facts(folders[0])


def test_the_same_command_is_the_same_trial(result: dict[str, Any]) -> None:
    assert RECORDED["command"] == digits.COMMAND
    assert result["id"] == RECORDED["id"]


@pytest.mark.parametrize("what", NUMBERS)
def test_the_numbers_are_the_recorded_ones(result: dict[str, Any], what: str) -> None:
    assert trained.differences(RECORDED[what], result[what], what) == []


@pytest.mark.parametrize("what", NAMES)
def test_nothing_that_was_written_is_missing(result: dict[str, Any], what: str) -> None:
    assert [name for name in RECORDED[what] if name not in result[what]] == []


def test_every_bit_is_the_recorded_one_on_the_same_machine(result: dict[str, Any]) -> None:
    assert list(result["weights"]) == list(RECORDED["weights"])
    if trained.machine() != RECORDED["machine"]:
        pytest.skip(f"recorded on another machine: {RECORDED['machine']}")
    assert [result[what] for what in WEIGHTS] == [RECORDED[what] for what in WEIGHTS]
    assert json.dumps([result[what] for what in NUMBERS]) == json.dumps(
        [RECORDED[what] for what in NUMBERS]
    )


def test_an_interruption_changes_no_bit(folders: tuple[Path, Path], result: dict[str, Any]) -> None:
    again = digits.facts(folders[1])
    assert trained.record(folders[1])["attempts"] == 2
    for what in (*WEIGHTS, "rows", "log", "cka"):
        assert again[what] == result[what], what
