"""``logger=tensorboard``: the files of the real package, read by its own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking.loggers import make_loggers
from mlmodeldev.tracking.tensorboard import TensorBoardFiles
from mlmodeldev.trial.folder import TrialFolder


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


def test_a_disk_that_fills_up_is_one_line_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    logger = TensorBoardFiles(tmp_path)
    logger.resume_from(0)
    monkeypatch.setattr(logger.experiment, "add_scalar", fail)
    for step in range(3):
        logger.log_metrics({"train/loss": 1.0}, step)
        logger.log_image("mine", [torch.rand(3, 4, 5)])
    logger.finalize("success")
    logger.experiment.add_image("mine", 1)  # of a model, which need not ask
    errors = capsys.readouterr().err
    assert errors.count("TensorBoard: gone (OSError: [Errno 28]") == errors.count("\n") == 1


def test_a_trial_that_began_without_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss\n0,1,0.5\n0,2,0.25\n0,3,9.0\n")
    logger = TensorBoardFiles(tmp_path)
    logger.resume_from(3)
    logger.log_metrics({"val/loss": 0.125}, 3)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("val/loss")]
    assert shown == [(1, 0.5), (2, 0.25), (3, 0.125)]
