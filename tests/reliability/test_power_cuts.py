"""After a power cut at any moment a trial goes on to the same end; what was done is not lost.

A part of the points; `python -m tests.reliability.power_cuts` cuts at each of them.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TrialResult, Trials
from tests.reliability import ext4_images, recorded_programs, recorded_writes
from tests.reliability.after_power_cut import Undisturbed
from tests.reliability.disk import FORMS, Sync, after_cut
from tests.reliability.power_cuts import (
    copies_in_flight,
    cut_everywhere,
    cut_replacing,
    look_at_copies,
    look_at_journal,
    look_at_prepared,
    look_at_submission,
    look_at_trial,
    resume_after_cuts,
)
from tests.reliability.promises import Promises
from tests.reliability.recorded_programs import GROWING, Recorded, record, record_trial

pytestmark = pytest.mark.project

records = pytest.mark.skipif(bool(recorded_writes.missing()), reason=recorded_writes.missing())


@pytest.fixture(scope="module")
def recorded_trial(
    tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> tuple[Recorded, TrialResult]:
    return record_trial(tmp_path_factory.mktemp("recorded"), data_dir)


@records
def test_a_trial_is_whole_after_a_power_cut_at_any_point(recorded_trial, tmp_path):
    """Checkpoints, rows, exports and records, in each of the states that a disk may be left in."""
    recorded, whole = recorded_trial
    points = [*range(0, recorded.count, 12), recorded.count]
    look = look_at_trial(Undisturbed(whole.folder))
    figures = cut_everywhere(recorded, look, tmp_path / "cut", points)
    assert figures.points > 30
    assert figures.bad == []


@records
def test_a_trial_goes_on_to_the_same_weights_after_a_power_cut(recorded_trial, tmp_path, data_dir):
    recorded, whole = recorded_trial
    cuts = [(3 * recorded.count // 4, "names with half of the content")]
    figures = resume_after_cuts(recorded, whole, Trials(tmp_path / "runs", data_dir), cuts)
    assert figures.bad == []


@records
def test_writes_that_are_not_synced_would_be_seen(recorded_trial):
    """The same writes without their syncs leave empty files under names that count."""
    recorded, _ = recorded_trial
    kept = [op for op in recorded.writes.operations if not isinstance(op, Sync)]
    writes = replace(recorded.writes, operations=kept)
    promises = Promises(writes, lambda path: path.endswith(GROWING))
    broken = promises.broken(after_cut(writes, len(kept), "names without content"), len(kept))
    for name in ("trial.json", "best/model.safetensors", "config.yaml"):
        assert f"single/whole/{name}: is empty" in broken
    broken = recorded.promises.broken(
        after_cut(writes, len(kept), "what was synced"), recorded.count
    )
    assert "single/whole/trial.json: is lost" in broken


@records
@pytest.mark.parametrize(
    ("program", "look"),
    [
        (recorded_programs.submission, look_at_submission),
        (recorded_programs.journal, look_at_journal),
        (recorded_programs.prepared, look_at_prepared),
    ],
    ids=["jobs find their code", "results of a search", "prepared arrays"],
)
def test_what_others_rely_on_is_whole_after_a_power_cut(program, look, tmp_path):
    may_be_lost = program is recorded_programs.prepared  # and is made anew
    recorded = record(tmp_path / "recorded", program)
    figures = cut_everywhere(recorded, look, tmp_path / "cut", may_be_lost=may_be_lost)
    assert figures.states == len(FORMS) * figures.points > 100
    assert figures.bad == []


@records
@pytest.mark.parametrize(
    "program", [recorded_programs.replaced_at_once, recorded_programs.replaced_by_renames]
)
def test_a_folder_that_is_replaced_is_whole_after_a_power_cut(program, tmp_path):
    """The old or the new one, where folders can be exchanged at once and where they can't."""
    figures = cut_replacing(record(tmp_path / "recorded", program), tmp_path / "cut")
    assert figures.points > 20
    assert figures.bad == []


@pytest.mark.skipif(bool(ext4_images.missing()), reason=ext4_images.missing())
def test_a_trial_on_an_ext4_whose_power_goes(tmp_path, data_dir):
    """The device is copied while the trial writes to it; the copy is what a power cut leaves."""
    chance = random.Random(3)
    pauses = iter(lambda: chance.uniform(0.1, 0.4), None)
    whole, copies = copies_in_flight(tmp_path, data_dir, ext4_images.HARSH, pauses, 8)
    figures = look_at_copies(whole, copies, Trials(tmp_path / "runs", data_dir), resumed=[])
    assert figures.points > 1
    assert figures.bad == []
