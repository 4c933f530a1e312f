"""`wandb sweep` and agents, the client's and ours, drive trials; nothing is lost or run twice."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.wandb.conftest import Client, steps_are_whole

pytestmark = pytest.mark.slow


def rows_of(folder) -> int:
    return len((folder / "metrics.csv").read_text().splitlines()) - 1


def test_wandbs_own_agents_share_a_grid_and_keep_types(client: Client):
    path = client.sweep(
        {
            "optimizer.lr": {"values": [1.0e-5, 0.003]},
            "training.gradient_clip_val": {"value": None},
            "optimizer.betas": {"value": [0.9, 0.99]},
            "training.test": {"value": False},
            "data.tokenizer": {"value": None},
            "logger.wandb.project": {"value": "a=b, c"},
        }
    )
    agents = [client.start("wandb", "agent", "--count", "1", path) for _ in range(2)]
    assert [client.end(agent) for agent in agents] == [0, 0]
    runs = client.runs
    assert [run.ends for run in runs] == [[("finished", 0)]] * 2, client.output()
    assert {run.settings["optimizer.lr"] for run in runs} == {1e-5, 0.003}
    for run in runs:
        folder = client.folder_of(run)
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        assert settings["optimizer"]["lr"] == run.settings["optimizer.lr"]
        assert settings["training"]["gradient_clip_val"] is None
        assert settings["optimizer"]["betas"] == [0.9, 0.99]
        assert settings["training"]["test"] is False
        assert settings["logger"]["wandb"]["project"] == "a=b, c"
        record = json.loads((folder / "trial.json").read_text())
        assert (record["wandb_id"], record["wandb_sweep"]) == (run.name, run.sweep)
        assert record["uploaded"] is True
        steps_are_whole(run, rows_of(folder))
        assert run.summary["val/accuracy"] == pytest.approx(record["metric"]["value"])
        assert run.fields["groupName"] == run.sweep
        assert run.fields["tags"] == ["DualEncoder", "Digits", "local"]
        assert "lr=" in run.fields["displayName"]
        assert "val/samples" in run.summary
