"""Plain Lightning code, killed anywhere: the same weights, rows and metrics as undisturbed."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.trial.checkpoint_values import read_checkpoint
from tests.conftest import ROOT, TrialResult, dying, in_fork

CASES: dict[str, tuple[str, str, list[str]]] = {
    "everything": ("Everything", "Plain", ["training.monitor=val_loss", "training.mode=min"]),
    "validates within the epoch": (
        "Everything",
        "Plain",
        ["training.monitor=val_MulticlassAccuracy", "training.trainer={val_check_interval: 2}"],
    ),
    "validates each second epoch": (
        "Everything",
        "Plain",
        ["training.monitor=val_best", "training.check_val_every_n_epoch=2"],
    ),
    "without a test": ("Untested", "Plain", ["training.monitor=val_loss", "training.mode=min"]),
    "two loaders": ("OfTwo", "Two", ["training.monitor=train_loss", "training.mode=min"]),
    "a loader and a stream": ("OfTwo", "Half", ["training.monitor=val_loss", "training.mode=min"]),
    "stream": ("OfStream", "Stream", []),
    "game": ("Game", "Plain", []),
    "own loaders": ("Alone", "mlmodeldev.data.plain.OfTheModel", []),
    "ragged batches": ("OfSentences", "Sentences", []),
    "no optimizer": ("Counts", "Plain", ["training.monitor=val_mean"]),
}
COMMON = [
    "logger=csv",
    "training.max_epochs=4",
    "training.checkpoint_every_n_steps=1",
    "training.log_every_n_steps=1",
    "callbacks.cka.enabled=false",
]


def run_classes(
    model: dict[str, Any],
    data: dict[str, Any],
    overrides: list[str],
    at: tuple[str, int] | None,
    number: int = signal.SIGKILL,
    callbacks: dict[str, Any] | None = None,
) -> None:
    """Train a model on data, each by ``_target_``; a signal comes in a call of a model's method.

    Callbacks may be added, each by its name and ``_target_``.
    """
    from hydra import compose, initialize_config_dir
    from hydra.utils import get_class
    from omegaconf import OmegaConf

    import trainer
    from mlmodeldev.callbacks import resume
    from mlmodeldev.settings import validate

    torch.set_num_threads(1)
    if at and at[0] == "prune":  # called when a checkpoint has just been written
        resume.prune = dying(resume.prune, number, at[1])
    elif at:
        kind, (method, call) = get_class(model["_target_"]), at
        setattr(kind, method, dying(getattr(kind, method), number, call))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(
            "config", overrides=[f"++{o}" if "trainer=" in o else o for o in overrides]
        )
    container: Any = OmegaConf.to_container(config, resolve=True)
    container |= {"model": model, "data": data}
    container["callbacks"] |= callbacks or {}
    container["overrides"] = {o.partition("=")[0]: o.partition("=")[2] for o in overrides}
    trainer.train(validate(container, ROOT))


Run = Callable[..., TrialResult]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def start(
        case: str,
        name: str,
        *more: str,
        at: tuple[str, int] | None = None,
        number: int = signal.SIGKILL,
        **data: Any,
    ) -> TrialResult:
        model, kind, own = CASES[case]
        place = [f"artefacts.runs_dir={tmp_path}", f"artefacts.trial={name}"]
        classes = "tests.training.plain_classes"
        target = {"_target_": kind if "." in kind else f"{classes}.{kind}", **data}
        printed = tmp_path / f"{name}.txt"
        overrides = [*COMMON, "artefacts.rehearsal=false", *place, *own, *more]
        model = {"_target_": model if "." in model else f"{classes}.{model}"}
        code = in_fork(printed, run_classes, model, target, overrides, at, int(number))
        return TrialResult(code, tmp_path / "single" / name, printed.read_text())

    return start


def outcome(trial: TrialResult) -> dict[str, Any]:
    """Return what must be the same: weights, optimizers, schedulers, rows, the log."""
    last = read_checkpoint(trial.checkpoint)
    kept = {name: last[name] for name in ("state_dict", "optimizer_states", "lr_schedulers")}
    strip = [{k: v for k, v in entry.items() if "time" not in k} for entry in trial.log]
    return {"weights": _text(kept), "rows": trial.rows, "log": strip}


def _text(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {k: _text(v) for k, v in value.items()}
    return [_text(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("case", [case for case in CASES if case != "without a test"])
def test_killed_anywhere_it_ends_the_same(case: str, run: Run) -> None:
    whole = run(case, "whole")
    assert whole.code == 0, whole.output
    expected = outcome(whole)
    for number, call in enumerate((2, 5, 12)):
        name = f"killed-{number}"
        assert run(case, name, at=("training_step", call)).code == -9
        again = run(case, name)
        assert again.code == 0, again.output
        assert outcome(again) == expected, f"killed in step {call}"
        assert (again.folder / "last" / "model.safetensors").is_file()


ENDS = [("on_validation_epoch_end", 1), ("on_train_epoch_end", 2), ("prune", 3), ("prune", 5)]


def test_killed_between_epochs_or_after_a_checkpoint(run: Run) -> None:
    """A checkpoint is there when its rows are: none is lost, none doubled."""
    expected = outcome(run("everything", "whole"))
    for number, at in enumerate(ENDS):
        name = f"killed-{number}"
        assert run("everything", name, at=at).code == -9
        again = run("everything", name)
        assert again.code == 0, again.output
        assert outcome(again) == expected, at


@pytest.mark.parametrize("case", ["everything", "validates within the epoch"])
def test_a_validation_that_comes_again_has_one_row(case: str, run: Run) -> None:
    """A signal where a validation is due; killed after it; back to before the validation."""
    seldom = "training.checkpoint_every_n_steps=100"
    expected = outcome(run(case, "whole", seldom))
    last, end = (5, "on_train_epoch_end") if case == "everything" else (2, "training_step")
    stopped = run(case, "mine", seldom, at=("training_step", last), number=signal.SIGTERM)
    assert stopped.code == EXIT_INTERRUPTED, stopped.output
    for _ in range(2):  # the second time the row is there already
        assert run(case, "mine", seldom, at=(end, 1)).code == -signal.SIGKILL
    again = run(case, "mine", seldom)
    assert again.code == 0, again.output
    assert outcome(again) == expected


def test_two_ranks_compute_their_metrics_together(run: Run) -> None:
    """A metric that gathers, logged in training: no rank may look at it alone."""
    whole = run("everything", "whole", "training.devices=2", "training.accelerator=cpu")
    assert whole.code == 0, whole.output
    again = [*("everything", "killed", "training.devices=2", "training.accelerator=cpu")]
    assert run(*again, at=("training_step", 5)).code == -9
    resumed = run(*again)
    assert resumed.code == 0, resumed.output
    assert outcome(resumed) == outcome(whole)


def test_workers_change_nothing(run: Run) -> None:
    assert outcome(run("everything", "none")) == outcome(run("everything", "two", workers=2))


def test_the_test_is_measured_and_says_nothing_of_the_training_data(run: Run) -> None:
    """A split drawn in setup without a seed is the same split for fit and test."""
    trial = run("everything", "whole")
    assert set(trial.record["test"]) == {"test_acc"}
    assert trial.record["metric"]["name"] == "val_loss"


def test_steps_that_end_within_an_epoch_are_validated(run: Run) -> None:
    trial = run("everything", "short", "training.max_steps=3")
    assert trial.code == 0, trial.output
    assert trial.record["metric"]["value"] is not None
    assert (trial.folder / "best" / "model.safetensors").is_file()
    assert trial.record["step"] == 3
    assert json.loads((trial.folder / "trial.json").read_text())["state"] == "done"


def test_a_model_without_test_step_says_so_before_training_and_is_done(run: Run) -> None:
    trial = run("without a test", "whole", "training.max_epochs=2")
    assert trial.code == 0, trial.output
    assert trial.record["state"] == "done"
    assert "test" not in trial.record
    assert (trial.folder / "last" / "model.safetensors").is_file()
    lines = trial.output.splitlines()
    (warned,) = [i for i, line in enumerate(lines) if "Untested has no test_step" in line]
    assert warned < min(i for i, line in enumerate(lines) if "epoch 1" in line)


def test_what_has_no_part_is_logged_once(run: Run) -> None:
    stream = run("stream", "whole")
    assert stream.output.count("has no order that can be asked for") == 1
    assert "Stream.Numbers" in stream.output
    assert "OfStream has no validation_step" in stream.output
    assert "OfStream has no test_step" in stream.output
    game = run("game", "whole")
    assert "steps its optimizers itself" not in game.output or game.code == 0
