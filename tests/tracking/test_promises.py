"""What every tracker promises, by one test: rows, settings, pictures, models, ends; and no harm.

A trial is killed, then stopped by a signal, then goes on to its end: once for each choice of
``logger``. Then each tracker breaks in a trial that has all of them.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mlmodeldev.errors import EXIT_INTERRUPTED
from tests.conftest import TrialResult, Trials, in_fork
from tests.tracking.mlflow_reader import PACKAGES
from tests.tracking.trackers.in_trial import PICTURE, prepare
from tests.tracking.trackers.of_clearml import Clearml
from tests.tracking.trackers.of_csv import Csv
from tests.tracking.trackers.of_mlflow import Mlflow
from tests.tracking.trackers.of_tensorboard import Tensorboard
from tests.tracking.trackers.of_wandb import Wandb
from tests.tracking.trackers.shown import Shown, Tracker, csv_series, weights

pytestmark = [pytest.mark.slow, pytest.mark.project]

TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "csv": lambda folder: Csv(),
    "tensorboard": lambda folder: Tensorboard(),
    "wandb": lambda folder: Wandb(),
    "mlflow": lambda folder: Mlflow(folder / "tables"),
    "clearml": lambda folder: Clearml(folder / "cache"),
}
CHOICES = [("tensorboard",), ("wandb",), ("mlflow",), ("clearml",), ("wandb", "mlflow")]
"""Of ``logger``; metrics.csv and the trial's folder are read in each."""
ALL = ("tensorboard", "wandb", "mlflow", "clearml")

SMALL = (
    "model.hidden_size=16",
    "model.num_layers=1",
    "optimizer.lr=0.01",
    "training.max_epochs=2",
    "training.limit_train_batches=6",
    "training.log_every_n_steps=2",
    "training.checkpoint_every_n_steps=4",
    "training.test=false",
    "processing.batch_size=32",
    "callbacks.cka.max_batches=1",
)
KILLED_AT = 11  # the row of step 9 comes again, after the checkpoint of 8


@pytest.fixture(scope="module")
def trackers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Tracker]]:
    if not PACKAGES.is_dir():
        pytest.skip("no MLflow and ClearML; make .venv-extras")
    folder = tmp_path_factory.mktemp("trackers")
    made = {name: make(folder) for name, make in TRACKERS.items()}
    yield made
    for tracker in made.values():
        tracker.close()


class Runner:
    """Runs trials with trackers."""

    def __init__(self, trials: Trials, trackers: dict[str, Tracker]) -> None:
        self.trials, self.trackers = trials, trackers

    def run(
        self,
        *choice: str,
        kill_at: int | None = None,
        stop_at: int | None = None,
        end: str = "done",
        killed: bool = False,
        broken: Tracker | None = None,
    ) -> TrialResult:
        """Run a trial with the trackers of a choice, one of them broken."""
        name = "-".join([*choice, broken.name if broken else "", end])
        entrances = [self.trackers[each].entrance() for each in choice]
        entrances += [broken.breakage(self.trials.runs / "single" / name)] if broken else []
        return self.trials.run(
            *SMALL,
            f"logger=[{','.join(choice)}]",
            name=name,
            kill_at=kill_at,
            signal_at=(signal.SIGTERM, stop_at) if stop_at else None,
            patch=partial(
                prepare, [e for e in entrances if e], kill_at, "killed" if killed else end
            ),
        )


@pytest.fixture(scope="module")
def runner(
    trackers: dict[str, Tracker], tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> Runner:
    trials = Trials(tmp_path_factory.mktemp("promises") / "runs", data_dir)
    for tracker in trackers.values():
        tracker.prepare(trials.runs)
    return Runner(trials, trackers)


@pytest.fixture(scope="module")
def undisturbed(runner: Runner) -> TrialResult:
    """A trial without any tracker, from beginning to end."""
    ended = runner.run("csv")
    assert ended.code == 0, ended.output
    return ended


def is_unharmed(ended: TrialResult, undisturbed: TrialResult) -> None:
    """The trial came to the weights and rows that it has without a tracker."""
    assert ended.code == 0, ended.output
    assert ended.record["state"] == "done"
    assert weights(ended.folder) == weights(undisturbed.folder)
    assert ended.rows == undisturbed.rows


def is_whole(tracker: Tracker, shown: Shown, folder: Path) -> None:
    """The tracker has each row once, the settings, pictures, models, and the end."""
    expected = {tracker.spelled(n): v for n, v in csv_series(folder / "metrics.csv").items()}
    assert shown.metrics.keys() == expected.keys()
    for name, series in expected.items():
        wanted = [*dict(series).items()] if tracker.once else series
        assert [step for step, _ in shown.metrics[name]] == [step for step, _ in wanted], name
        values = [value for _, value in shown.metrics[name]]
        near = pytest.approx([value for _, value in wanted], rel=tracker.precision, abs=0)
        assert values == near, name
    for name, text in (("optimizer.lr", "0.01"), ("training.limit_train_batches", "6")):
        assert shown.settings[name] == text
    pictures = {f"cka/{name}/heatmap": 2 for name in ("towers", "drift")}
    assert shown.pictures == pictures | ({PICTURE: 2} if tracker.name != "csv" else {})
    assert shown.models == {name: weights(folder)[name] for name in tracker.models}
    assert shown.status == tracker.statuses.get("done", "")


@pytest.mark.parametrize("choice", CHOICES, ids="+".join)
def test_a_killed_and_stopped_trial_is_whole_in_the_end(
    choice: tuple[str, ...], runner: Runner, undisturbed: TrialResult
) -> None:
    chosen = [runner.trackers[name] for name in ("csv", *choice)]
    killed = runner.run(*choice, kill_at=KILLED_AT)
    assert killed.code == -signal.SIGKILL, killed.output
    for tracker in chosen:
        steps = [step for step, _ in tracker.read(killed.folder).metrics["train/loss"]]
        assert steps == [1, 3, 5, 7, 9], f"{tracker.name} has a row that comes again"
    stopped = runner.run(*choice, stop_at=3)
    assert stopped.code == EXIT_INTERRUPTED, stopped.output
    for tracker in chosen:
        assert tracker.read(stopped.folder).status == tracker.statuses.get("interrupted", "")
    ended = runner.run(*choice)
    is_unharmed(ended, undisturbed)
    assert ended.record["attempts"] == 3
    for tracker in chosen:
        is_whole(tracker, tracker.read(ended.folder), ended.folder)
        tracker.check_more(ended.folder)


def test_a_validation_that_comes_again_is_shown_once(
    runner: Runner, undisturbed: TrialResult
) -> None:
    """A signal on an epoch's last step; a kill after its validation; the validation again."""
    stopped = runner.run(*ALL, stop_at=6, end="again")
    assert stopped.code == EXIT_INTERRUPTED, stopped.output
    killed = runner.run(*ALL, end="again", killed=True)
    assert killed.code == -signal.SIGKILL, killed.output
    for tracker in runner.trackers.values():
        shown = tracker.read(killed.folder)
        validations = shown.metrics.get("val/accuracy", [])
        assert [step for step, _ in validations] == [5], tracker.name
    ended = runner.run(*ALL, end="again")
    is_unharmed(ended, undisturbed)
    for tracker in runner.trackers.values():
        is_whole(tracker, tracker.read(ended.folder), ended.folder)


@pytest.mark.parametrize("state", ["failed", "pruned"])
def test_a_run_ends_as_its_trial_does(state: str, runner: Runner) -> None:
    ended = runner.run(*ALL, end=state)
    assert ended.record["state"] == state, ended.output
    for tracker in runner.trackers.values():
        shown = tracker.read(ended.folder)
        assert shown.status == tracker.statuses.get(state, ""), tracker.name
        assert [step for step, _ in shown.metrics["train/loss"]] == [1, 3, 5], tracker.name


@pytest.mark.parametrize("name", ALL)
def test_a_tracker_that_breaks_harms_neither_the_trial_nor_the_others(
    name: str, runner: Runner, undisturbed: TrialResult, tmp_path: Path
) -> None:
    broken = runner.trackers[name]
    alone = Runner(Trials(tmp_path / "runs", runner.trials.data), runner.trackers)
    for tracker in runner.trackers.values():
        tracker.prepare(alone.trials.runs)
    ended = alone.run(*ALL, broken=broken)
    is_unharmed(ended, undisturbed)
    assert ended.output.count(broken.away) == 1, ended.output
    for tracker in runner.trackers.values():
        if tracker is not broken:
            is_whole(tracker, tracker.read(ended.folder), ended.folder)
    if broken.catches_up:
        broken.repair(alone.trials.runs)
        printed = tmp_path / "sync.txt"
        entrances = [each for t in runner.trackers.values() if (each := t.entrance())]
        assert in_fork(printed, sync, alone.trials.runs, entrances) == 0, printed.read_text()
        shown = broken.read(ended.folder)
        shown.pictures.pop(PICTURE, None)  # the trial alone could send it
        shown.pictures[PICTURE] = 2
        is_whole(broken, shown, ended.folder)


def sync(runs: Path, entrances: list) -> None:
    for function, arguments in entrances:
        function(*arguments)
    from mlmodeldev.slurm.commands.wandb import run_sync

    args = argparse.Namespace(
        runs_dir=str(runs), overrides=[], sweep=None, follow=False, json=False
    )
    raise SystemExit(run_sync(args))
