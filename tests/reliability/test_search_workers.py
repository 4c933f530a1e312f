"""Workers of a search on several machines, whose clocks are wrong."""

from __future__ import annotations

import json
import time

from mlmodeldev import lease
from mlmodeldev.sweep import load
from mlmodeldev.sweep.search import SearchSource
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.task import WAIT
from tests.sweep.searching import Hunt


def test_a_trial_of_a_clock_hours_behind_is_watched_before_it_is_taken_over(tmp_path, monkeypatch):
    """By the time in its record it died long ago; it lives, and then it does die."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    hunt = Hunt(tmp_path, cap=1)
    first = SearchSource(load(hunt.file), hunt.runs)
    task = first.take()
    first.close()  # the worker is dead, its trial goes on
    (task.folder / "checkpoints").mkdir(parents=True)
    record = TrialFolder(task.folder).claim()

    def beat(seconds: float) -> None:
        late = record["lease"] - 7200 + seconds
        changed = {**record, "owner": {**record["owner"], "host": "node17"}, "lease": late}
        (task.folder / "trial.json").write_text(json.dumps(changed))

    beat(0)
    second = SearchSource(load(hunt.file), hunt.runs)
    second.leases.name = "another"  # than that of the first, which is this very process
    assert second.take() is WAIT, "not to be known yet"
    beat(30)
    assert second.take() is None, "it is another's, who lives"
    deadline = time.monotonic() + 30
    while (again := second.take()) in (WAIT, None):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert again.folder == task.folder
