"""``training.continue_from``: a trial goes on where another has ended, to the same bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mlmodeldev.trial.folder import TrialFolder

SMALL = (
    "logger=csv",
    "callbacks=none",
    "training.limit_train_batches=4",
    "training.limit_val_batches=2",
    "training.monitor=val/loss",  # it rises: the best weights are of the first epochs
    "training.mode=min",
    "model.hidden_size=16",
    "model.num_layers=1",
    "optimizer.lr=0.01",
    "optimizer.schedule=constant",
    "optimizer.warmup_fraction=0",
)
FOUR = (*SMALL, "training.max_epochs=4", "training.test=false")


@pytest.fixture(scope="module")
def parent(shared_trials) -> Any:
    done = shared_trials.run(*SMALL, "training.max_epochs=2", "training.test=false", name="two")
    assert done.code == 0, done.output
    return done


@pytest.fixture(scope="module")
def whole(shared_trials) -> Any:
    """The uninterrupted trial of four epochs."""
    done = shared_trials.run(*FOUR, name="four")
    assert done.code == 0, done.output
    return done


def saved(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_ends_as(ended: Any, whole: Any) -> None:
    ours, theirs = saved(ended.checkpoint), saved(whole.checkpoint)
    assert ended.checkpoint.name == whole.checkpoint.name == "step-0000000016.ckpt"
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops"):
        assert same(ours[part], theirs[part]), part
    best = [saved(each.folder / "checkpoints" / "best.ckpt") for each in (ended, whole)]
    assert same(best[0]["state_dict"], best[1]["state_dict"])
    assert ended.log == whole.log
    assert ended.record["metric"] == whole.record["metric"]
    assert ended.rows == [row for row in whole.rows if int(row["step"]) >= 8]


def test_two_epochs_continued_to_four_are_a_trial_of_four(shared_trials, parent, whole) -> None:
    before = {file: file.read_bytes() for file in parent.folder.rglob("*") if file.is_file()}
    more = shared_trials.run(*FOUR, "training.continue_from=two", name="more")
    assert more.code == 0, more.output
    assert f"continuing {parent.folder}; epochs done: 2" in more.output
    assert_ends_as(more, whole)
    lineage = more.record["parent"]
    assert (lineage["trial"], lineage["epoch"], lineage["step"]) == ("two", 2, 8)
    assert lineage["folder"] == str(parent.folder)
    assert len(lineage["sha256"]) == 64
    after = {file: file.read_bytes() for file in parent.folder.rglob("*") if file.is_file()}
    assert before == after


def test_killed_while_continuing_it_comes_back_as_itself(
    shared_trials, parent, whole, tmp_path
) -> None:
    away = shared_trials.runs / "single" / "gone"
    shutil.copytree(parent.folder, away)
    wanted = (*FOUR, f"training.continue_from={away}", "training.checkpoint_every_n_steps=3")
    killed = shared_trials.run(*wanted, kill_at=6, name="killed")
    assert killed.code == -9
    assert killed.checkpoint.name == "step-0000000012.ckpt"
    shutil.rmtree(away)  # its own checkpoint is all that it needs
    back = shared_trials.run(*wanted, name="killed")
    assert back.code == 0, back.output
    assert "going on from step 12 (attempt 2)" in back.output
    assert "continuing" not in back.output.partition("attempt 2")[2]
    assert_ends_as(back, whole)
    assert back.record["parent"]["trial"] == "gone"


def start(runs: Path, *overrides: str) -> tuple[Path, dict[str, Any]]:
    """Open a trial as trainer.py does, without training it."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.training.trial_start import open_trial

    given = [f"artefacts.runs_dir={runs}", *FOUR, "training.continue_from=two"]
    return open_trial(compose_settings([*given, *overrides]))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["training.max_epochs=2"], "training.max_epochs=2: must be more than the 2 that"),
        (["training.max_steps=8"], "training.max_steps=8: must be more than the 8 that"),
        (["model.hidden_size=32"], "that trial has model.hidden_size=16 (asked now: 32)"),
        (["optimizer.lr=0.02"], "that trial has optimizer.lr=0.01 (asked now: 0.02)"),
        (["optimizer.name=sgd"], "(training.init_from takes the weights alone)"),
        (["training.continue_from=twoo"], "did you mean 'two'?"),
        (["training.continue_from=single/two/checkpoints"], "is a part of a trial"),
        (["artefacts.trial=two", "artefacts.fresh=true"], "is this trial itself"),
        (
            ["training.init_from=two"],
            "training.continue_from and init_from are both set: give one of them",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(parent, overrides, line) -> None:
    from mlmodeldev.errors import UsageError

    runs = parent.folder.parents[1]
    before = sorted(runs.rglob("*"))
    with pytest.raises(UsageError) as refused:
        start(runs, *overrides)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("running", "that trial is running; wait for its end"),
        ("interrupted", "that trial is interrupted; only one that has ended can be continued"),
        ("failed", "that trial is failed; only one that has ended can be continued"),
    ],
)
def test_a_trial_that_has_not_ended_is_refused(parent, tmp_path, state, line) -> None:
    from mlmodeldev.errors import UsageError

    place = tmp_path / "runs" / "single" / "two"
    shutil.copytree(parent.folder, place)
    record = json.loads((place / "trial.json").read_text())
    if state == "running":  # by a process on another machine, whose lease is fresh
        owner = {"host": "other", "pid": 1, "token": "x"}
        record |= {"owner": owner, "lease": record["updated"] + 9e9}
    (place / "trial.json").write_text(json.dumps({**record, "state": state}))
    with pytest.raises(UsageError) as refused:
        start(tmp_path / "runs")
    assert line in str(refused.value)


@pytest.mark.parametrize("name", ["two", "single/two", "runs/single/two", "FOLDER"])
def test_a_trial_is_named_by_id_or_path(parent, tmp_path, name) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(parent.folder, runs / "single" / "two")
    name = name.replace("FOLDER", str(runs / "single" / "two"))
    path, begun = start(runs, f"training.continue_from={name}")
    TrialFolder(path).finish("interrupted")
    assert (begun["step"], begun["inherits"]) == (8, True)
    assert begun["checkpoint"] == path / "checkpoints" / "step-0000000008.ckpt"
    assert path.name not in ("two", "trial")  # an identity of its own


def test_other_data_are_judged_anew_and_the_end_of_patience_is_no_end(parent, tmp_path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(parent.folder, runs / "single" / "two")
    file = runs / "single" / "two" / "checkpoints" / "step-0000000008.ckpt"
    state = saved(file)
    state["callbacks"]["Recovery"]["stopping"] = True
    state["callbacks"]["EarlyStopping{'monitor': 'val/loss'}"] = {"wait_count": 2, "best_score": 1}
    state["callbacks"]["Pruning"] = {"reason": "fell behind", "values": [1.0, 2.0]}
    torch.save(state, file)
    paths = [start(runs, *more)[0] for more in ([], ["data.val_fraction=0.3"])]
    as_before, judged_anew = (
        saved(path / "checkpoints" / "step-0000000008.ckpt")["callbacks"] for path in paths
    )
    assert as_before["Recovery"]["stopping"] is judged_anew["Recovery"]["stopping"] is False
    stopping = as_before["EarlyStopping{'monitor': 'val/loss'}"]
    assert (stopping["wait_count"], stopping["best_score"]) == (0, 1)
    assert as_before["Recovery"]["best_value"] == parent.record["metric"]["value"]
    assert judged_anew["Recovery"]["best_value"] is None
    assert not any(key.startswith("EarlyStopping") for key in judged_anew)
    assert as_before["Pruning"] == {"reason": None, "values": [1.0, 2.0]}
    assert judged_anew["Pruning"] == {"reason": None, "values": []}
    assert [(path / "checkpoints" / "best.ckpt").exists() for path in paths] == [True, False]
    assert [(path / "log.json").exists() for path in paths] == [True, False]


def test_a_start_that_dies_while_the_state_is_copied_is_made_good(
    parent, tmp_path, monkeypatch
) -> None:
    from mlmodeldev.training.checkpoint_io import AtomicCheckpointIO

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    runs = tmp_path / "runs"
    shutil.copytree(parent.folder, runs / "single" / "two")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(AtomicCheckpointIO, "save_checkpoint", dies)
        start(runs)
    path, begun = start(runs)
    assert (begun["step"], begun["inherits"], begun["attempt"]) == (8, True, 2)
    kept = saved(begun["checkpoint"])
    assert same(kept["optimizer_states"], saved(parent.checkpoint)["optimizer_states"])
    assert [file.name for file in (path / "checkpoints").iterdir() if "step" in file.name] == [
        "step-0000000008.ckpt"
    ]


def test_a_child_run_again_in_another_place_finds_its_parent(parent, tmp_path) -> None:
    from mlmodeldev.training.rerun import settings_again
    from mlmodeldev.trial.comparison import read_trial

    runs = tmp_path / "runs"
    shutil.copytree(parent.folder, runs / "single" / "two")
    path, _ = start(runs)
    TrialFolder(path).finish("interrupted")
    again = settings_again(read_trial(path), tmp_path / "again", fetch=False)
    assert again["artefacts"]["runs_dir"] == str(tmp_path / "again" / "runs")
    assert again["training"]["continue_from"] == str(runs / "single" / "two")
