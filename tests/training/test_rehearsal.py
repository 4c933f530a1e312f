"""The rehearsal: what fails after an epoch otherwise fails before it, once, and leaves no trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor, nn

from tests.conftest import TrialResult, in_fork
from tests.training.plain_classes import Everything
from tests.training.test_plain_resume import COMMON, outcome, run_classes

MONITOR = ["training.monitor=val_loss", "training.mode=min"]


def start(
    folder: Path,
    model: str,
    *overrides: str,
    name: str = "trial",
    kind: str = "Plain",
    **arguments: Any,
) -> TrialResult:
    place = [f"artefacts.runs_dir={folder}", f"artefacts.trial={name}"]
    chosen = {"_target_": f"tests.training.test_rehearsal.{model}"}
    if model == "Counting":
        chosen["steps"] = str(folder / "steps.txt")
    data = {"_target_": f"tests.training.plain_classes.{kind}", **arguments}
    printed = folder / f"{name}.txt"
    code = in_fork(printed, run_classes, chosen, data, [*COMMON, *place, *overrides], None)
    return TrialResult(code, folder / "single" / name, printed.read_text())


class Counting(Everything):
    """Writes down each training step."""

    def __init__(self, steps: str) -> None:
        super().__init__()
        self.steps = steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        with Path(self.steps).open("a") as file:
            file.write("s")
        return super().training_step(batch, batch_idx)


class Unreadable(Everything):
    """Its scheduler keeps an object."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        schedule.mine = nn.ReLU()  # type: ignore[attr-defined]
        return [optimizer], [schedule]


class Objects(Everything):
    """Adds an object to its checkpoint, and wants it back."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = {"activation": nn.ReLU()}
        checkpoint["hparams_type"] = dict

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert isinstance(checkpoint["mine"]["activation"], nn.ReLU)


class Reader(Everything):
    """Reads an entry that the batches do not have."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch["image"], batch_idx)


class Asker(Everything):
    """Reads an attribute that the DataModule does not have."""

    def on_train_start(self) -> None:
        assert self.trainer.datamodule.prompts  # type: ignore[attr-defined]


class Mistaken(Everything):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        raise ValueError("a mistake of mine")


class Restless(Everything):
    """Makes other weights each time."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].bias.data.fill_(time.monotonic())  # type: ignore[union-attr,operator]


class Lossy(Everything):
    def export(self, folder: Path) -> None:
        torch.save({}, folder / "weights.pt")

    @classmethod
    def load(cls, folder: Path, arguments: Any) -> Lossy:
        return cls()


def test_a_monitor_that_is_not_logged(tmp_path: Path) -> None:
    trial = start(tmp_path, "Counting", "training.monitor=val_los")
    assert trial.code == 2
    line = trial.output.strip().splitlines()[-1]
    assert line.startswith("training.monitor=val_los: the model logs no such metric")
    assert "did you mean 'val_loss'?" in line
    assert not (tmp_path / "steps.txt").exists()
    assert not (trial.folder / "metrics.csv").exists()


def test_a_layer_of_cka_that_is_not_there(tmp_path: Path) -> None:
    compare = ("callbacks.cka.enabled=true", "++callbacks.cka.compare={drift: {a: nett.0}}")
    trial = start(tmp_path, "Counting", *MONITOR, *compare)
    assert trial.code == 2, trial.output
    assert "no layer of Counting matches 'nett.0'; did you mean 'net.0'" in trial.output
    assert not (tmp_path / "steps.txt").exists()


def test_what_was_refused_is_corrected_under_its_name(tmp_path: Path) -> None:
    assert start(tmp_path, "Everything", "training.max_epochs=1").code == 2
    assert start(tmp_path, "Everything", *MONITOR, "training.max_epochs=1").code == 0
    other = start(tmp_path, "Everything", "training.monitor=mean_so_far", "training.max_epochs=1")
    assert other.code == 2
    assert "holds a trial with training.monitor=val_loss" in other.output


def test_a_metric_of_training_may_be_the_monitor(tmp_path: Path) -> None:
    trial = start(tmp_path, "Everything", "training.monitor=mean_so_far", "training.mode=min")
    assert trial.code == 0, trial.output
    assert trial.record["metric"]["name"] == "mean_so_far"


@pytest.mark.parametrize(
    ("model", "code", "text"),
    [
        ("Unreadable", 2, "mine (ReLU): can't be read back"),
        ("Mistaken", 1, "ValueError: a mistake of mine"),
        ("Lossy", 2, "export: loaded again"),
    ],
)
def test_what_would_fail_later(model: str, code: int, text: str, tmp_path: Path) -> None:
    trial = start(tmp_path, model, *MONITOR)
    assert (trial.code, text in trial.output) == (code, True), trial.output
    assert not list((trial.folder / "checkpoints").iterdir())
    assert trial.record["state"] == "failed"


@pytest.mark.parametrize(
    ("model", "kind", "text"),
    [
        ("Reader", "Two", "reads 'image', which tests.training.plain_classes.Two does not give"),
        ("Asker", "Plain", "reads 'prompts', which tests.training.plain_classes.Plain does not"),
    ],
)
def test_data_of_another_model(model: str, kind: str, text: str, tmp_path: Path) -> None:
    trial = start(tmp_path, model, *MONITOR, kind=kind)
    assert (trial.code, text in trial.output) == (2, True), trial.output
    assert ("(it gives a, b)" in trial.output) == (model == "Reader")
    assert "Traceback" not in trial.output


def test_data_without_a_batch(tmp_path: Path) -> None:
    trial = start(tmp_path, "Everything", *MONITOR, batch_size=200, drop_last=True)
    assert trial.code == 2, trial.output
    assert "plain_classes.Plain gives no batch (80 examples, batch_size=200" in trial.output


def test_objects_in_a_checkpoint_are_left_out_and_made_anew(tmp_path: Path) -> None:
    first = start(tmp_path, "Objects", *MONITOR, "training.max_epochs=1")
    assert first.code == 0, first.output
    assert "checkpoint: mine.activation (ReLU) can't be read back" in first.output
    more = start(tmp_path, "Objects", *MONITOR, "training.max_epochs=2")
    assert more.code == 0, more.output
    assert more.record["epoch"] == 2


def test_weights_that_are_not_the_seeds(tmp_path: Path) -> None:
    trial = start(tmp_path, "Restless", *MONITOR, "training.max_epochs=1")
    assert "has other weights (net.0.bias)" in trial.output


def test_it_changes_nothing_and_runs_once(tmp_path: Path) -> None:
    without = start(tmp_path, "Counting", *MONITOR, "artefacts.rehearsal=false", name="without")
    steps = len((tmp_path / "steps.txt").read_text())
    first = start(tmp_path, "Counting", *MONITOR, name="first")
    assert len((tmp_path / "steps.txt").read_text()) == 2 * steps + 1
    second = start(tmp_path, "Counting", *MONITOR, "optimizer.lr=0.5", name="second")
    assert second.code == 2, "a rate that the model would not use"
    third = start(tmp_path, "Counting", *MONITOR, "training.seed=1", name="third")
    assert third.code == 0
    assert len((tmp_path / "steps.txt").read_text()) == 3 * steps + 1
    assert outcome(first) == outcome(without)
    assert len(list((tmp_path / "single" / ".rehearsed").iterdir())) == 1


class LogsMore(Callback):
    """Logs what the model does not."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("val_extra", float(trainer.current_epoch))


def test_a_monitor_that_an_added_callback_logs(tmp_path: Path) -> None:
    added = "++callbacks.more={_target_: tests.training.test_rehearsal.LogsMore}"
    trial = start(
        tmp_path, "Everything", "training.monitor=val_extra", "training.max_epochs=1", added
    )
    assert trial.code == 0, trial.output
    assert "your callbacks" in trial.output
    assert trial.record["metric"]["name"] == "val_extra"
