"""What ``mlmodeldev trial gc`` removes, and what it never touches."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.slurm.pinned_trials import pinned_trials
from mlmodeldev.slurm.trial_command import main
from mlmodeldev.tracking.mlflow_sync import awaits_mlflow
from mlmodeldev.tracking.upload import awaits_upload
from mlmodeldev.training.trial_start import _claim
from mlmodeldev.trial import collected
from mlmodeldev.trial.folder import TrialFolder
from tests.conftest import TrialResult, Trials, in_fork
from tests.slurm.written_trials import (
    BEST,
    LAST,
    LONG_AGO,
    STATES,
    STEP,
    content,
    gc,
    job,
    offline_run,
    trial,
    write,
)

# What happens to a trial in each state: its record, and whether its checkpoints may go.
UNTOUCHED: dict[str, dict[str, Any]] = {
    "here": {"state": "running", **job()},
    "remote": {"state": "running", **job(remote=True)},
    "killed": {"state": "running", **job(dead=True)},
    "interrupted": {"state": "interrupted"},
    "pending": {"state": "pending"},
    "odd": {"state": "another"},
    "newer": {"state": "done", "version": 99},
    "registered": {"state": "done", "registered": [{"name": "digits", "version": 3}]},
    "offline": {"state": "done", "wandb_id": "abc", "wandb_sweep": "s"},
    "failed": {"state": "failed"},
}
FREE: dict[str, dict[str, Any]] = {
    "done": {"state": "done"},
    "pruned": {"state": "pruned"},
    "uploaded": {"state": "done", "wandb_id": "abc", "uploaded": True},
}


@pytest.fixture
def fifty(tmp_path: Path) -> Path:
    """Trials of four sweeps, thirteen each, in every state."""
    runs = tmp_path / "runs"
    for sweep in "abcd":
        for name, record in {**UNTOUCHED, **FREE}.items():
            folder = trial(runs / sweep / f"{name}-{sweep}", **record)
            if name in ("offline", "uploaded"):
                offline_run(folder, synced=name == "uploaded")
            write(folder / "cka" / "towers.npz", 50)
    return runs


def test_of_fifty_trials_only_what_nobody_needs_goes(
    fifty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(fifty)
    shown = gc(fifty, "--dry-run", f"--{STATES}", capsys=capsys)
    assert content(fifty) == before
    gone = [n for n in before if "step-" in n and n.split("/")[1].split("-")[0] in FREE]
    gone += [n for n in before if "/uploaded-" in n and "/wandb/" in n]
    assert shown["free"] == sum(len(before[name]) for name in gone) == 4 * (3 * 2 * STEP + 500)
    assert shown["bytes"] == sum(map(len, before.values()))
    by_name = {each["trial"].split("/")[1].split("-")[0]: each for each in shown["trials"]}
    assert {n for n, each in by_name.items() if each["kept"]} == set(UNTOUCHED) - {"failed"}
    sizes = by_name["done"]["bytes"]
    assert (sizes["best"], sizes["last"]) == (2 * BEST + 2, LAST + 2)
    assert (sizes["checkpoints"], sizes["wandb"]) == (2 * STEP, 0)
    removed = gc(fifty, "--yes", f"--{STATES}", capsys=capsys)
    assert removed["removed"] == shown["free"]
    records = {n for n in before if n.endswith("trial.json") and "step-" not in n}
    changed = {n for n in records if n.split("/")[1].split("-")[0] in FREE}
    after = content(fifty)
    assert set(after) == set(before) - set(gone)
    assert {n for n in after if after[n] != before[n]} == changed
    note = json.loads(after["a/done-a/trial.json"])["collected"]
    assert (note["checkpoints"], note["bytes"]) == (2, 2 * STEP)
    assert gc(fifty, "--yes", f"--{STATES}", capsys=capsys)["removed"] == 0


def test_without_the_option_checkpoints_stay_and_keep_leaves_the_newest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trial(tmp_path / "runs" / "a" / "x")
    young = trial(tmp_path / "runs" / "a" / "young", updated=time.time())
    assert gc(tmp_path / "runs", "--yes", capsys=capsys)["removed"] == 0
    options = ("--yes", f"--{STATES}", "--keep", "1", "--older-than", "7d")
    assert gc(tmp_path / "runs", *options, capsys=capsys)["removed"] == STEP
    assert [p.name for p in folder.glob("checkpoints/step-*")] == ["step-0000000020.ckpt"]
    assert len(list(young.glob("checkpoints/step-*"))) == 2


def test_the_last_weights_stay_where_only_a_checkpoint_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trial(tmp_path / "runs" / "a" / "x")
    (folder / "last" / "training_state.json").unlink()
    gc(tmp_path / "runs", "--yes", f"--{STATES}", capsys=capsys)
    assert [p.name for p in folder.glob("checkpoints/step-*")] == ["step-0000000020.ckpt"]


def test_trials_that_others_name_are_pinned(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    names = ("plain", "parent", "weights", "compared", "by-record", "by-id")
    folders = {name: trial(runs / "a" / name) for name in names}
    text = f"""
training:
  continue_from: a/parent
  init_from: {folders["weights"]}/best
callbacks:
  cka:
    comparisons:
      own: {{a: "*", against: start}}
      other: {{a: "*", against: {runs}/a/compared/checkpoints/best.ckpt}}
"""
    child = trial(
        runs / "b" / "child", parent={"how": "continue_from", "folder": f"{runs}/a/by-record"}
    )
    (child / "config.yaml").write_text(text)
    other = trial(runs / "b" / "other")
    (other / "config.yaml").write_text("overrides:\n  training.init_from: by-id\n")
    pinned = pinned_trials(runs)
    assert {folder.name for folder in pinned} == set(names) - {"plain"}
    assert pinned[folders["compared"]] == "b/child (against)"


def test_what_was_not_uploaded_waits(tmp_path: Path) -> None:
    folder = trial(tmp_path / "runs" / "a" / "x")
    logs = {"wandb_id": "abc", "state": "done"}
    assert not awaits_upload(folder, logs)  # it logs elsewhere
    write(folder / "config.yaml", "logger:\n  wandb:\n    mode: offline\n")
    assert awaits_upload(folder, logs)
    assert not awaits_upload(folder, {**logs, "uploaded": True})
    assert not awaits_upload(folder, {"state": "done"})
    assert not awaits_mlflow(folder, logs)
    write(folder / "config.yaml", "logger:\n  mlflow:\n    uri: null\n")
    assert awaits_mlflow(folder, {"state": "done", "mlflow_uploaded": False})
    assert not awaits_mlflow(folder, {"state": "done", "mlflow_uploaded": True})
    assert not awaits_mlflow(folder, {"state": "interrupted"})


def test_what_mlflow_lacks_waits(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, sent in (("behind", False), ("sent", True)):
        folder = trial(runs / "a" / name, mlflow_key="k", mlflow_uploaded=sent)
        write(folder / "config.yaml", "logger:\n  mlflow:\n    uri: null\n")
    arguments = ["gc", f"--{STATES}", "--runs-dir", str(runs), "--yes"]
    assert main(arguments) == 0
    left = {path.parts[-3] for path in runs.glob("a/*/checkpoints/step-*.ckpt")}
    assert left == {"behind"}


def test_leftovers_and_empty_folders_go_when_they_are_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    folder = trial(runs / "a" / "x")
    old = write(folder / "checkpoints" / ".step-1.ckpt.0011223344556677.tmp", 40)
    fresh = write(folder / ".log.json.8899aabbccddeeff.tmp", 50)
    os.utime(fresh)
    replaced = write(folder / ".last.previous" / "model.safetensors", 60).parent
    only = write(folder / ".cka.previous" / "towers.npz", 70).parent
    (runs / "a" / "empty" / "checkpoints").mkdir(parents=True)
    (runs / "a" / "begins" / "checkpoints").mkdir(parents=True)
    for path in (replaced, only, runs / "a" / "empty"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    before = content(folder)
    assert gc(runs, "--yes", capsys=capsys)["removed"] == 100
    assert not old.exists()
    assert not replaced.exists()
    assert not (runs / "a" / "empty").exists()
    assert (runs / "a" / "begins").is_dir()
    gone = {str(p.relative_to(folder)) for p in (old, replaced / "model.safetensors")}
    assert content(folder) == {n: text for n, text in before.items() if n not in gone}


def test_finished_reproductions_are_counted_and_go_when_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    trial(runs / "a" / "x")
    again = runs / ".reproduced"
    data = write(tmp_path / "data" / "numbers.txt", 5000)
    for name in ("a/done", "a/begun", "a/registered", "b/done"):
        write(again / name / "code" / "model.py", 30)
        (again / name / "code" / "data").symlink_to(data.parent)
        if "begun" not in name:
            write(again / name / "reproduction.json", "{}")
    record = json.dumps({"state": "done", "registered": [{"name": "digits", "version": 3}]})
    write(again / "a/registered/runs/a/x/trial.json", record)
    before = content(runs)
    shown = gc(runs, "--yes", capsys=capsys)
    assert shown["removed"] == 0
    assert content(runs) == before
    seen = {each["path"]: each["finished"] for each in shown["reproductions"]}
    assert [seen[str(again / name)] for name in ("a/begun", "a/done", "b/done")] == [
        False,
        True,
        True,
    ]
    assert main(["gc", "--runs-dir", str(runs), "--dry-run"]) == 0
    assert "--reproductions: of " in capsys.readouterr().out
    assert gc(runs, "a", "--yes", "--reproductions", capsys=capsys)["others"][0]["path"] == str(
        again / "a" / "done"
    )
    assert not (again / "a" / "done").exists()
    assert gc(runs, "--yes", "--reproductions", "--older-than", "4w", capsys=capsys)["removed"] == 0
    assert gc(runs, "--yes", "--reproductions", capsys=capsys)["removed"] > 30
    left = {name for name in before if "/done/" not in name}
    assert set(content(runs)) == left
    assert data.stat().st_size == 5000


# --- kills, and trials that begin again


def collect_and_die(runs: str, call: int) -> None:
    """Collect, and die in the middle: in the removal of that number."""
    real, calls = collected.remove_at_once, 0

    def dying(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        real(path)

    collected.remove_at_once = dying
    main(["gc", "--runs-dir", runs, "--yes", f"--{STATES}"])


@pytest.mark.parametrize("call", [1, 2])
def test_a_kill_leaves_a_trial_that_says_what_it_lacks(
    tmp_path: Path, call: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trial(tmp_path / "runs" / "a" / "x")
    offline_run(folder, synced=True)
    before = content(folder)
    assert in_fork(tmp_path / "out", collect_and_die, str(tmp_path / "runs"), call) == -9
    after = content(folder)
    kept = {name for name in before if "step-" not in name}
    assert kept <= set(after)
    assert "checkpoints/step-0000000020.ckpt" in after  # the newest goes last
    record = json.loads(after["trial.json"])
    assert (record["state"], "collected" in record) == ("done", True)
    collected.refuse_without_checkpoints(folder, record)  # there is one to go on from
    gc(tmp_path / "runs", "--yes", f"--{STATES}", capsys=capsys)
    assert set(content(folder)) == {name for name in kept if not name.startswith("wandb/")}


def test_a_trial_that_begins_again_meanwhile_wins(tmp_path: Path) -> None:
    folder = trial(tmp_path / "runs" / "a" / "x")
    seen = TrialFolder(folder).read()
    again = TrialFolder(folder)
    again.claim()
    steps = sorted(folder.glob("checkpoints/step-*"))
    assert collected.drop(folder, seen, steps) is False
    assert sorted(folder.glob("checkpoints/step-*")) == steps
    again.finish("done")


def test_a_start_that_comes_too_late_gives_the_trial_back(tmp_path: Path) -> None:
    from mlmodeldev.errors import UsageError

    folder = trial(tmp_path / "runs" / "a" / "x")
    seen = TrialFolder(folder).read()  # a start has read this, and has not claimed it yet
    assert collected.drop(folder, seen, sorted(folder.glob("checkpoints/step-*")))
    with pytest.raises(UsageError, match="can't go on from epoch 3"):
        _claim(TrialFolder(folder), seen)
    assert TrialFolder(folder).read()["state"] == "done"


# --- a real trial


def test_a_collected_trial_loads_and_is_done_and_says_why_it_cannot_go_on(
    trials: Trials, digits_trial: TrialResult, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    import mlmodeldev

    folder = trials.runs / "single" / "digits"
    shutil.copytree(digits_trial.folder, folder)
    before = content(folder)
    removed = gc(trials.runs, "--yes", f"--{STATES}", "single", capsys=capsys)["removed"]
    assert removed == sum(len(before[n]) for n in before if "/step-" in n) > 0
    assert mlmodeldev.load(folder).training is False
    overrides = ["logger=csv", "model.hidden_size=16", "model.num_layers=1", "optimizer.lr=0.01"]
    overrides += ["training.log_every_n_steps=5", "processing.batch_size=64"]
    overrides += ["callbacks.cka.enabled=false"]
    done = trials.run(*overrides, "training.max_epochs=3", name="digits")
    assert (done.code, "done already" in done.output) == (0, True)
    more = trials.run(*overrides, "training.max_epochs=4", name="digits")
    assert more.code == 2
    assert more.output.splitlines()[-1].startswith(f"{folder}: can't go on from epoch 3")
    assert more.record["state"] == "done"
