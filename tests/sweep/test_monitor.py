"""A sweep's metric is the monitor of its trials, and one trial is the best everywhere."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.slurm.commands.table import ranked
from mlmodeldev.slurm.trial_entries import reconcile
from mlmodeldev.sweep.definition import Metric
from mlmodeldev.sweep.loading import loads
from mlmodeldev.sweep.monitor import choose_monitor, remote_monitor
from mlmodeldev.sweep.results import collect
from tests.slurm.test_slurm_train import slurm_train

LOSS = Metric("val/loss", "minimize")
WANTED = ["training.monitor=val/loss", "training.mode=min"]

SMALL = (
    "logger=csv",
    "callbacks=none",
    "training.limit_train_batches=4",
    "training.limit_val_batches=3",
    "training.max_epochs=3",
    "training.test=false",
    "model.hidden_size=16",
    "model.num_layers=1",
)
SWEEP = """\
# Command: python slurm/SlurmTrain.py
# Expected best value: none
# Cost: seconds
program: trainer.py
name: three
method: grid
metric: {name: val/loss, goal: minimize}
parameters:
  optimizer.lr: {values: [0.0001, 0.003, 0.03]}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


def choose(metric: Metric, given: tuple[str, ...] = (), **parameters: Any) -> tuple[list[str], str]:
    from mlmodeldev.settings.overrides import parse_overrides

    swept = {name.replace("__", "."): value for name, value in parameters.items()}
    base = compose_settings(given, partial=True)
    choice = choose_monitor(metric, parse_overrides(given), swept, base)
    return choice.overrides, choice.warning


def test_trials_get_the_sweeps_metric() -> None:
    assert choose(LOSS) == (WANTED, "")
    assert choose(LOSS, ("training.monitor=val/loss",)) == (WANTED[1:], "")
    assert choose(LOSS, training__mode="min") == (WANTED[:1], "")
    settings = compose_settings(choose(LOSS)[0])
    assert (settings.training.monitor, settings.training.mode) == ("val/loss", "min")


def test_nothing_is_set_that_the_settings_say_already() -> None:
    assert choose(Metric("val/accuracy", "maximize")) == ([], "")
    experiment = choose(Metric("val/accuracy", "maximize"), experiment=None)
    assert experiment[0] == ["training.monitor=val/accuracy", "training.mode=max"]


@pytest.mark.parametrize("name", ["time/samples_per_second", "test/accuracy", "cka/towers/mean"])
def test_what_not_each_validation_logs_leaves_the_monitor_alone(name) -> None:
    assert choose(Metric(name, "maximize")) == ([], "")


def test_what_the_user_has_set_stays_with_a_warning() -> None:
    for overrides, warning in (
        choose(LOSS, ("training.monitor=val/accuracy",)),
        choose(LOSS, training__monitor="val/accuracy"),
    ):
        assert overrides == []
        assert warning.startswith("training.monitor=val/accuracy: ")
        assert "val/loss (minimize)" in warning
        assert "\n" not in warning
    assert choose(LOSS, ("training.mode=max",))[0] == []


def test_a_sweep_of_the_server_says_the_same() -> None:
    base = compose_settings()
    config = {"metric": {"name": "val/loss"}, "parameters": {"optimizer.lr": {"values": [1]}}}
    assert remote_monitor(config, [], base).overrides == WANTED
    fixed = {**config, "parameters": {"training.monitor": {"value": "val/accuracy"}}}
    assert remote_monitor(fixed, [], base).overrides == []
    assert remote_monitor({"parameters": {}}, [], base).overrides == []


def test_identities_stay_what_they_were() -> None:
    ids = [trial.id for trial in loads(SWEEP).trials()]
    other = SWEEP.replace("val/loss, goal: minimize", "val/accuracy, goal: maximize")
    assert [trial.id for trial in loads(other).trials()] == ids


def test_trials_of_another_monitor_are_ranked_by_the_sweeps_metric(tmp_path: Path) -> None:
    """By their own they would come in the reverse order; status and collect say one thing."""
    sweep = loads(SWEEP)
    for number, entry in enumerate(reconcile(sweep, tmp_path), 1):
        entry.folder.mkdir(parents=True)
        own = {"name": "val/accuracy", "mode": "max", "value": 0.1 * number, "epoch": 2}
        log = [{"epoch": 1, "val/accuracy": 0.0, "val/loss": 0.25 * number},
               {"epoch": 2, "val/accuracy": 0.1 * number, "val/loss": 9.0}]  # fmt: skip
        (entry.folder / "trial.json").write_text(json.dumps({"state": "done", "metric": own}))
        (entry.folder / "log.json").write_text(json.dumps(log))
    entries = list(reconcile(sweep, tmp_path))
    assert [entry.metric for entry in ranked(entries)] == [
        {"name": "val/loss", "mode": "min", "value": value, "epoch": 1}
        for value in (0.25, 0.5, 0.75)
    ]
    rows = collect(entries, "val/loss", "minimize").rows
    assert [row["val/loss"] for row in rows] == [0.25, 0.5, 0.75]
    assert [row["id"] for row in rows] == [entry.trial.id for entry in ranked(entries)]


def test_one_trial_and_epoch_is_the_best_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "three.yaml"
    file.write_text(SWEEP)
    where = [f"artefacts.runs_dir={tmp_path}/runs", f"artefacts.data_dir={tmp_path}/data"]
    run = ("--sweep", str(file), *SMALL, *where, "callbacks.export.enabled=true")
    done = slurm_train("submit", *run)
    assert done.returncode == 0, done.stdout + done.stderr

    logs = {
        path.parent.name: json.loads(path.read_text())
        for path in (tmp_path / "runs" / "three").glob("[!.]*/log.json")
    }
    assert len(logs) == 3
    rows = [(entry["val/loss"], trial, entry) for trial, log in logs.items() for entry in log]
    value, best, entry = min(rows, key=lambda row: row[0])
    accuracies = [(e["val/accuracy"], trial) for trial, log in logs.items() for e in log]
    assert max(accuracies)[1] != best  # by the former monitor another trial would be named

    assert f"val/loss {value:.4f}" in done.stdout
    assert re.search(rf"(?m)^best: +.*{best}/best$", done.stdout)
    status = json.loads(slurm_train("status", "--json", *run).stdout)["trials"]
    shown = {row["id"]: row["metric"] for row in status}
    assert min(shown, key=lambda trial: shown[trial]["value"]) == best
    assert shown[best] == {
        "name": "val/loss",
        "mode": "min",
        "value": value,
        "epoch": entry["epoch"],
    }
    collected = json.loads(slurm_train("collect", "--json", *run).stdout)
    assert collected["metric"] == "val/loss"
    assert collected["trials"][0]["id"] == best
    assert collected["trials"][0]["val/loss"] == value
    with (tmp_path / "runs" / "three" / "results.csv").open(newline="") as table:
        assert next(csv.DictReader(table))["id"] == best
    folder = tmp_path / "runs" / "three" / best / "best"
    state = json.loads((folder / "training_state.json").read_text())
    assert (state["epoch"], state["metric"]["name"]) == (entry["epoch"], "val/loss")


def test_a_trial_of_another_monitor_goes_on_and_says_so(trials) -> None:
    of_sweep = (*SMALL, "artefacts.sweep=three", "optimizer.lr=0.01")
    folder = trials.runs / "three" / "old"
    by_accuracy = ("training.monitor=val/loss", "training.mode=max")  # its last epochs are the best
    assert trials.run(*of_sweep, *by_accuracy, "training.max_epochs=2", name="old").code == 0
    before = json.loads((folder / "trial.json").read_text())["metric"]
    log = json.loads((folder / "log.json").read_text())
    other = ("training.monitor=val/accuracy", "training.mode=min", "training.max_epochs=3")
    done = trials.run(*of_sweep, *other, name="old")
    assert done.code == 0, done.output
    assert f"it stays that of epoch {before['epoch']} until a later one is better" in done.output
    metric = json.loads((folder / "trial.json").read_text())["metric"]
    values = {entry["epoch"]: entry["val/accuracy"] for entry in log}
    last = json.loads((folder / "log.json").read_text())[-1]["val/accuracy"]
    kept = values[before["epoch"]]
    assert (metric["name"], metric["value"]) == ("val/accuracy", min(kept, last))
    assert metric["epoch"] == (3 if last < kept else before["epoch"])


def test_by_hand_another_monitor_is_refused(trials) -> None:
    assert trials.run(*SMALL, "training.max_epochs=1").code == 0
    again = trials.run(*SMALL, "training.monitor=val/loss", "training.max_epochs=2")
    assert again.code == 2
    assert "holds a trial with training.monitor=val/accuracy" in again.output


def test_no_validation_by_a_setting(trials) -> None:
    quick = [each for each in SMALL if "limit_val" not in each and "max_epochs" not in each]
    more = (
        "training.limit_val_batches=0",
        "training.max_epochs=1",
        "callbacks.export.enabled=true",
    )
    trial = trials.run(*quick, *more, "artefacts.rehearsal=true")
    assert trial.code == 0, trial.output
    assert "no validation: training.limit_val_batches is 0" in trial.output
    assert trial.record["state"] == "done"
    assert not any(name.startswith("val/") for entry in trial.log for name in entry)
    assert (trial.folder / "last").is_dir()
    judged = trials.run(
        *quick, *more, "training.monitor=train/loss", "training.mode=min", name="judged"
    )
    assert judged.code == 0, judged.output
    assert (judged.record["metric"]["name"], judged.record["metric"]["epoch"]) == ("train/loss", 1)
    assert (judged.folder / "best").is_dir()


def test_agents_and_workers_hand_it_to_their_trials(tmp_path, monkeypatch) -> None:
    from argparse import Namespace

    from mlmodeldev.slurm.agent import _make_source
    from mlmodeldev.sweep import search
    from mlmodeldev.tracking.wandb_api import RemoteSweep

    where = f"artefacts.runs_dir={tmp_path}/runs"
    config = {"program": "trainer.py", "metric": {"name": "val/loss"}, "parameters": {}}
    args = Namespace(sweep="p/ab12", overrides=[where], count=None, patience=3)
    assert _make_source(args, RemoteSweep("", "p", "ab12", config)).fixed == [*WANTED, where]
    foreign = {**config, "program": "other.py"}

    assert _make_source(args, RemoteSweep("", "p", "ab12", foreign)).fixed == [where]

    file = tmp_path / "three.yaml"
    file.write_text(SWEEP)
    handed = []
    monkeypatch.setattr(search, "search", lambda *a: handed.append(a) or 0)
    assert search.main(["worker", "--sweep", str(file), where]) == 0
    assert handed[0][2] == [*WANTED, where]
