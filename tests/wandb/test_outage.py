"""The server gone, slow or failing: training is unharmed, and later all is there, once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mlmodeldev.tracking.sync import lacks
from tests.wandb.conftest import ROOT, Client, steps_are_whole

pytestmark = pytest.mark.slow

SYNC = ("python", str(ROOT / "slurm" / "SlurmTrain.py"), "sync")


def rows(folder: Path) -> int:
    file = folder / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def trial(client: Client, name: str, *overrides: str, **env: str) -> int:
    project = f"logger.wandb.project={client.project}"
    process = client.trial(f"artefacts.trial={name}", project, *overrides, **env)
    process.join(150)
    return process.exitcode


def test_a_server_that_goes_for_good_holds_no_trial_and_sync_makes_up_for_it(client: Client):
    folder = client.runs_dir / "single" / "lost"
    project = f"logger.wandb.project={client.project}"
    process = client.trial(
        "artefacts.trial=lost", "training.max_epochs=12", project, WANDB_FINISH_TIMEOUT="4"
    )
    client.until(lambda: client.runs and len(client.runs[0].steps) > 3, "rows in W&B")
    client.server.faults.silent = True
    process.join(120)
    assert process.exitcode == 0, client.output()
    record = json.loads((folder / "trial.json").read_text())
    assert (record["state"], record["uploaded"]) == ("done", False)
    (run,) = client.runs
    assert run.ends == []
    client.server.faults.clear()
    for _ in range(2):  # the second finds nothing to do
        client.sh(*SYNC, f"artefacts.runs_dir={client.runs_dir}")
    assert run.ends == [("finished", 0)]
    steps_are_whole(run, rows(folder))
    assert run.summary["val/accuracy"] == pytest.approx(record["metric"]["value"])
    assert client.runs == [run]


def test_errors_and_slowness_are_ridden_out(client: Client):
    client.server.faults.fail(503, 4)
    client.server.faults.slow(0.2)
    assert trial(client, "slow") == 0, client.output()
    (run,) = client.runs
    assert run.ends == [("finished", 0)]
    steps_are_whole(run, rows(client.runs_dir / "single" / "slow"))


def test_trials_without_a_network_are_uploaded_while_they_grow_and_once(client: Client):
    done = client.runs_dir / "single" / "sealed"
    assert trial(client, "sealed", WANDB_MODE="offline") == 0, client.output()
    assert client.runs == []
    growing = client.runs_dir / "single" / "growing"
    project = f"logger.wandb.project={client.project}"
    process = client.trial(
        "artefacts.trial=growing", "training.max_epochs=60", project, WANDB_MODE="offline"
    )
    client.until(lambda: rows(growing) > 4, "rows")
    assert lacks(done)
    assert lacks(growing)
    follow = [client.start(*SYNC, "--follow", f"artefacts.runs_dir={client.runs_dir}")
              for _ in range(2)]  # two at once  # fmt: skip

    def live() -> bool:
        return any(len(run.steps) > 4 and run.state == "running" for run in client.runs)

    client.until(live, "rows of the growing trial")
    process.join(150)
    assert process.exitcode == 0, client.output()
    assert [client.end(each) for each in follow] == [0, 0], client.output()
    assert len(client.runs) == 2
    for run in client.runs:
        folder = client.folder_of(run)
        steps_are_whole(run, rows(folder))
        assert run.ends == [("finished", 0)]
        assert run.facts["displayName"].startswith("width=16")
        assert not lacks(folder)
    assert time.time()
