"""The server gone, slow or failing: training is unharmed, and later all is there, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
        client.sh(*SYNC, "--runs-dir", str(client.runs_dir))
    assert run.ends == [("finished", 0)]
    steps_are_whole(run, rows(folder))
    assert run.summary["val/accuracy"] == pytest.approx(record["metric"]["value"])
    assert client.runs == [run]


def test_a_server_that_goes_and_comes_back_has_every_row_once(client: Client):
    """It is silent while rows are logged, and is there again before the trial ends."""
    folder = client.runs_dir / "single" / "outage"
    project = f"logger.wandb.project={client.project}"
    process = client.trial("artefacts.trial=outage", "training.max_epochs=12", project)
    client.until(lambda: client.runs and len(client.runs[0].steps) > 3, "rows in W&B")
    client.server.faults.silent = True
    before, refused = rows(folder), len(client.server.faults.refused)
    client.until(lambda: rows(folder) > before + 5, "training that goes on")
    client.until(lambda: len(client.server.faults.refused) > refused, "a request in vain")
    client.server.faults.clear()
    process.join(200)
    assert process.exitcode == 0, client.output()
    (run,) = client.runs
    assert run.ends == [("finished", 0)], client.output()
    steps_are_whole(run, rows(folder))
    assert json.loads((folder / "trial.json").read_text())["uploaded"] is True


def test_errors_and_slowness_are_ridden_out(client: Client):
    client.server.faults.fail(503, 2)
    client.server.faults.slow(0.1)
    assert trial(client, "slow") == 0, client.output()
    (run,) = client.runs
    assert run.ends == [("finished", 0)]
    steps_are_whole(run, rows(client.runs_dir / "single" / "slow"))
