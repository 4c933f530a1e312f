"""A trial trained further, stopped by patience, or asked for a metric that is not there."""

from __future__ import annotations

import json

import pytest

SMALL = (
    "logger=csv",
    "callbacks=none",
    "training.limit_train_batches=4",
    "training.limit_val_batches=3",
    "training.test=false",
    "model.hidden_size=16",
    "model.num_layers=1",
)
# The zero-shot loss of so short a training has its largest value somewhere in the middle.
WORST = ("training.monitor=val/loss", "training.mode=max")


def test_five_epochs_continued_to_eight(trials) -> None:
    setup = (*SMALL, *WORST, "optimizer.lr=0.01", "callbacks.export.enabled=true")
    five = trials.run(*setup, "training.max_epochs=5", name="mine")
    assert (five.code, five.record["state"], five.record["epoch"]) == (0, "done", 5)
    first = five.log
    best = five.record["metric"]
    assert best["epoch"] == max(first, key=lambda entry: entry["val/loss"])["epoch"]
    eight = trials.run(*setup, "training.max_epochs=8", name="mine")
    assert eight.code == 0, eight.output
    assert "going on from step 20" in eight.output
    assert eight.folder == five.folder
    assert (eight.record["state"], eight.record["epoch"], eight.record["step"]) == ("done", 8, 32)
    assert [entry["epoch"] for entry in eight.log] == list(range(1, 9))
    assert [entry["step"] for entry in eight.log] == list(range(4, 36, 4))
    assert eight.log[:5] == first
    # nothing after epoch 5 was worse: the best value of the first part is still the best
    assert max(entry["val/loss"] for entry in eight.log[5:]) < best["value"]
    assert eight.record["metric"] == best
    for folder, epoch in (("best", best["epoch"]), ("last", 8)):
        state = json.loads((eight.folder / folder / "training_state.json").read_text())
        assert state["epoch"] == epoch
        assert state["metric"]["value"] == best["value"]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_is_looked_for_in_both_parts(trials, mode) -> None:
    setup = (*SMALL, "training.monitor=val/loss", f"training.mode={mode}", "optimizer.lr=0.01")
    trials.run(*setup, "training.max_epochs=2", name="mine")
    more = trials.run(*setup, "training.max_epochs=4", name="mine")
    losses = {entry["epoch"]: entry["val/loss"] for entry in more.log}
    best = {"min": min, "max": max}[mode](losses, key=losses.get)
    assert (best > 2) == (mode == "max")  # this loss rises: each part has one of the two
    assert more.record["metric"]["epoch"] == best
    assert more.record["metric"]["value"] == losses[best]


def test_asking_for_no_more_does_nothing(trials) -> None:
    done = trials.run(*SMALL, "training.max_epochs=2", name="mine")
    before = {file: file.stat().st_mtime_ns for file in done.folder.rglob("*") if file.is_file()}
    for epochs in (2, 1):
        again = trials.run(*SMALL, f"training.max_epochs={epochs}", name="mine")
        assert "this trial is done already" in again.output
    after = {file: file.stat().st_mtime_ns for file in done.folder.rglob("*") if file.is_file()}
    assert after == before


def test_patience(trials) -> None:
    """Stops after two validations that are no better than the best one, and stays stopped."""
    setup = (*SMALL, *WORST, "optimizer.lr=0.01", "training.patience=2")
    ended = trials.run(*setup, "training.max_epochs=9")
    losses = [entry["val/loss"] for entry in ended.log]
    best = losses.index(max(losses))
    assert len(losses) == best + 3 < 9
    assert (ended.code, ended.record["state"]) == (0, "done")
    assert ended.record["metric"]["epoch"] == best + 1
    again = trials.run(*setup, "training.max_epochs=9")
    assert "this trial is done already" in again.output
    assert again.record["attempts"] == 1


def test_patience_outlives_an_interruption(trials) -> None:
    setup = (*SMALL, *WORST, "optimizer.lr=0.01", "training.patience=2", "training.max_epochs=9")
    whole = trials.run(*setup, name="whole")
    trials.run(*setup, kill_at=7, name="killed")
    resumed = trials.run(*setup, name="killed")
    assert resumed.log == whole.log


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [("val/acuracy", "did you mean 'val/accuracy'"), ("val/matthews", "logged: ")],
)
def test_a_monitor_that_is_not_there(trials, wanted, hint) -> None:
    ended = trials.run(*SMALL, f"training.monitor={wanted}")
    assert ended.code == 2
    (line,) = [line for line in ended.output.splitlines() if "training.monitor" in line]
    assert line.startswith(f"training.monitor={wanted}: the model logs no such metric")
    assert hint in line
    assert "val/loss" in line
    assert ended.record["state"] == "failed"


def test_a_notebook_composes_settings_and_trains(tmp_path) -> None:
    """The lines of composition.py's docstring, run as they stand."""
    from tests.conftest import in_fork

    assert in_fork(tmp_path / "printed", run_documented_lines, str(tmp_path)) == 0
    (folder,) = (tmp_path / "runs" / "single").glob("[!.]*")
    record = json.loads((folder / "trial.json").read_text())
    assert record["state"] == "done"
    assert record["overrides"]["optimizer.lr"] == 0.003
    printed = (tmp_path / "printed").read_text().splitlines()
    assert printed[-1] == f"{folder} done {record['metric']['value']}"


def run_documented_lines(place: str) -> None:
    """Run the example of `composition`, with less to train."""
    import os
    import textwrap

    import trainer
    from mlmodeldev.settings import composition

    def compose_settings(overrides: list[str]) -> object:
        return composition.compose_settings([*overrides, "debug=fast", "callbacks=none"])

    os.chdir(place)
    lines = textwrap.dedent((composition.__doc__ or "").partition("Example::")[2])
    names = {"trainer": trainer, "compose_settings": compose_settings}
    exec(lines, names)
    result = names["result"]
    print(result.folder, result.state, result.metric)
