"""Large sweeps: no command, search or early stopping asks the file system more than it has to.

The folders and Slurm's answers are made up (`benchmarks.simulated_cluster`); questions are counted.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from benchmarks import simulated_search
from benchmarks.simulated_cluster import SimulatedSweep, counted_calls
from mlmodeldev.callbacks.pruning import Pruning
from mlmodeldev.report import content
from mlmodeldev.settings.callback_schema import Pruning as PruningSettings
from mlmodeldev.slurm import command_line, preflight
from mlmodeldev.sweep.search import MAX_LOOKS, SearchSource
from mlmodeldev.sweep.stopping import verdict

REPORT = {"report": "mlmodeldev.report.command"}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """A sweep of 100 trials and one of 200."""
    made = {}
    for count in (100, 200):
        base = tmp_path_factory.mktemp(f"sweep{count}")
        made[count] = SimulatedSweep(base, count, running=count // 10)
    return made


@pytest.mark.parametrize(
    ("words", "each"),
    [(["plan"], 1), (["status"], 1), (["status", "--json"], 1), (["collect"], 2), (["report"], 8)],
)
def test_a_trial_costs_a_command_so_many_questions(words, each, sweeps, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "refuse_memory", lambda _: None)
    monkeypatch.setattr(content, "importances", lambda points: [])  # takes seconds, asks nothing
    totals, notes = {}, 0
    for count, sweep in sweeps.items():
        monkeypatch.setenv("PATH", sweep.environment()["PATH"])
        with counted_calls(sweep.base) as counts:
            assert command_line.main(sweep.words(*words), REPORT) == 0, capsys.readouterr().err
        totals[count] = counts.total
        (submission,) = sweep.folder.glob(".jobs/*")
        notes = max(notes, counts.paths[str(submission)])
    begun = sum(1 for _ in sweeps[200].folder.glob("[!.]*/")) - sum(
        1 for _ in sweeps[100].folder.glob("[!.]*/")
    )
    assert 0 <= totals[200] - totals[100] <= each * begun, "of each trial that has a folder"
    assert notes <= 3, "a submission's logs are not looked for trial by trial"


def test_a_worker_among_many_looks_at_some_of_them_in_turn(tmp_path):
    running = 3 * MAX_LOOKS
    sweep = simulated_search.fill(tmp_path, trials=200, running=running)
    with counted_calls(tmp_path) as counts:
        worker = SearchSource(sweep, tmp_path)
    assert not [path for path in counts.paths if path.endswith("trial.json")], (
        "the journal has them"
    )
    looked_at = []
    for _ in range(4):
        with counted_calls(tmp_path) as counts:
            simulated_search.turn(worker)
        looked_at.append({p for p in counts.paths if "/t0" in p and p.endswith("trial.json")})
    assert all(len(each) <= MAX_LOOKS for each in looked_at)
    assert len(set().union(*looked_at[:3])) == running, "each comes up"
    assert looked_at[3] & looked_at[0]


def test_early_stopping_looks_at_a_trial_once_a_band(tmp_path):
    rule = PruningSettings(enabled=True, metric="m", goal="maximize", min_iter=2, eta=2)
    values = {f"t{i}": [i / 50 + epoch for epoch in range(4)] for i in range(50)}
    for name, logged in values.items():
        (tmp_path / name).mkdir()
        counted = {"metric": "m", "values": logged}
        (tmp_path / name / "pruning.json").write_text(json.dumps(counted))
    short = tmp_path / "ended"
    short.mkdir()
    (short / "log.json").write_text(json.dumps([{"epoch": 1, "m": 9.0}]))
    (short / "trial.json").write_text('{"state": "done"}')
    (tmp_path / "own").mkdir()
    callback, questions = Pruning(tmp_path / "own", rule), []
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn="fit"), callback_metrics={}, is_global_zero=True,
        sanity_checking=False,
        strategy=SimpleNamespace(broadcast=lambda reason: reason), should_stop=False,
    )  # fmt: skip
    own = [0.9, 1.9, 2.9, 3.9]
    for epoch, value in enumerate(own, 1):
        trainer.callback_metrics["m"] = value
        with counted_calls(tmp_path) as counts:
            callback.on_validation_end(trainer, None)
        questions.append(sum(n for path, n in counts.paths.items() if "/own" not in path))
        others = [*values.values(), [9.0]]
        assert callback.reason == verdict(rule, own[:epoch], others, "maximize")
    assert questions[0] == 0, "before the first band there is nothing to compare"
    assert 50 < questions[1] <= 110
    assert questions[2:] == [1, 1], "the folder is listed, for new trials"
