"""``SlurmTrain.py plan --wandb``: what a W&B project holds is not run again."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

from mlmodeldev.slurm.command_line import main
from mlmodeldev.slurm.local import TrialEntrySource
from mlmodeldev.slurm.plan import is_due
from mlmodeldev.slurm.plan import state as planned
from mlmodeldev.slurm.sweep_state import TrialEntry
from mlmodeldev.sweep import loads
from mlmodeldev.sweep.loading import trial_arguments
from tests.wandb.conftest import TINY, Client
from tests.wandb.store import ENTITY

SWEEP = """\
# Command: none. Expected best value: none. Cost: none
program: trainer.py
name: shared
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {values: [0.001, 0.002, 0.003, 0.004, 0.005]}
  training.max_epochs: {value: 2}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


FIXED = [f"{k}={str(v).lower()}" for k, v in TINY.items() if k != "training.max_epochs"]
FIXED += ["cluster=local", "callbacks=none", "training.limit_train_batches=3"]
FIXED += ["training.test=false"]


def slurm_train(client: Client, action: str, *words: str, **env: str):
    """Answer of SlurmTrain.py for the sweep above."""
    file = client.folder / "shared.yaml"
    file.write_text(SWEEP)
    script = [sys.executable, "slurm/SlurmTrain.py", action, "--sweep", str(file)]
    return client.sh(*script, *words, *FIXED, check=False, **env)


def hold(client: Client, identity: str, state: str, **changes) -> None:
    """Let the server hold a run like the trained one, of another point."""
    like = client.runs[0]
    run = client.server.store.run(ENTITY, client.project, f"{identity}-{len(client.runs)}")
    run.config, run.state, run.starts = copy.deepcopy(like.config), state, 1
    run.config["trial"]["value"]["identity"] = identity
    for key, value in changes.items():
        group, _, name = key.partition("__")
        run.config[group]["value"][name] = value


@pytest.mark.slow
def test_trials_that_wandb_holds_are_not_run_again(client: Client):
    project = f"logger.wandb.project={client.project}"
    done, running, failed, other, missing = loads(SWEEP).trials()
    folder = client.folder / "there" / "shared" / done.id
    first = client.trial(*trial_arguments(done.overrides, folder, [*FIXED, project]))
    first.join(200)
    assert [run.ends for run in client.runs] == [[("finished", 0)]], client.output()
    assert client.runs[0].settings["trial"]["identity"] == done.id
    for trial, state in ((running, "running"), (failed, "crashed"), (failed, "failed")):
        hold(client, trial.id, state, optimizer__lr=trial.overrides["optimizer.lr"])
    hold(
        client, other.id, "finished", optimizer__lr=other.overrides["optimizer.lr"], model__width=8
    )

    here = f"artefacts.runs_dir={client.runs_dir}"
    answer = slurm_train(client, "plan", "--json", "--wandb", project, here)
    assert answer.returncode == 0, answer.stderr
    plan = json.loads(answer.stdout)
    states = {trial["id"]: trial["state"] for trial in plan["trials"]}
    assert states == {
        done.id: "done",
        running.id: "running",
        failed.id: "failed",
        other.id: "missing",  # of the same identity, but narrower
        missing.id: "missing",
    }
    due = [trial in plan["script"] for trial in (done.id, running.id, other.id, missing.id)]
    assert due == [False, False, True, True]
    assert "W&B holds 3 of 5 trials" in answer.stderr
    unasked = json.loads(slurm_train(client, "plan", "--json", here).stdout)
    assert {trial["state"] for trial in unasked["trials"]} == {"missing"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "url", "message"),
    [
        ("team/digits", "http://127.0.0.1:9", "--wandb team/digits: http://127.0.0.1:9: Conn"),
        ("team/refused", None, "--wandb team/refused: "),
    ],
)
def test_a_place_that_does_not_answer_is_one_error(place, url, message, client: Client):
    client.server.faults.fail(400, 99, "Runs")
    env = {"WANDB_BASE_URL": url} if url else {}
    answer = slurm_train(client, "submit", "--wandb", place, **env)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not client.runs_dir.exists()


def test_a_place_that_is_none_is_refused(tmp_path, capsys):
    file = tmp_path / "shared.yaml"
    file.write_text(SWEEP)
    assert main(["plan", "--sweep", str(file), "--wandb", "a/b/c", "cluster=local"]) == 2
    assert capsys.readouterr().err.endswith("--wandb a/b/c: must be ENTITY/PROJECT, or PROJECT\n")


@pytest.mark.parametrize(
    ("here", "there", "state", "is_run"),
    [
        (None, None, "missing", True),
        (None, "done", "done", False),
        (None, "pruned", "pruned", False),
        (None, "running", "running", False),
        (None, "failed", "failed", None),
        ("failed", "running", "running", False),
        ("failed", "done", "done", False),
        ("interrupted", "done", "done", False),
        ("interrupted", "failed", "interrupted", True),
        ("done", "failed", "done", False),
        ("pruned", "done", "pruned", False),
    ],
)
def test_what_there_is_here_and_there(here, there, state, is_run, tmp_path: Path):
    trial = next(loads(SWEEP).trials())
    folder = tmp_path / trial.id
    if here:
        folder.mkdir()
        (folder / "trial.json").write_text(json.dumps({"state": here}))
    entry = TrialEntry(trial, tmp_path, there)
    assert entry.state == state
    if is_run is not None:  # what failed there is as one that failed here
        assert (TrialEntrySource([entry], "trainer", []).take() is not None) is is_run
        assert is_due(entry, planned(entry, None), None) is is_run
