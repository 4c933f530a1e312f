"""What a user sees in W&B of one trial, and what `wandb.Api` reads of it."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.trial.worker import launch
from tests.conftest import ROOT, TrialResult, in_fork
from tests.tracking.registry_calls import command_results
from tests.wandb.changed import CHANGES
from tests.wandb.server import KEY, Server
from tests.wandb.store import Artifact, Run

pytestmark = pytest.mark.slow

JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_NODELIST": "n[1-2]"}


@dataclass
class Shown:
    server: Server
    run: Run
    trial: TrialResult
    begun: float

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.trial.folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    @property
    def models(self) -> list[Artifact]:
        artifacts = [a for a in self.server.store.artifacts.values() if a.run == self.run.name]
        return [artifact for artifact in artifacts if artifact.kind == "model"]


@pytest.fixture(scope="module")
def shown(server: Server, tmp_path_factory: Any, data_dir: Path) -> Iterator[Shown]:
    folder, before, begun = tmp_path_factory.mktemp("shown"), len(server.store.unknown), time.time()
    given = {**server.environment(), **JOB, "WANDB_MODE": "online"}
    overrides = (
        f"artefacts.runs_dir={folder / 'runs'}", f"artefacts.data_dir={data_dir}",
        "logger.wandb.project=shown", "model.hidden_size=16", "model.num_layers=1",
        "optimizer.lr=0.01",
        "training.max_epochs=3", "training.log_every_n_steps=5", "callbacks.cka.max_batches=2",
        "training.monitor=val/loss", "training.mode=max",  # so that the best is the first
    )  # fmt: skip
    process = launch("tests.wandb.changed", overrides, folder / "log.txt", given)
    process.join(200)
    assert process.exitcode == 0, (folder / "log.txt").read_text()
    (path,) = (folder / "runs" / "single").glob("[!.]*")
    run = next(run for run in server.store.runs.values() if run.path.startswith("loopback/shown/"))
    yield Shown(server, run, TrialResult(0, path), begun)
    assert server.store.unknown[before:] == []


def test_name_group_and_tags_say_which_trial_it_is(shown: Shown):
    fields = shown.run.fields
    assert "lr=0.01" in fields["displayName"].split()
    assert (fields["groupName"], fields["jobType"]) == ("single", "trial")
    assert fields["tags"] == ["DualEncoder", "Digits", "local"]


def test_the_config_has_all_settings_and_where_the_trial_comes_from(shown: Shown):
    config, record = shown.run.settings, shown.trial.record
    assert config["optimizer"]["lr"] == 0.01
    assert config["model"]["hidden_size"] == 16
    assert config["training"]["monitor"] == "val/loss"
    sha = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert config["trial"]["sha"] == shown.run.fields["commit"] == sha
    assert config["trial"]["identity"] == shown.trial.folder.name
    assert config["trial"]["point"] == shown.trial.folder.name  # it sets no seed of its own
    assert config["slurm"] == {
        "job_id": "4711", "job_partition": "gpu", "job_nodelist": "n[1-2]",
    }  # fmt: skip
    (digest,) = record["data"]["inputs"].values()
    assert list(config["trial"]["data"]["inputs"].values()) == [digest[:16]]
    assert len(config["trial"]["data"]["digest"]) == 16


def test_the_changes_of_the_code_are_a_file_of_the_run(shown: Shown):
    assert shown.run.files["changes.diff"].decode() == CHANGES
    assert (shown.trial.folder / "changes.diff").read_text() == CHANGES


def test_rows_pictures_and_throughput(shown: Shown):
    run, rows = shown.run, shown.rows
    assert run.steps == list(range(len(rows)))
    for name in ("train/loss", "val/accuracy", "val/loss"):
        assert run.values(name) == [float(row[name]) for row in rows if row[name]]
    assert [row["trainer/global_step"] for row in run.history] == [int(row["step"]) for row in rows]
    assert all(speed > 0 for speed in run.values("time/samples_per_second"))
    assert run.values("time/samples_per_second")
    # one key for all epochs of a comparison: W&B shows a slider
    pictured = {name for row in run.history for name in row if "heatmap" in name}
    assert pictured == {"cka/towers/heatmap", "cka/drift/heatmap"}
    pictures = [row for row in run.history if "cka/towers/heatmap" in row]
    assert [row["epoch"] for row in pictures] == [0, 1, 2]
    for epoch, row in enumerate(pictures, 1):
        (name,) = row["cka/towers/heatmap"]["filenames"]
        drawn = shown.trial.folder / "cka" / "towers" / f"epoch-{epoch:04}.png"
        assert run.files[name] == drawn.read_bytes()
    assert all(shown.begun < row["_timestamp"] < time.time() for row in run.history)


def test_the_summary_has_the_best_value_and_not_the_last(shown: Shown):
    values = shown.run.values("val/loss")
    assert max(values) == values[0] > values[-1]
    assert shown.run.summary["val/loss"] == values[0]
    assert shown.run.summary["state"] == "done"
    assert shown.run.ends == [("finished", 0)]


def test_the_samples_are_a_table(shown: Shown):
    entry = shown.run.summary["val/samples"]
    table = json.loads(shown.run.files[entry["path"]])
    with (shown.trial.folder / "samples.csv").open() as file:
        columns, *written = csv.reader(file)
    assert table["columns"] == columns
    assert [str(row[0]) for row in table["data"]] == [row[0] for row in written]


def test_the_models_are_artifacts_under_their_aliases(shown: Shown):
    named = {alias: model for model in shown.models for alias in model.aliases}
    assert set(named) == {"best", "last", "latest"}
    assert {model.collection for model in shown.models} == {f"model-{shown.run.name}"}
    for alias in ("best", "last"):
        key = f"artifact/{named[alias].id}/model.safetensors"
        weights = (shown.trial.folder / alias / "model.safetensors").read_bytes()
        assert shown.server.store.blobs[key] == weights
    assert named["best"] is not named["last"]


def test_the_public_api_reads_it_all(shown: Shown, monkeypatch, tmp_path: Path):
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", shown.server.url)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    api = wandb.Api(api_key=KEY, overrides={"entity": "loopback"})
    (run,) = api.runs("loopback/shown")
    assert (run.id, run.state, run.group) == (shown.run.name, "finished", "single")
    assert run.config["optimizer"]["lr"] == 0.01
    assert run.summary["val/loss"] == shown.run.summary["val/loss"]
    losses = [row["train/loss"] for row in run.scan_history(keys=["train/loss"])]
    assert losses == [float(row["train/loss"]) for row in shown.rows if row["train/loss"]]
    assert run.history(keys=["val/loss"], pandas=False)[0]["val/loss"] == losses_of(shown)[0]
    files = {file.name: file for file in run.files()}
    assert {"changes.diff", "config.yaml", "wandb-summary.json"} <= set(files)
    with files["changes.diff"].download(root=str(tmp_path)) as file:
        assert file.read() == CHANGES
    models = {alias: model for model in run.logged_artifacts() for alias in model.aliases
              if model.type == "model"}  # fmt: skip
    assert {"best", "last"} <= set(models)
    got = Path(models["best"].download(root=str(tmp_path / "best"))) / "model.safetensors"
    assert got.read_bytes() == (shown.trial.folder / "best" / "model.safetensors").read_bytes()


def test_the_runs_own_artifact_is_registered(shown: Shown, tmp_path: Path):
    given = {**shown.server.environment(), "WANDB_MODE": "online", "WANDB_DIR": str(tmp_path)}
    runs, before = shown.trial.folder.parents[1], len(shown.server.store.artifacts)
    answers = tmp_path / "answers.json"
    line = ["register", "shown", str(shown.trial.folder), "--registry", "wandb:loopback/shown"]
    lines = [[*line, "--json"], [*line, "--json"]]
    code = in_fork(tmp_path / "printed.txt", command_results, given, runs, lines, answers)
    assert code == 0, (tmp_path / "printed.txt").read_text()
    first, again = (json.loads(out) for code, out, _ in json.loads(answers.read_text()))
    assert (first["new"], again["new"], again["number"]) == (True, False, first["number"])
    (link,) = shown.server.store.links["loopback/shown/shown"]
    best = next(model for model in shown.models if "best" in model.aliases)
    assert link.artifact is best
    assert len(shown.server.store.artifacts) == before
    assert first["tags"]["wandb_run"] == shown.run.path


def losses_of(shown: Shown) -> list[float]:
    return [float(row["val/loss"]) for row in shown.rows if row["val/loss"]]
