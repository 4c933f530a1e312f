"""Every trial of the recorded sweeps is the same trial: identity, values, name, order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.frozen import identities

RECORDED = json.loads(identities.FILE.read_text(encoding="utf-8"))
SETS = {(each["sweep"], each["seed"]): each["trials"] for each in RECORDED}


def exact(trials: list[dict[str, Any]]) -> list[str]:
    """Return the trials as text, in which 1, 1.0, true and "1" differ, and so does order."""
    return [json.dumps(trial) for trial in trials]


def test_enough_is_recorded() -> None:
    assert sorted(SETS) == sorted(identities.drawn())
    result = {trial["id"] for trials in SETS.values() for trial in trials}
    assert len(result) > 400
    keys = {key for trials in SETS.values() for trial in trials for key in trial["overrides"]}
    assert {"model.width", "model.depth", "model.heads", "optimizer"} <= keys


@pytest.mark.parametrize("which", SETS, ids=lambda which: f"{which[0]}-{which[1]}")
def test_python_gives_the_same_trials(which: tuple[str, int]) -> None:
    recorded = [{"id": t["id"], "overrides": t["overrides"]} for t in SETS[which]]
    assert exact(identities.loaded(*which)) == exact(recorded)


@pytest.mark.parametrize("which", SETS, ids=lambda which: f"{which[0]}-{which[1]}")
def test_the_command_line_lists_the_same_trials(which: tuple[str, int], tmp_path: Path) -> None:
    assert exact(identities.listed(*which, tmp_path)) == exact(SETS[which])
