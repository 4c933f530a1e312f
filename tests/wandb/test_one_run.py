"""One trial, one run: whatever the environment says, no trial writes to another's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.wandb.conftest import Client, steps_are_whole
from tests.wandb.operations import ANSWERS, LONGEST, Refusal
from tests.wandb.store import Store

LONG = (
    "optimizer.lr=0.0123456789", "optimizer.weight_decay=0.00123456789",
    "optimizer.betas=[0.912345678,0.998765432]", "training.gradient_clip_val=1.23456789",
    "training.seed=7",
)  # fmt: skip
"""Settings whose names and values are longer together than W&B takes a name."""


def rows(folder: Path) -> int:
    return len((folder / "metrics.csv").read_text().splitlines()) - 1


@pytest.mark.slow
def test_a_script_that_trains_twice_under_one_agent_makes_two_runs(client: Client):
    """As in cross-validation: `wandb agent` starts the script, the script trainer.py."""
    path = client.sweep({"optimizer.lr": {"values": [0.01]}})
    entity, project, sweep = path.split("/")
    given = {"WANDB_SWEEP_ID": sweep, "WANDB_RUN_ID": "given001", "WANDB_PROJECT": project,
             "WANDB_ENTITY": entity}  # fmt: skip
    for fold in (0, 1, 1):  # the last is asked for once more, when it is done
        process = client.trial(*LONG, f"processing.batch_size={16 + 8 * fold}", **given)
        process.join(150)
        assert process.exitcode == 0, client.output()
    first, second = sorted(client.runs, key=lambda run: run.name != "given001")
    assert (first.name, first.sweep, second.sweep) == ("given001", sweep, None)
    assert [first.ends, second.ends] == [[("finished", 0)]] * 2, client.output()
    for run, size in ((first, 16), (second, 24)):
        assert run.settings["processing"]["batch_size"] == size
        assert len(run.fields["displayName"]) == 128, "cut"
        assert (
            "lr=0.01235 weight_decay=0.001235 betas=[0.9123, 0.9988]" in run.fields["displayName"]
        )
        folder = client.runs_dir / sweep / run.settings["trial"]["identity"]
        record = json.loads((folder / "trial.json").read_text())
        assert (record["wandb_id"], record["uploaded"]) == (run.name, True)
        steps_are_whole(run, rows(folder))
    owner = f"{sweep}/{first.settings['trial']['identity']}"
    assert f"run given001 is that of trial {owner}; this one gets its own" in client.output()


@pytest.mark.slow
def test_a_run_of_another_machine_is_seen_in_its_settings(client: Client):
    """The variable is left over in the shell; the runs of the first trial lie elsewhere."""
    project = f"logger.wandb.project={client.project}"
    for number in (1, 2):
        process = client.trial(f"artefacts.trial=t{number}", project, WANDB_RUN_ID="left0001")
        process.join(150)
        assert process.exitcode == 0, client.output()
        if number == 1:
            shutil.move(client.runs_dir, client.folder / "of-another-machine")
    (second,) = (run for run in client.runs if run.name != "left0001")
    assert second.settings["trial"]["identity"] == "t2"
    for run in client.runs:
        assert run.starts == 1
        steps_are_whole(run)
    assert "run left0001 is that of trial single/t1" in client.output()


@pytest.mark.parametrize("key", LONGEST)
def test_the_loopback_server_takes_no_longer_names_than_the_real_one(key: str):
    given = {"project": "p", "name": "r"}
    ANSWERS["UpsertBucket"](Store(), {**given, key: "x" * 128})
    with pytest.raises(Refusal, match="at most 128"):
        ANSWERS["UpsertBucket"](Store(), {**given, key: "x" * 129})
