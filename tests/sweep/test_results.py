"""Results from the folders: order, replicates, failures, files."""

from __future__ import annotations

import csv
import json

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.sweep_state import reconcile
from mlmodeldev.sweep import load
from mlmodeldev.sweep.results import collect, print_results, write_rows

SWEEP = """
name: grid
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {values: [0.1, 0.2, 0.3]}
  training.seed: {values: [0, 1]}
controller: {type: cloud, replicates: training.seed}
"""
CURVES = {(0.1, 0): [0.2, 0.9, 0.8], (0.1, 1): [0.7], (0.2, 0): [0.95], (0.3, 0): [0.1, 0.2]}


@pytest.fixture
def entries(write, tmp_path):
    """Four trials that have logged, one that failed, one that is missing."""
    listed = list(reconcile(load(write(SWEEP)), tmp_path))
    for entry in listed:
        key = tuple(entry.trial.overrides.values())
        if key == (0.3, 1):
            continue
        entry.folder.mkdir(parents=True)
        record = {"state": "done" if key in CURVES else "failed", "attempts": 1}
        if key not in CURVES:
            record["reason"] = "ValueError: [a] defect"
        if key == (0.3, 0):
            record |= {"state": "pruned", "reason": "hyperband: behind"}
        if key == (0.1, 0):
            record["test"] = {"test/accuracy": 0.88}
        (entry.folder / "trial.json").write_text(json.dumps(record))
        log = [{"epoch": e, "val/accuracy": v} for e, v in enumerate(CURVES.get(key, []), 1)]
        (entry.folder / "log.json").write_text(json.dumps(log))
    return [entry.again() for entry in listed]


def test_best_first_and_replicates_together(entries):
    results = collect(entries, "val/accuracy", "maximize")
    assert [row["val/accuracy"] for row in results.rows] == [0.95, 0.9, 0.7, 0.2, None, None]
    assert [g.name for g in results.groups] == ["lr=0.2", "lr=0.1", "lr=0.3"]
    middle = results.groups[1]
    assert middle.mean == pytest.approx(0.8)
    assert middle.std == pytest.approx(0.02**0.5)
    assert middle.states == {"done": 2}
    assert results.groups[0].std is None
    assert results.groups[0].states == {"done": 1, "failed": 1}
    assert [row["reason"] for row in results.failures] == ["ValueError: [a] defect"]
    smallest = collect(entries, "val/accuracy", "minimize")
    assert smallest.rows[0]["val/accuracy"] == 0.1


def test_the_table_shows_means_and_reasons(entries, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    print_results(collect(entries, "val/accuracy", "maximize"), "grid")
    shown = capsys.readouterr().out
    assert "0.8000 ± 0.1414" in shown
    assert "0.9500" in shown
    assert "1 missing, 1 pruned" in shown
    assert "ValueError: [a] defect" in shown


def test_rows_as_csv(entries, tmp_path):
    file = tmp_path / "results.csv"
    write_rows(collect(entries, "val/accuracy", "maximize"), file)
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 6
    assert rows[0]["optimizer.lr"] == "0.2"
    assert rows[1]["test/accuracy"] == "0.88"
    assert rows[1]["last/val/accuracy"] == "0.8"
    assert {row["state"] for row in rows} == {"done", "pruned", "failed", "missing"}


def test_rows_as_parquet(entries, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "results.parquet"
    write_rows(collect(entries, "val/accuracy", "maximize"), file)
    table = parquet.read_table(file).to_pydict()
    assert table["val/accuracy"] == [0.95, 0.9, 0.7, 0.2, None, None]
    assert table["optimizer.lr"][0] == 0.2


def test_another_suffix_is_refused(entries, tmp_path):
    with pytest.raises(UsageError, match=r"unknown ending '.cvs'; did you mean '.csv'"):
        write_rows(collect(entries, "val/accuracy", "maximize"), tmp_path / "a.cvs")


def test_an_empty_sweep_is_an_empty_table(tmp_path):
    results = collect([], "val/loss", "minimize")
    write_rows(results, tmp_path / "none.csv")
    assert results.as_dict() == {"metric": "val/loss", "points": [], "trials": []}


def test_parameters_that_are_called_as_facts_do_not_hide_them(write, tmp_path):
    text = """
    name: names
    method: grid
    parameters:
      state: {values: [NY]}
      id: {value: 7}
      epoch: {value: 10}
      rate: {value: 0.5}
      f1: {value: x}
    """
    (entry,) = reconcile(load(write(text)), tmp_path)
    entry.folder.mkdir(parents=True)
    record = {"state": "failed", "reason": "exit status 1", "epoch": 3, "test": {"f1": 0.25}}
    (entry.folder / "trial.json").write_text(json.dumps(record))
    (row,) = collect([entry.again()], "loss", "minimize").rows
    assert (row["state"], row["id"], row["epoch"], row["f1"]) == ("failed", entry.trial.id, 3, 0.25)
    given = {name.removeprefix("parameter/"): row[name] for name in row if "parameter/" in name}
    assert given == {"state": "NY", "id": 7, "epoch": 10, "f1": "x"}
    assert row["rate"] == 0.5
