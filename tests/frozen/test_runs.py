"""Folders that another version has written: listed as they were, and gone on with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.frozen import runs, trained
from tests.frozen.commands import Place

pytestmark = pytest.mark.project

RECORDED = json.loads(runs.FILE.read_text(encoding="utf-8"))
STEPS = 38


def restored(folder: Path, slurm: bool = True) -> Place:
    """Return a place with the kept runs, as on another day."""
    place = Place(folder, slurm=slurm)
    runs.restore(folder)
    return place


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, Any]]:
    """What all listing commands say of the kept runs."""
    place = restored(tmp_path_factory.mktemp("listed"))
    result = runs.run_all(place, runs.LISTINGS, RECORDED["trials"])
    return place, {each["command"]: each for each in result}


@pytest.mark.parametrize("recorded", RECORDED["listings"], ids=lambda each: each["command"][26:60])
def test_the_same_is_listed(recorded: dict[str, Any], listed: tuple[Place, Any]) -> None:
    assert listed[1][recorded["command"]] == recorded


def test_the_same_results_are_written(listed: tuple[Place, Any]) -> None:
    assert runs.results(listed[0]) == RECORDED["results"]


def test_without_slurm_the_folders_show(tmp_path: Path) -> None:
    place = restored(tmp_path, slurm=False)
    result = runs.run_all(place, runs.WITHOUT_SLURM, RECORDED["trials"])
    assert result == RECORDED["without_slurm"]


def test_the_submission_is_cancelled(tmp_path: Path) -> None:
    place = restored(tmp_path)
    done = place.run(f"{runs.TRAIN} cancel --json {runs.JOBS}")
    assert (done.status, json.loads(done.out)) == (0, {"cancelled": ["4711"]}), done.err
    queue = json.loads((tmp_path / "slurm.json").read_text())
    assert (queue["queue"], queue["cancelled"]) == ([], ["4711"])


def submitted(folder: Path, place: Place) -> str:
    """Return a submission's script, without the names that differ from one to the next."""
    text = place.plain((folder / "4711_submission.sh").read_text())
    return re.sub(r"\.snapshots/\w+", ".snapshots/@CODE@", text).replace(folder.name, "@MADE@")


def test_what_is_submitted_now_is_what_was(tmp_path: Path) -> None:
    place = Place(tmp_path, slurm=True)
    done = place.run(f"{runs.TRAIN} submit --yes --json {runs.JOBS}")
    assert done.status == 0, done.err
    (old,) = (runs.KEPT / "kept-jobs/.jobs").iterdir()
    (new,) = (tmp_path / "runs/kept-jobs/.jobs").glob("2*")
    assert submitted(new, place) == submitted(old, place)
    facts = [json.loads((folder / "jobs.json").read_text()) for folder in (old, new)]
    assert set(facts[0]) <= set(facts[1])
    assert facts[1]["arrays"] == facts[0]["arrays"]


# --- going on


@pytest.fixture(scope="module")
def went_on(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The interrupted trial, the search and an export, each gone on with in a place of its own."""
    ways: dict[str, Callable[[Place], Any]] = {
        "search": runs.following, "resumed": runs.resumed, "inferred": runs.inferred,
    }  # fmt: skip
    places = [restored(tmp_path_factory.mktemp(name)) for name in ways]
    with ThreadPoolExecutor(2) as pool:
        result = pool.map(lambda way, place: way(place), ways.values(), places)
        return dict(zip(ways, result, strict=True))


@pytest.fixture(scope="module")
def same_machine() -> bool:
    """Whether numbers must be the recorded ones to the last bit."""
    return trained.machine() == RECORDED["machine"]


@pytest.mark.slow
def test_the_interrupted_trial_is_done(went_on: dict[str, Any], same_machine: bool) -> None:
    result, recorded = went_on["resumed"], RECORDED["resumed"]
    assert (result["state"], result["attempts"]) == ("done", 2)
    steps = [row["step"] for row in result["rows"] if "train/loss" in row]
    assert steps == list(range(STEPS)), "no gap, none twice"
    assert [entry["epoch"] for entry in result["log"]] == [1, 2]
    for what in ("rows", "log"):
        assert trained.differences(recorded[what], result[what], what) == []
    assert list(result["weights"]) == list(recorded["weights"])
    assert not same_machine or result == recorded


@pytest.mark.slow
def test_the_search_goes_on(went_on: dict[str, Any], same_machine: bool) -> None:
    begun = len(RECORDED["search"]) - 1
    assert went_on["search"][:begun] == RECORDED["search"][:begun]
    assert len(set(went_on["search"])) == begun + 1
    assert not same_machine or went_on["search"] == RECORDED["search"]


@pytest.mark.slow
def test_the_kept_export_answers_the_same(went_on: dict[str, Any]) -> None:
    assert trained.differences(RECORDED["inferred"], went_on["inferred"]) == []
