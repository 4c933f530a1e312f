"""Trials in ClearML: one task each, every value once, whatever happens to trial or server.

A stand-in on this machine is the server; ClearML's own library reads back what is there.
``make test`` makes the folder that it lies in.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.clearml.reader import PACKAGES, Reader, use_clearml
from tests.clearml.server import Server
from tests.conftest import TrialResult, Trials, in_fork

pytestmark = [
    pytest.mark.slow,
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
Environment = dict[str, str]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def reader(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    reader = Reader(server.environment(), tmp_path_factory.mktemp("cache"))
    yield reader
    reader.close()


@pytest.fixture(autouse=True)
def only_calls_of_the_api(server: Server, reader: Reader) -> Iterator[None]:
    """Fail a test that made a call which is not known here, or not in the API's schema."""
    before = len(server.store.calls)
    yield
    assert server.store.unknown == []
    assert reader.misfits(server.store.calls[before:]) == []


def at_once(environment: Environment) -> None:
    """In a trial's process: the client's, and rows are sent when they come."""
    use_clearml(environment)
    from mlmodeldev.tracking import clearml_logger

    clearml_logger.GATHER_SECONDS = 0.0
    clearml_logger.SIGN_SECONDS = 20.0  # a busy machine is not a server that is away


def slowly(environment: Environment) -> None:
    """In a trial's process: rows are sent when they come, and steps wait until they are."""
    at_once(environment)
    from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger as Tracker

    log = Tracker.log_metrics

    def log_and_wait(self, *args, **named):
        log(self, *args, **named)
        self._background.drain(60)

    Tracker.log_metrics = log_and_wait


def is_whole(task: dict[str, Any], folder: Path) -> None:
    """ClearML has the numbers of metrics.csv: each once, in the order of the steps.

    What a step took was measured anew where it was trained again.
    """
    expected: dict[str, dict[int, float]] = defaultdict(dict)
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text and name not in ("step", "time/logged"):
                    expected[name].setdefault(int(row["step"]), float(text))
    assert task["metrics"].keys() == expected.keys()
    for name, values in expected.items():
        got = sorted(tuple(pair) for pair in task["metrics"][name])
        assert [step for step, _ in got] == list(values), name
        if not name.startswith("time/"):
            assert [value for _, value in got] == list(values.values()), name


def pictures(server: Server, task_id: str) -> dict[tuple[str, int], bytes]:
    """Return a task's pictures by chart and step, as they lie in the store of files."""
    return {
        (f"{event['metric']}/{event['variant']}", event["iter"]): server.store.files[
            event["url"].removeprefix(f"{server.files_url}/").replace("%3D", "=")
        ]
        for event in server.store.events[task_id].values()
        if event["type"] == "training_debug_image"
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def attempts(
    server: Server, reader: Reader, shared_trials: Trials
) -> tuple[TrialResult, dict[str, Any], TrialResult]:
    """A trial that was killed in its second epoch, its task then, and the trial when it ended."""
    environment = server.environment()
    killed = shared_trials.run(
        *SMALL, kill_at=2 * STEPS - 1, patch=partial(slowly, environment), name="clearml"
    )
    assert killed.code == -signal.SIGKILL, killed.output
    before = reader.task(killed.record["clearml_task"])
    ended = shared_trials.run(*SMALL, patch=partial(at_once, environment), name="clearml")
    assert ended.code == 0, ended.output
    return killed, before, ended


def test_a_killed_trial_goes_on_in_its_task(server: Server, reader: Reader, attempts: Any) -> None:
    _, before, ended = attempts
    steps = [step for step, _ in before["metrics"]["train/loss"]]
    assert before["status"] == "in_progress"
    assert max(steps) > STEPS, "the server has rows of steps that are trained again"

    assert "ClearML" not in ended.output
    task = reader.task(ended.record["clearml_task"])
    assert (task["id"], task["status"], task["tags"]) == (before["id"], "completed", [])
    assert len(server.store.tasks) == 1
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


def test_pictures_are_sent_once_whoever_was_killed(server: Server, attempts: Any) -> None:
    _, _, ended = attempts
    files = {path: path.read_bytes() for path in ended.folder.glob("cka/*/epoch-*.png")}
    sent = pictures(server, ended.record["clearml_task"])
    assert sorted(sent.values()) == sorted(files.values())
    assert {name for name, _ in sent} == {f"cka/{path.parent.name}/heatmap" for path in files}
    assert {step for _, step in sent} == {STEPS - 1, 2 * STEPS - 1}, "as the validation's rows"


def test_best_is_the_tasks_model_and_a_childs_input(
    server: Server, reader: Reader, attempts: Any, shared_trials: Trials
) -> None:
    _, _, parent = attempts
    task = reader.task(parent.record["clearml_task"])
    (model,) = task["outputs"]
    about = model["about"]
    assert (about["commit"], about["trial"]) == (parent.record["sha"], "single/clearml")
    assert about["data"] == task["params"]["trial/data.digest"]
    fetched = reader.model(model["id"])
    assert contents(fetched) == contents(parent.folder / "best")

    child = shared_trials.run(
        *(*SMALL, "training.init_from=single/clearml", "callbacks.cka.enabled=false"),
        patch=partial(at_once, server.environment()),
        name="clearml-child",
    )
    assert child.code == 0, child.output
    (given,) = reader.task(child.record["clearml_task"])["inputs"]
    assert given["id"] == model["id"]


def as_rank(environment: Environment, rank: int, port: int) -> None:
    """In a trial's process: one of two that torchrun has started."""
    at_once(environment)
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "MASTER_PORT": port}
    size = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in {**place, **size}.items()})
    os.environ["TORCHELASTIC_RUN_ID"] = "two"


def test_two_ranks_have_one_task(server: Server, reader: Reader, trials: Trials) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = {*server.store.tasks}
    small = (
        *[s for s in SMALL if "cka" not in s],
        "callbacks=none",
        "training.max_epochs=1",
        "training.test=false",
    )

    def run(rank: int) -> TrialResult:
        return trials.run(*small, patch=partial(as_rank, server.environment(), rank, port))

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(run, (0, 1))
    assert (first.code, second.code) == (0, 0), first.output
    (task_id,) = {*server.store.tasks} - before
    assert task_id == first.record["clearml_task"]
    is_whole(reader.task(task_id), first.folder)


# --- the server is away, or there is none


def away(environment: Environment) -> None:
    """In a trial's process: the server's address is one where nobody answers."""
    at_once({**environment, "CLEARML_API_HOST": "http://127.0.0.1:9"})


def without_keys() -> None:
    at_once({})


def sync(runs: Path, environment: Environment) -> None:
    use_clearml(environment)
    from mlmodeldev.slurm.commands.wandb import run_sync

    args = argparse.Namespace(runs_dir=str(runs), sweep=None, follow=False, json=False)
    raise SystemExit(run_sync(args))


def test_without_a_server_a_session_is_left_and_all_is_sent_later(
    server: Server, reader: Reader, trials: Trials, tmp_path: Path
) -> None:
    environment = server.environment()
    lonely = trials.run(*SMALL, patch=partial(away, environment), name="lonely")
    apart = trials.run(*SMALL, patch=without_keys, name="apart")
    for ended in (lonely, apart):
        assert ended.code == 0, ended.output
        assert (ended.record["state"], ended.record["clearml_uploaded"]) == ("done", False)
    assert lonely.output.count("ClearML: does not take the trial's rows") == 1
    assert apart.output.count("ClearML: offline, because there are no keys of a server") == 1

    session = apart.folder / "clearml-offline.zip"
    task = reader.task(reader.import_session(session))
    is_whole(task, apart.folder)
    assert (task["status"], task["params"]["optimizer/lr"]) == ("completed", "0.01")
    assert (task["project"], task["outputs"][0]["url"]) == (
        "mlmodeldev",
        (apart.folder / "best").as_uri(),
    )
    files = sorted(path.read_bytes() for path in apart.folder.glob("cka/*/epoch-*.png"))
    assert sorted(pictures(server, task["id"]).values()) == files

    printed = tmp_path / "sync.txt"
    assert in_fork(printed, sync, trials.runs, environment) == 0, printed.read_text()
    for ended in (lonely, apart):
        task = reader.task(ended.record["clearml_task"])
        is_whole(task, ended.folder)
        assert (task["status"], len(task["outputs"])) == ("completed", 1)
        assert task["params"]["trial/sha"] == ended.record["sha"]
        assert len(pictures(server, task["id"])) == 4
        assert ended.record["clearml_uploaded"] is True
    assert not session.exists(), "imported, it were a second task of the trial"


# --- loggers alone, all in one process


class Pretended:
    """Logs rows to a tracker and to metrics.csv, as training does."""

    def __init__(self, runs: Path, name: str, *overrides: str) -> None:
        from mlmodeldev.settings.composition import compose_settings
        from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger
        from mlmodeldev.tracking.metrics_csv import MetricsFile
        from mlmodeldev.trial.folder import TrialFolder

        where = (f"artefacts.runs_dir={runs}", f"artefacts.trial={name}")
        settings = compose_settings(["logger=clearml", *where, *overrides])
        self.folder = TrialFolder.open(settings)
        self.tracker = ClearmlTrialLogger(settings, self.folder)
        self.file = MetricsFile(self.folder.path / "metrics.csv")
        self.tracker.resume_from(0)

    def log(self, steps: range, wait: bool = False) -> None:
        for step in steps:
            for logger in (self.tracker, self.file):
                logger.log_metrics({"train/loss": 1 / (1 + step), "epoch": 0.0}, step)
            if wait:
                self.tracker._background.drain(10)

    def end(self, state: str = "done") -> str:
        assert self.tracker.end(state)
        return str(self.tracker.version)


def through_faults(runs: Path) -> str:
    trial = Pretended(runs, "faulty")
    trial.log(range(12), wait=True)
    return trial.end()


def two_at_once(runs: Path) -> list[str]:
    trials = [Pretended(runs, f"t{seed}", f"training.seed={seed}") for seed in (1, 2)]
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda trial: trial.log(range(30)), trials))
    return [trial.end() for trial in trials]


def in_every_state(runs: Path) -> dict[str, str]:
    made = {}
    for state in ("done", "pruned", "failed", "interrupted"):
        trial = Pretended(runs, state, "artefacts.sweep=digits")
        trial.log(range(3))
        made[state] = trial.end(state)
    again = Pretended(runs, "interrupted", "artefacts.sweep=digits")
    again.tracker._background.drain(10)
    return {**made, "again": again.tracker.version}


def of_an_agent(runs: Path, given: str) -> list[str]:
    os.environ["CLEARML_TASK_ID"] = given
    trials = [Pretended(runs, "a"), Pretended(runs, "b", "artefacts.sweep=digits")]
    ended = [trial.end() for trial in trials]
    del os.environ["CLEARML_TASK_ID"]
    return ended


def shown_things(runs: Path) -> str:
    import numpy as np
    from matplotlib.figure import Figure

    trial = Pretended(runs, "shown")
    trial.log(range(2))
    trial.tracker.log_image("grid", [np.zeros((4, 4, 3), np.uint8), Figure(figsize=(1, 1))])
    trial.tracker.log_histogram("weights/head", np.arange(100.0))
    trial.tracker.log_table("val/samples", ["text", "score"], [["a dog", float("nan")]])
    trial.tracker.log_metrics({"train/loss": float("nan"), "train/other": 1.0}, 2)
    return trial.end()


def functions_of_the_process() -> dict[str, Any]:
    import argparse as of_parser
    import builtins

    import matplotlib.figure
    import torch

    return {
        "argparse": dict(vars(of_parser.ArgumentParser)),
        "fork": os.fork,
        "save": torch.save,
        "load": torch.load,
        "savefig": matplotlib.figure.Figure.savefig,
        "import": builtins.__import__,
        "excepthook": sys.excepthook,
        "outputs": (sys.stdout, sys.stderr),
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
    }


def all_things(environment: Environment, runs: Path, given: str) -> None:
    import threading

    before = functions_of_the_process()
    at_once(environment)
    from mlmodeldev.tracking import clearml_logger

    clearml_logger.RETRY_SECONDS = 0.0
    results: dict[str, Any] = {"faulty": through_faults(runs)}
    results["two"] = two_at_once(runs)
    results["states"] = in_every_state(runs)
    results["agent"] = of_an_agent(runs, given)
    results["shown"] = shown_things(runs)
    results["threads"] = sorted({thread.name for thread in threading.enumerate()})
    after = functions_of_the_process()
    results["changed"] = [name for name in before if before[name] != after[name]]
    (runs / "results.json").write_text(json.dumps(results))


FAULTS = ("tasks.create", "tasks.started", "events.add_batch")


@pytest.fixture(scope="module")
def results(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("alone")
    project = server.store.project("queued")
    content = {"name": "enqueued", "type": "training", "project": project}
    given = server.store.answer("tasks.create", content)["id"]
    server.faults.update(dict.fromkeys(FAULTS, 2))
    printed = runs / "printed.txt"
    code = in_fork(printed, all_things, server.environment(), runs, given)
    assert code == 0, printed.read_text()
    results = json.loads((runs / "results.json").read_text())
    return {**results, "runs": runs, "given": given, "printed": printed.read_text()}


def test_a_server_that_fails_for_a_while_gets_each_value_once(
    server: Server, reader: Reader, results: dict[str, Any]
) -> None:
    assert {server.faults[name] for name in FAULTS} == {0}
    is_whole(reader.task(results["faulty"]), results["runs"] / "single" / "faulty")
    printed = results["printed"]
    assert printed.count("ClearML: does not take the trial's rows") == printed.count("\n") == 1


def test_two_trials_of_one_process_have_a_task_each(
    reader: Reader, results: dict[str, Any]
) -> None:
    tasks = [reader.task(task_id) for task_id in results["two"]]
    assert [task["name"] for task in tasks] == ["seed=1", "seed=2"]
    for number, task in enumerate(tasks, 1):
        is_whole(task, results["runs"] / "single" / f"t{number}")


def test_a_task_ends_as_its_trial_does(server: Server, results: dict[str, Any]) -> None:
    made = results["states"]
    tasks = {state: server.store.tasks[task_id] for state, task_id in made.items()}
    assert made["again"] == made["interrupted"]
    assert {name: task["status"] for name, task in tasks.items()} == {
        "done": "completed",
        "pruned": "completed",
        "failed": "failed",
        "interrupted": "in_progress",
        "again": "in_progress",
    }
    assert tasks["done"]["tags"] == tasks["again"]["tags"] == ["digits"]
    assert tasks["pruned"]["tags"] == ["digits", "pruned"]
    projects = {server.store.projects[task["project"]]["name"] for task in tasks.values()}
    assert projects == {"mlmodeldev/digits"}
    stopped = [content["task"] for name, content in server.store.calls if name == "tasks.stopped"]
    assert made["interrupted"] in stopped


def test_a_task_that_an_agent_runs_is_the_trials(server: Server, results: dict[str, Any]) -> None:
    by_hand, of_sweep = results["agent"]
    assert by_hand == results["given"] != of_sweep
    task = server.store.tasks[by_hand]
    assert (task["status"], task["name"]) == ("created", "enqueued"), "the agent's affair"
    assert task["hyperparams"]["optimizer"]["lr"]["value"] == "0.002"


def test_pictures_histograms_and_tables_of_a_model_are_shown(
    server: Server, results: dict[str, Any]
) -> None:
    assert {name for name, _ in pictures(server, results["shown"])} == {
        "grid/grid",
        "grid-1/grid-1",
    }
    events = server.store.events[results["shown"]].values()
    plots = {e["variant"]: json.loads(e["plot_str"])["data"][0] for e in events if "plot_str" in e}
    assert sum(plots["head"]["y"]) == 100
    assert plots["samples"]["cells"]["values"] == [["a dog"], ["nan"]]
    last = {e["variant"] for e in events if e["iter"] == 2 and "value" in e}
    assert last == {"other"}, "ClearML has no NaN"


def test_nothing_of_the_process_is_replaced(results: dict[str, Any]) -> None:
    assert (results["changed"], results["threads"]) == ([], ["MainThread", "clearml-rows"])
