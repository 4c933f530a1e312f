"""``SlurmTrain.py sync`` with the real client: every row once, whatever happens."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.slurm.submission import Submission
from tests.conftest import ROOT
from tests.wandb.offline import OfflineTrial
from tests.wandb.server import Server
from tests.wandb.store import Run


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()
    assert server.store.unknown == []


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    kept["WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL"] = "0.3"  # seconds; the client's own is 15
    return {**kept, **server.environment(), "NETRC": str(tmp_path / "netrc")}


class Command:
    """Runs the command line."""

    def __init__(self, runs: Path, environment: dict[str, str]) -> None:
        self.runs, self.environment = runs, environment

    def start(self, *words: str, **changes: str) -> subprocess.Popen[str]:
        line = [sys.executable, "slurm/SlurmTrain.py", "sync", "--runs-dir", str(self.runs), *words]
        return subprocess.Popen(
            line, cwd=ROOT, env={**self.environment, **changes}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str, **changes: str) -> tuple[int, str, str]:
        process = self.start(*words, **changes)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def sync(runs: Path, environment: dict[str, str]) -> Command:
    return Command(runs, environment)


def run_of(server: Server, trial: OfflineTrial) -> Run:
    return next(run for run in server.store.runs.values() if run.name == trial.run)


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


def test_a_trial_without_network_ends_up_as_it_would_have_online(trials, server, environment):
    ended = trials.run(
        "logger.wandb.mode=offline", "logger.wandb.project=sealed", "model.hidden_size=16",
        "model.num_layers=1", "training.max_epochs=2", "training.log_every_n_steps=5",
        "optimizer.lr=0.01", "callbacks.cka.max_batches=2", name="real",
    )  # fmt: skip
    assert ended.code == 0, ended.output
    code, output, errors = Command(trials.runs, environment).run()
    assert code == 0, output + errors
    run = next(run for run in server.store.runs.values() if run.path.startswith("loopback/sealed/"))
    with (ended.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert run.steps == list(range(len(rows)))
    for name in ("train/loss", "val/accuracy"):
        assert run.values(name) == [float(row[name]) for row in rows if row[name]]
    assert run.state == "finished"
    assert run.fields["groupName"] == "single"
    assert run.settings["optimizer"]["lr"] == 0.01
    assert run.summary["val/accuracy"] == ended.record["metric"]["value"]
    assert run.summary["val/samples"]["_type"] == "table-file"
    # charts over time show when a row was written, not when it was uploaded
    assert [row["_timestamp"] for row in run.history] == [float(r["time/logged"]) for r in rows]
    assert "time/logged" not in run.history[0]
    (digest,) = ended.record["data"]["inputs"].values()
    assert list(run.settings["trial"]["data"]["inputs"].values()) == [digest[:16]]
    assert run.fields["commit"] == ended.record["sha"]
    models = [a for a in server.store.artifacts.values() if a.run == run.name and a.kind == "model"]
    aliases = {alias for model in models for alias in model.aliases}
    assert aliases == {"best", "last", "latest"}
    pictures = [name for name in run.files if "heatmap" in name]
    assert len(pictures) == len(list(ended.folder.glob("cka/*/epoch-*.png"))) > 0
    assert ended.record["uploaded"] is True
    # the client's own copy is not to be uploaded beside ours
    copies = list(ended.folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert copies
    assert all(copy.with_name(copy.name + ".synced").exists() for copy in copies)
    before = len(server.store.requests_of("UpsertBucket"))
    code, output, _ = Command(trials.runs, environment).run()
    assert code == 0
    assert "0 rows sent" in output
    assert len(server.store.requests_of("UpsertBucket")) == before
    # `wandb sync` takes a run that ended by itself as well, once: docs/sealed-nodes.md
    copied = shutil.copytree(copies[0].parent, trials.runs.parent / copies[0].parent.name)
    (copied / (copies[0].name + ".synced")).unlink()
    client = Path(sys.executable).with_name("wandb")
    subprocess.run(
        [client, "sync", "--project", "by-the-client", "--id", "byclient1", copied],
        env=environment, capture_output=True, timeout=100, check=True,
    )  # fmt: skip
    other = server.store.runs["loopback/by-the-client/byclient1"]
    assert other.steps == run.steps
    assert other.values("val/accuracy") == run.values("val/accuracy")
    assert other.settings["optimizer"]["lr"] == 0.01


def test_while_it_grows_and_after_it_resumes(sync, runs, server):
    trial = OfflineTrial(runs, "grows")
    trial.log(0, 7)
    trial.tear()
    assert sync.run()[0] == 0
    run = run_of(server, trial)
    trial.check(run)
    assert (run.state, run.ends) == ("running", [])
    trial.end("interrupted")
    for _ in range(2):  # the second finds nothing to do
        assert sync.run()[0] == 0
    assert (run.state, run.ends) == ("preempted", [("preempted", 75)])
    trial.begin()
    trial.cut(5)  # the checkpoint was two rows back
    code, output, _ = sync.run()
    assert (code, "0 new" in output) == (0, True)
    assert run.state == "running"
    trial.log(5, 12)
    code, output, _ = sync.run()
    assert "5 new" in output
    trial.check(run)
    trial.log(12, 15)
    trial.end("done")
    code, output, _ = sync.run("--json")
    listed = json.loads(output)["trials"]
    assert [(t["rows"], t["sent"], t["up"], t["state"]) for t in listed] == [(15, 3, True, "done")]
    trial.check(run)
    assert run.ends == [("preempted", 75), ("finished", 0)]
    assert run.summary["val/accuracy"] == OfflineTrial.accuracy(9)


def test_killed_and_two_at_once(sync, runs, server):
    trials = [OfflineTrial(runs, name, sweep="killed") for name in ("one", "two", "three")]
    for trial in trials:
        trial.log(0, 20)
    first = sync.start("--follow")
    until(lambda: all(any(r.name == t.run for r in server.store.runs.values()) for t in trials))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    for trial in trials:
        trial.log(20, 30)
    both = [sync.start("--follow", "--linger", "0") for _ in range(2)]
    time.sleep(3)  # they find the trials running
    for trial, state in zip(trials, ("done", "failed", "pruned"), strict=True):
        trial.log(30, 33)
        trial.end(state)
    for process in both:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    for trial in trials:
        trial.check(run_of(server, trial))
    ends = {trial.path.name: run_of(server, trial).ends for trial in trials}
    assert ends == {
        "one": [("finished", 0)],
        "two": [("failed", 1)],
        "three": [("finished", 0)],
    }


QUEUE = """#!/bin/sh
[ "$(basename $0)" = squeue ] && touch {queried} && cat {waiting} 2>/dev/null
exit 0
"""


def test_following_goes_on_while_jobs_are_in_the_queue(sync, runs, server, tmp_path):
    """A job may wait for days before its trial has a folder."""
    first = OfflineTrial(runs, "first", sweep="queued")
    first.log(0, 3)
    first.end("done")
    Submission.new(runs / "queued", tmp_path).add("4711", [["first"], ["second"]])
    queried, waiting = tmp_path / "asked", tmp_path / "waiting"
    waiting.write_text("4711_1|PENDING|Priority|1:00|\n")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("squeue", "sbatch", "scontrol"):
        (commands / name).write_text(QUEUE.format(queried=queried, waiting=waiting))
        (commands / name).chmod(0o755)
    path = f"{commands}:{os.environ['PATH']}"
    process = sync.start("--follow", "--linger", "0", PATH=path)
    until(queried.exists)
    assert process.poll() is None
    second = OfflineTrial(runs, "second", sweep="queued")
    second.log(0, 4)
    second.end("done")
    waiting.unlink()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    for trial in (first, second):
        trial.check(run_of(server, trial))


def test_a_server_that_is_away_and_back(sync, runs, server):
    trial = OfflineTrial(runs, "away")
    trial.log(0, 5)
    trial.end("done")
    server.faults.fail(503, count=1)
    code, _, errors = sync.run()
    assert code == 1
    assert "status 503; nothing is uploaded, try again later" in errors
    server.faults.fail(500, count=2, matching="file_stream")
    code, output, errors = sync.run()
    assert code == 0, output + errors
    trial.check(run_of(server, trial))


def test_a_trial_of_a_sweep_keeps_its_link_and_its_place(sync, runs, server):
    trial = OfflineTrial(runs, "point", "optimizer.lr=0.003", sweep="ab12cd34")
    trial.log(0, 3)
    trial.end("done", wandb_sweep="ab12cd34", wandb_entity="loopback", wandb_project="of-the-sweep")
    assert sync.run("--sweep", "ab12cd34")[0] == 0
    run = run_of(server, trial)
    assert "lr=0.003" in run.fields["displayName"].split()
    assert (run.path, run.sweep) == ("loopback/of-the-sweep/point-run", "ab12cd34")


def test_trials_of_others_are_left_alone(sync, runs, server):
    online = OfflineTrial(runs, "online")
    online.log(0, 3)
    online.folder.update(wandb_path="loopback/x/online-run")  # sends its rows itself
    OfflineTrial(runs, "csv", "logger=csv").log(0, 3)
    code, output, _ = sync.run()
    assert (code, output) == (0, "0 trials, 0 up to date, 0 rows sent\n")
    online.end("failed")  # killed by a lost server: now it is ours
    code, output, _ = sync.run()
    assert "1 trials, 1 up to date, 3 rows sent" in output
    online.check(run_of(server, online))


def test_bad_input(sync, runs):
    (runs / "digits").mkdir()
    code, _, errors = sync.run("--sweep", "digit")
    assert code == 2
    assert "did you mean 'digits'?" in errors
    code, _, errors = sync.run(WANDB_API_KEY="")
    assert code == 2
    assert "there is no key (run 'wandb login'" in errors
