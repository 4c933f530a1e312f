"""Targets around runs of W&B: which trial each belongs to, and what a trial without a network has."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from tests.fuzz.mutation import (
    ODD_VALUES,
    spoiled_json,
    spoiled_text,
)
from tests.fuzz.state_files import RECORD
from tests.fuzz.target import Target, may_refuse

_IDS = (
    *(
        "x7",
        "a-b_c",
        "..",
        ".",
        "../x",
        "/etc/x",
        "a/b",
        "a\\b",
        "x" * 128,
        "x" * 129,
        "",
        " ",
        "a b",
    ),
    *("\0", "a\0b", "é" * 100, "a\nb", ".hidden", "%2e", "#", "con", "wandb:", "~", "*", "x?"),
)


def make_run(rng: Random) -> tuple[str, bytes | None]:
    """Return a run's id and the note beside the runs."""
    run = rng.choice(_IDS) if rng.random() < 0.6 else spoiled_text(rng, rng.choice(_IDS))
    note = rng.choice((None, b"odd/t", b"odd/other", b"gone/x", b"wandb:a/b", b"", b"\xff", b"../..",
                       b"/", b"odd/t\n", b"\0", b"x" * 5000))  # fmt: skip
    return run, note


def check_run(given: tuple[str, bytes | None], folder: Path) -> None:
    """A run is one trial's; another of the same id is refused; no note lies elsewhere."""
    from mlmodeldev.trial.agent_run import OWNERS, give_run, owner_of, take_run

    run, note = given
    runs = folder / "runs"
    for name in ("odd/t", "odd/other"):
        (runs / name).mkdir(parents=True)
    names = runs / OWNERS
    names.mkdir()
    if note is not None and run and not {*run} & {*"/\0"} and run not in (".", ".."):
        try:
            (names / run).write_bytes(note)
        except (OSError, UnicodeEncodeError):
            note = None
    before = {str(path) for path in folder.rglob("*")}
    with may_refuse():
        first = take_run(runs / "odd/t", run)
        second = take_run(runs / "odd/other", run)
        third = take_run(runs / "odd/t", run)
        owner = owner_of(runs, run)
        assert first == third
        if owner is not None:
            assert not (first and second), "a run is two trials'"
        give_run(runs, run, "a/b")
    new = {str(path) for path in folder.rglob("*")} - before
    assert all(Path(path).parent == names for path in new), new


def make_offline(rng: Random) -> tuple[bytes, dict[str, str]]:
    """Return a record that tells of a trial's run, and what an agent has set."""
    variables = {}
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_ENTITY", "WANDB_PROJECT"):
        if rng.random() < 0.5:
            variables[name] = rng.choice((*_IDS[:13], "é")).replace("\0", "")
    record = {**RECORD, "wandb_path": "team/odd/x-1a"}
    tree = {**record, rng.choice(("wandb_path", "wandb_place", "wandb_id", "wandb_sweep")):
            rng.choice(ODD_VALUES)}  # fmt: skip
    return spoiled_json(rng, tree), variables


def check_offline(given: tuple[bytes, dict[str, str]], folder: Path) -> None:
    """A trial without a network has a run of its own, the same one when it asks again."""
    from types import SimpleNamespace

    from mlmodeldev.tracking.wandb_run_id import choose_run
    from mlmodeldev.trial.folder import TrialFolder

    record, variables = given
    place = folder / "runs" / "odd" / "t"
    place.mkdir(parents=True)
    (place / "trial.json").write_bytes(record)
    logger = SimpleNamespace(wandb=SimpleNamespace(entity=None, project="odd"))
    settings: Any = SimpleNamespace(logger=logger)
    with mock.patch.dict(os.environ, variables), may_refuse():
        first = choose_run(settings, TrialFolder(place), online=False)
        again = choose_run(settings, TrialFolder(place), online=False)
        assert first.id == again.id
        assert isinstance(first.id, str)
        assert first.id


TARGETS = [
    Target("runs' owners", ("mlmodeldev.trial.agent_run",), make_run, check_run),
    Target("offline runs' ids", ("mlmodeldev.tracking.wandb_run_id",), make_offline, check_offline),
]
