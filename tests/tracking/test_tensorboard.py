"""``logger=tensorboard``: the files of the real package, read by its own reader."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest
import torch

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking.loggers import make_loggers
from mlmodeldev.trial.folder import TrialFolder
from tests.conftest import TrialResult, Trials

SMALL = (
    "logger=tensorboard",
    "training.max_epochs=2",
    "training.limit_train_batches=5",
    "training.limit_val_batches=1",
    "training.log_every_n_steps=1",
    "training.checkpoint_every_n_steps=2",
    "training.test=false",
    "processing.batch_size=16",
    "model.hidden_size=16",
    "model.num_layers=1",
    "callbacks.cka.enabled=false",
)


def shown(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a scalar: steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def written(ended: TrialResult, name: str) -> list[tuple[int, float]]:
    """The same of ``metrics.csv``, in TensorBoard's precision."""
    with (ended.folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(name)]
    return [(int(row["step"]), pytest.approx(float(row[name]), rel=1e-6)) for row in rows]


def assert_complete(ended: TrialResult) -> None:
    assert ended.code == 0, ended.output
    assert ended.record["state"] == "done"
    assert [step for step, _ in shown(ended.folder, "train/loss")] == list(range(10))
    assert [step for step, _ in shown(ended.folder, "val/loss")] == [4, 9]
    for name in ("train/loss", "val/loss"):
        assert shown(ended.folder, name) == written(ended, name)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_each_step_is_there_once_also_after_a_resume(trials: Trials, number: int) -> None:
    """Saved after step 4 on SIGTERM; killed, it goes on from step 2 and does steps 2 and 3 anew."""
    stopped = trials.run(*SMALL, signal_at=(number, 4))
    assert stopped.code == (75 if number == signal.SIGTERM else -number), stopped.output
    assert shown(stopped.folder, "train/loss"), "there was something to go on from"
    resumed = trials.run(*SMALL)
    assert resumed.record["attempts"] == 2
    assert_complete(resumed)
    assert len(list((resumed.folder / "tensorboard").glob("events.*"))) == 2, "two processes wrote"


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own class refuses, as where neither package is installed."""
    from lightning_fabric.loggers import tensorboard

    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    settings = compose_settings([f"artefacts.runs_dir={tmp_path}", "logger=tensorboard"])
    with pytest.raises(UsageError, match=r"logger=tensorboard: .*pip install tensorboard"):
        make_loggers(settings, TrialFolder.open(settings))


def test_it_is_a_models_own_logger(tmp_path: Path) -> None:
    """`self.logger.experiment.add_image` of a LightningModule: the chosen tracker comes first."""
    settings = compose_settings([f"artefacts.runs_dir={tmp_path}", "logger=tensorboard"])
    folder = TrialFolder.open(settings)
    first, *others = make_loggers(settings, folder)
    first.experiment.add_image("picture", torch.ones(1, 2, 2), 0)  # type: ignore[attr-defined]
    first.finalize("success")
    assert [type(each).__name__ for each in others] == ["MetricsFile"]
    assert list((folder.path / "tensorboard").glob("events.*"))
