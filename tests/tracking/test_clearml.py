"""Trials in ClearML: one task each, every value once, whatever happens to trial or server.

A stand-in on this machine is the server; ClearML's own library reads back what is there.
``make test`` makes the folder that it lies in.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.clearml.reader import PACKAGES, Reader, use_clearml
from tests.clearml.server import Server
from tests.clearml.trials import Environment, at_once, is_whole, pictures
from tests.conftest import TrialResult, Trials, in_fork

pytestmark = [
    pytest.mark.slow,
    pytest.mark.project,
    pytest.mark.usefixtures("only_calls_of_the_api"),
    pytest.mark.skipif(not PACKAGES.is_dir(), reason="no ClearML; make .venv-extras"),
]

SMALL = (
    "logger=clearml",
    "model.hidden_size=16",
    "model.num_layers=1",
    "optimizer.lr=0.01",
    "training.max_epochs=2",
    "training.log_every_n_steps=5",
    "processing.batch_size=128",
    "callbacks.cka.max_batches=1",
)
STEPS = 9  # of an epoch


def slowly(environment: Environment) -> None:
    """In a trial's process: rows are sent when they come, and steps wait until they are."""
    at_once(environment)
    from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger as Tracker

    log = Tracker.log_metrics

    def log_and_wait(self, *args, **named):
        log(self, *args, **named)
        self._background.drain(60)

    Tracker.log_metrics = log_and_wait


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def attempts(
    clearml_server: Server, clearml_reader: Reader, shared_trials: Trials
) -> tuple[TrialResult, dict[str, Any], TrialResult]:
    """A trial that was killed in its second epoch, its task then, and the trial when it ended."""
    environment = clearml_server.environment()
    killed = shared_trials.run(
        *SMALL, kill_at=2 * STEPS - 1, patch=partial(slowly, environment), name="clearml"
    )
    assert killed.code == -signal.SIGKILL, killed.output
    before = clearml_reader.task(killed.record["clearml_task"])
    ended = shared_trials.run(*SMALL, patch=partial(at_once, environment), name="clearml")
    assert ended.code == 0, ended.output
    return killed, before, ended


def test_a_killed_trial_goes_on_in_its_task(
    clearml_server: Server, clearml_reader: Reader, attempts: Any
) -> None:
    _, before, ended = attempts
    steps = [step for step, _ in before["metrics"]["train/loss"]]
    assert before["status"] == "in_progress"
    assert max(steps) > STEPS, "the server has rows of steps that are trained again"

    assert "ClearML" not in ended.output
    task = clearml_reader.task(ended.record["clearml_task"])
    assert (task["id"], task["status"], task["tags"]) == (before["id"], "completed", [])
    assert len(clearml_server.store.tasks) == 1
    assert ended.record["clearml_uploaded"] is True
    is_whole(task, ended.folder)
    best = ended.record["metric"]
    assert task["single"] == {f"best/{best['name']}": best["value"]}
    params = task["params"]
    assert (params["optimizer/lr"], params["model/hidden_size"]) == ("0.01", "16")
    assert params["trial/sha"] == task["script"]["version_num"] == ended.record["sha"]
    assert not any(name.startswith(("logger", "artefacts")) for name in params)
    assert "hidden_size: 16" in task["config"]
    entry = task["script"]["entry_point"]
    assert entry.startswith("-m trainer") and task["script"]["diff"] == ""


def test_pictures_are_sent_once_whoever_was_killed(clearml_server: Server, attempts: Any) -> None:
    _, _, ended = attempts
    files = {path: path.read_bytes() for path in ended.folder.glob("cka/*/epoch-*.png")}
    sent = pictures(clearml_server, ended.record["clearml_task"])
    assert sorted(sent.values()) == sorted(files.values())
    assert {name for name, _ in sent} == {f"cka/{path.parent.name}/heatmap" for path in files}
    assert {step for _, step in sent} == {STEPS - 1, 2 * STEPS - 1}, "as the validation's rows"


def test_best_is_the_tasks_model_and_a_childs_input(
    clearml_server: Server, clearml_reader: Reader, attempts: Any, shared_trials: Trials
) -> None:
    _, _, parent = attempts
    task = clearml_reader.task(parent.record["clearml_task"])
    (model,) = task["outputs"]
    about = model["about"]
    assert (about["commit"], about["trial"]) == (parent.record["sha"], "single/clearml")
    assert about["data"] == task["params"]["trial/data.digest"]
    fetched = clearml_reader.model(model["id"])
    assert contents(fetched) == contents(parent.folder / "best")

    child = shared_trials.run(
        *(*SMALL, "training.init_from=single/clearml", "callbacks.cka.enabled=false"),
        patch=partial(at_once, clearml_server.environment()),
        name="clearml-child",
    )
    assert child.code == 0, child.output
    (given,) = clearml_reader.task(child.record["clearml_task"])["inputs"]
    assert given["id"] == model["id"]


def as_rank(environment: Environment, rank: int, port: int) -> None:
    """In a trial's process: one of two that torchrun has started."""
    at_once(environment)
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "MASTER_PORT": port}
    size = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in {**place, **size}.items()})
    os.environ["TORCHELASTIC_RUN_ID"] = "two"


def test_two_ranks_have_one_task(
    clearml_server: Server, clearml_reader: Reader, trials: Trials
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = {*clearml_server.store.tasks}
    small = (
        *[s for s in SMALL if "cka" not in s],
        "callbacks=none",
        "training.max_epochs=1",
        "training.test=false",
    )

    def run(rank: int) -> TrialResult:
        return trials.run(*small, patch=partial(as_rank, clearml_server.environment(), rank, port))

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(run, (0, 1))
    assert (first.code, second.code) == (0, 0), first.output
    (task_id,) = {*clearml_server.store.tasks} - before
    assert task_id == first.record["clearml_task"]
    is_whole(clearml_reader.task(task_id), first.folder)


# --- the server is away, or there is none


def away(environment: Environment) -> None:
    """In a trial's process: the server's address is one where nobody answers."""
    at_once({**environment, "CLEARML_API_HOST": "http://127.0.0.1:9"})


def without_keys() -> None:
    at_once({})


def sync(runs: Path, environment: Environment) -> None:
    use_clearml(environment)
    from mlmodeldev.slurm.commands.wandb import run_sync

    args = argparse.Namespace(
        runs_dir=str(runs), overrides=[], sweep=None, follow=False, json=False
    )
    raise SystemExit(run_sync(args))


def test_without_a_server_a_session_is_left_and_all_is_sent_later(
    clearml_server: Server, clearml_reader: Reader, trials: Trials, tmp_path: Path
) -> None:
    environment = clearml_server.environment()
    lonely = trials.run(*SMALL, patch=partial(away, environment), name="lonely")
    apart = trials.run(*SMALL, patch=without_keys, name="apart")
    for ended in (lonely, apart):
        assert ended.code == 0, ended.output
        assert (ended.record["state"], ended.record["clearml_uploaded"]) == ("done", False)
    assert lonely.output.count("ClearML: does not take the trial's rows") == 1
    assert apart.output.count("ClearML: offline, because there are no keys of a server") == 1

    session = apart.folder / "clearml-offline.zip"
    task = clearml_reader.task(clearml_reader.import_session(session))
    is_whole(task, apart.folder)
    assert (task["status"], task["params"]["optimizer/lr"]) == ("completed", "0.01")
    assert (task["project"], task["outputs"][0]["url"]) == (
        "mlmodeldev",
        (apart.folder / "best").as_uri(),
    )
    files = sorted(path.read_bytes() for path in apart.folder.glob("cka/*/epoch-*.png"))
    assert sorted(pictures(clearml_server, task["id"]).values()) == files

    printed = tmp_path / "sync.txt"
    assert in_fork(printed, sync, trials.runs, environment) == 0, printed.read_text()
    for ended in (lonely, apart):
        task = clearml_reader.task(ended.record["clearml_task"])
        is_whole(task, ended.folder)
        assert (task["status"], len(task["outputs"])) == ("completed", 1)
        assert task["params"]["trial/sha"] == ended.record["sha"]
        assert len(pictures(clearml_server, task["id"])) == 4
        assert ended.record["clearml_uploaded"] is True
    assert not session.exists(), "imported, it were a second task of the trial"
