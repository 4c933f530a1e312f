"""What a trial writes beside its weights: samples, epochs and speed."""

from __future__ import annotations

import csv
import json
import math

import pytest

from tests.callbacks import patches
from tests.small_data import rows

WORDS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def samples(ended) -> list[dict[str, str]]:
    with (ended.folder / "samples.csv").open() as file:
        return list(csv.DictReader(file))


def test_wrong_samples_come_first_the_surest_of_them_on_top(digits_trial) -> None:
    table = samples(digits_trial)
    assert len(table) == 32
    wrong = [row["label"] != row["prediction"] for row in table]
    assert wrong == [row["correct"] == "False" for row in table]
    assert wrong == sorted(wrong, reverse=True)
    for kind in (True, False):
        sure = [float(r["probability"]) for r, w in zip(table, wrong, strict=True) if w is kind]
        assert sure == sorted(sure, reverse=True)


def test_samples_have_names_and_the_right_ones(digits_trial) -> None:
    from sklearn.datasets import load_digits

    truth = load_digits().target
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for row in samples(digits_trial):
        assert row["label"] == names[truth[int(row["index"])]]
        assert row["prediction"] in WORDS
        assert 0.1 <= float(row["probability"]) <= 1


def test_samples_of_sentences_show_them(cola_trial) -> None:
    texts = rows(1, 80)
    table = samples(cola_trial)
    for row in table:
        text, label = texts[int(row["index"])]
        assert row["text"] == text
        assert row["label"] == ("acceptable" if label else "unacceptable")
    errors = 80 * (1 - cola_trial.log[-1]["val/accuracy"])
    assert sum(row["correct"] == "False" for row in table) == min(32, round(errors))


def test_samples_count(trials) -> None:
    ended = trials.run(
        "debug=fast", "logger=csv", "model.num_layers=1", "callbacks.samples.count=3"
    )
    assert len(samples(ended)) == 3


def test_throughput_is_plausible(digits_trial) -> None:
    with (digits_trial.folder / "metrics.csv").open() as file:
        table = [row for row in csv.DictReader(file) if row["time/step_seconds"]]
    assert len(table) == 57 // 5
    for row in table:
        seconds, speed, wait = (
            float(row[f"time/{name}"])
            for name in ("step_seconds", "samples_per_second", "data_wait_share")
        )
        assert speed * seconds == pytest.approx(64, rel=1e-4)
        assert 1e-4 < seconds < 5
        assert 0 <= wait < 1
    lasted = digits_trial.record["updated"] - digits_trial.record["created"]
    assert sum(float(row["time/step_seconds"]) * 5 for row in table) < lasted


def test_an_epoch_has_an_entry_with_the_means_of_its_batches(trials) -> None:
    ended = trials.run(
        "logger=csv",
        "callbacks=none",
        "model.hidden_size=16",
        "model.num_layers=1",
        "training.max_epochs=3",
        "training.check_val_every_n_epoch=2",
        "training.limit_train_batches=4",
        "training.log_every_n_steps=1",
        "training.gradient_clip_val=null",
    )
    assert [entry["epoch"] for entry in ended.log] == [1, 2, 3]
    assert [entry["step"] for entry in ended.log] == [4, 8, 12]
    assert ["val/loss" in entry for entry in ended.log] == [False, True, False]
    losses = [float(row["train/loss"]) for row in ended.rows if "train/loss" in row]
    for number, entry in enumerate(ended.log):
        batches = losses[4 * number : 4 * number + 4]
        assert entry["train/loss"] == pytest.approx(math.fsum(batches) / 4, rel=1e-6)
    assert ended.log[-1]["lr"] == pytest.approx(0, abs=1e-9)  # the cosine has ended


def test_the_log_agrees_with_the_metrics_file(digits_trial) -> None:
    rows_ = [row for row in digits_trial.rows if "val/loss" in row]
    for name in ("val/loss", "val/accuracy"):
        assert [float(row[name]) for row in rows_] == [e[name] for e in digits_trial.log]
    assert digits_trial.record["metric"]["value"] == max(
        entry["val/accuracy"] for entry in digits_trial.log
    )


# --- presets


def test_debug_fast(trials) -> None:
    ended = trials.run("debug=fast", "logger=csv")
    assert ended.code == 0, ended.output
    assert [entry["step"] for entry in ended.log] == [3]
    assert "test/accuracy" in ended.record["test"]
    assert (ended.folder / "best" / "config.json").is_file()
    assert list((ended.folder / "cka").rglob("*.png"))


def test_debug_overfit_learns_two_batches_by_heart(trials) -> None:
    """The loss falls to its floor: the entropy of the targets, which same labels share."""
    from sklearn.datasets import load_digits

    small = ("processing.batch_size=16", "model.hidden_size=32", "model.num_layers=1")
    ended = trials.run("debug=overfit", "logger=csv", *small, patch=patches.note_batches)
    assert ended.code == 0, ended.output
    noted = [json.loads(x) for x in (ended.folder / "batches.jsonl").read_text().splitlines()]
    batches = {tuple(indices) for step, _, indices in noted if step == "training_step"}
    assert len(noted) == 50 * 2 + 5 * 2
    assert len(batches) == 2
    assert {tuple(indices) for step, _, indices in noted if step == "validation_step"} == batches
    labels = [load_digits().target[list(batch)].tolist() for batch in batches]
    floor = sum(math.log(batch.count(one)) for batch in labels for one in batch) / 32
    losses = [entry["train/loss"] for entry in ended.log]
    assert losses[0] > floor + 1
    assert floor < losses[-1] < floor + 0.1
    assert ended.log[-1]["val/accuracy"] > 0.9


def test_debug_profile_says_where_the_time_goes(trials) -> None:
    ended = trials.run(
        "debug=profile", "logger=csv", "model.num_layers=1", "training.limit_train_batches=4"
    )
    assert ended.code == 0, ended.output
    (report,) = ended.folder.glob("fit-*.txt")
    assert "run_training_batch" in report.read_text()


def test_experiment_cola_learns(cola_trial) -> None:
    state = json.loads((cola_trial.folder / "best" / "training_state.json").read_text())
    assert state["settings"]["model"]["_target_"] == "examples.text_classifier.TextClassifier"
    assert state["settings"]["data"]["_target_"] == "examples.cola.Cola"
    assert cola_trial.record["metric"]["name"] == "val/matthews"
    assert cola_trial.record["metric"]["value"] > 0.9
    assert cola_trial.record["test"]["test/accuracy"] > 0.9
