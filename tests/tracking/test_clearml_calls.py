"""ClearML's logger alone: trials of one process, ends, agents, faults; nothing is replaced."""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.clearml.reader import PACKAGES, Reader
from tests.clearml.server import Server
from tests.clearml.trials import Environment, at_once, is_whole, pictures
from tests.conftest import in_fork

pytestmark = [
    pytest.mark.slow,
    pytest.mark.project,
    pytest.mark.usefixtures("only_calls_of_the_api"),
    pytest.mark.skipif(not PACKAGES.is_dir(), reason="no ClearML; make .venv-extras"),
]


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
def results(clearml_server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("alone")
    project = clearml_server.store.project("queued")
    content = {"name": "enqueued", "type": "training", "project": project}
    given = clearml_server.store.answer("tasks.create", content)["id"]
    clearml_server.faults.update(dict.fromkeys(FAULTS, 2))
    printed = runs / "printed.txt"
    code = in_fork(printed, all_things, clearml_server.environment(), runs, given)
    assert code == 0, printed.read_text()
    results = json.loads((runs / "results.json").read_text())
    return {**results, "runs": runs, "given": given, "printed": printed.read_text()}


def test_a_server_that_fails_for_a_while_gets_each_value_once(
    clearml_server: Server, clearml_reader: Reader, results: dict[str, Any]
) -> None:
    assert {clearml_server.faults[name] for name in FAULTS} == {0}
    is_whole(clearml_reader.task(results["faulty"]), results["runs"] / "single" / "faulty")
    printed = results["printed"]
    assert printed.count("ClearML: does not take the trial's rows") == printed.count("\n") == 1


def test_two_trials_of_one_process_have_a_task_each(
    clearml_reader: Reader, results: dict[str, Any]
) -> None:
    tasks = [clearml_reader.task(task_id) for task_id in results["two"]]
    assert [task["name"] for task in tasks] == ["seed=1", "seed=2"]
    for number, task in enumerate(tasks, 1):
        is_whole(task, results["runs"] / "single" / f"t{number}")


def test_a_task_ends_as_its_trial_does(clearml_server: Server, results: dict[str, Any]) -> None:
    made = results["states"]
    tasks = {state: clearml_server.store.tasks[task_id] for state, task_id in made.items()}
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
    projects = {clearml_server.store.projects[task["project"]]["name"] for task in tasks.values()}
    assert projects == {"mlmodeldev/digits"}
    stopped = [
        content["task"] for name, content in clearml_server.store.calls if name == "tasks.stopped"
    ]
    assert made["interrupted"] in stopped


def test_a_task_that_an_agent_runs_is_the_trials(
    clearml_server: Server, results: dict[str, Any]
) -> None:
    by_hand, of_sweep = results["agent"]
    assert by_hand == results["given"] != of_sweep
    task = clearml_server.store.tasks[by_hand]
    assert (task["status"], task["name"]) == ("created", "enqueued"), "the agent's affair"
    assert task["hyperparams"]["optimizer"]["lr"]["value"] == "0.002"


def test_pictures_histograms_and_tables_of_a_model_are_shown(
    clearml_server: Server, results: dict[str, Any]
) -> None:
    assert {name for name, _ in pictures(clearml_server, results["shown"])} == {
        "grid/grid",
        "grid-1/grid-1",
    }
    events = clearml_server.store.events[results["shown"]].values()
    plots = {e["variant"]: json.loads(e["plot_str"])["data"][0] for e in events if "plot_str" in e}
    assert sum(plots["head"]["y"]) == 100
    assert plots["samples"]["cells"]["values"] == [["a dog"], ["nan"]]
    last = {e["variant"] for e in events if e["iter"] == 2 and "value" in e}
    assert last == {"other"}, "ClearML has no NaN"


def test_nothing_of_the_process_is_replaced(results: dict[str, Any]) -> None:
    assert (results["changed"], results["threads"]) == ([], ["MainThread", "clearml-rows"])
