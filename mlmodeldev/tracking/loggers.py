"""Loggers from the `logger` group; each is imported only when it is chosen.

Example::

    make_loggers(settings, folder)      # the trackers asked for, then metrics.csv
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers.logger import DummyExperiment, Logger

from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.address import split_address
from mlmodeldev.fetch.reach import is_reachable
from mlmodeldev.lease import LostLease
from mlmodeldev.secrets import masked, warn_of_open_netrc
from mlmodeldev.tracking.metrics_csv import MetricsFile
from mlmodeldev.tracking.wandb_api import host, key_for
from mlmodeldev.trial.checkpoint import Logged, logged_at

if TYPE_CHECKING:
    from pathlib import Path

    from mlmodeldev.settings.schema import Settings, WandbLogger
    from mlmodeldev.trial.folder import TrialFolder


_SECONDS = 3.0
"""How long the start of a trial waits for a connection to W&B."""


def make_loggers(settings: Settings, folder: TrialFolder, first: bool = True) -> list[Logger]:
    """Return the trial's loggers; the first is what a model has as ``self.logger``.

    That is a tracker where one is chosen, so that ``self.logger.experiment`` takes pictures; the
    last one writes ``metrics.csv``.

    Args:
        settings: the trial's.
        folder: the trial's.
        first: whether this is the process that talks to trackers.

    Raises:
        UsageError: a tracker's package is not installed; online tracking is demanded where there
            is no key or no network, or where the server does not take the run.
    """
    loggers: list[Any] = []
    chosen = settings.logger
    if chosen.tensorboard is not None:
        loggers.append(_tensorboard(folder))
    if chosen.wandb is not None:
        run = _wandb(chosen.wandb, settings, folder) if first else SilentLogger("wandb")
        loggers.append(run)
    if chosen.mlflow is not None:
        loggers.append(_mlflow(settings, folder) if first else SilentLogger("mlflow"))
    if chosen.clearml is not None:
        loggers.append(_clearml(settings, folder) if first else SilentLogger("clearml"))
    rows = MetricsFile(folder.path / "metrics.csv", check_owner=folder.check_owner)
    return [*loggers, rows]


def resume_loggers(loggers: Sequence[Any], step: int, checkpoint: Path | None) -> None:
    """Let loggers go on where a checkpoint was taken.

    The trackers read ``metrics.csv``, so that comes first.

    Args:
        loggers: of the Trainer.
        step: optimizer steps that were trained.
        checkpoint: where the trial goes on from; None: it begins.
    """
    from mlmodeldev.tracking.tensorboard import TensorBoardFiles

    logged = logged_at(checkpoint) if checkpoint else Logged()
    first = step if logged.step is None else logged.step
    before = max(step, first)
    for logger in loggers:
        if isinstance(logger, MetricsFile):
            logger.resume_from(before, logged.rows)
            before = max(before, logger.last_step + 1)  # the file has no other rows any more
    for logger in loggers:
        if isinstance(logger, TensorBoardFiles):
            logger.resume_from(first, logged.validation_due, before)
        elif hasattr(logger, "resume_from") and not isinstance(logger, MetricsFile):
            logger.resume_from(before)


class SilentLogger(Logger):
    """Stands in for a tracker on the processes that do not talk to it: takes all, keeps nothing."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def name(self) -> str:
        """Name of the tracker."""
        return self._name

    @property
    def version(self) -> str:
        """There is none here."""
        return ""

    @property
    def experiment(self) -> Any:
        """Takes any call."""
        return DummyExperiment()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Nothing."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def log_image(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def log_table(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def _tensorboard(folder: TrialFolder) -> Logger:
    try:
        from mlmodeldev.tracking.tensorboard import TensorBoardFiles

        return TensorBoardFiles(folder.path)
    except ModuleNotFoundError:
        raise UsageError(
            "logger=tensorboard: the package is not installed; pip install tensorboard"
        ) from None


def _mlflow(settings: Settings, folder: TrialFolder) -> Logger:
    from mlmodeldev.tracking.mlflow_logger import MlflowTrialLogger

    return MlflowTrialLogger(settings, folder)


def _clearml(settings: Settings, folder: TrialFolder) -> Logger:
    from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger

    return ClearmlTrialLogger(settings, folder)


def _wandb(chosen: WandbLogger, settings: Settings, folder: TrialFolder) -> Logger:
    warn_of_open_netrc()
    from mlmodeldev.tracking.wandb_init import open_run
    from mlmodeldev.tracking.wandb_logger import WandbTrialLogger
    from mlmodeldev.tracking.wandb_stop import STOP_NOTE
    from mlmodeldev.trial import signals

    online = wandb_mode(chosen.mode) == "online"
    run: Any = None
    if online:
        try:
            run = open_run(settings, folder, offline=False)
        except Exception as error:  # whatever the client raises, a trial can train without it
            _forget_client()
            run = _begin_again(settings, folder, error)
            online = run is not None
            if not online:
                _report_refusal(error, chosen.mode)
    if not online:  # `sync` and `bridge` hear from W&B what this trial can't
        signals.set_stop_note(str(folder.path / STOP_NOTE))
        try:
            run = open_run(settings, folder, offline=True)
        except (UsageError, LostLease):  # of the trial's own folder
            raise
        except Exception as error:  # the client does not start: its service, its files
            _forget_client()
            print(
                f"Weights & Biases: gone ({_reason(error)}); training goes on, 'python"
                " slurm/SlurmTrain.py sync' uploads later",
                file=sys.stderr,
            )
            folder.update(**{WandbTrialLogger.uploaded_entry: False})
            return SilentLogger("wandb")
    training = settings.training
    return WandbTrialLogger(run, folder.path / "metrics.csv", training.monitor, training.mode)


def _begin_again(settings: Settings, folder: TrialFolder, refusal: Exception) -> Any:
    """Return a new run of a trial whose former one the server takes no more; None: nor that.

    W&B gives a preempted run up that does not come back within an hour, and a requeue may wait for
    longer. The new run gets all the rows that the trial has.
    """
    from mlmodeldev.tracking.wandb_api import answers
    from mlmodeldev.tracking.wandb_init import open_run
    from mlmodeldev.tracking.wandb_run_id import begin_again

    record = folder.read()
    if not record.get("wandb_path") or not answers():
        return None  # there was none, or it is the server that is away
    put_back = begin_again(folder)
    try:
        run = open_run(settings, folder, offline=False)
    except Exception:
        _forget_client()
        put_back()
        return None
    print(
        f"Weights & Biases: {host()} takes run {record['wandb_id']} no more"
        f" ({_reason(refusal)}); the trial goes on as run {run.id}, with all its rows"
    )
    return run


def _reason(error: Exception) -> str:
    return masked(" ".join(str(error).split()), 300)


def _report_refusal(error: Exception, mode: str) -> None:
    """Say why a run can't be online; that is an error only where it has to be."""
    reason = _reason(error)
    if mode == "online":
        raise UsageError(
            f"logger.wandb.mode=online: {host()} does not take the run: {reason}"
        ) from None
    print(
        f"Weights & Biases: offline, because {host()} does not take the run ({reason});"
        " 'python slurm/SlurmTrain.py sync' uploads later"
    )


def _forget_client() -> None:
    """End the client's service, which takes the refused run for one that is still beginning."""
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()


def wandb_mode(setting: str) -> str:
    """Decide between online and offline, saying why it is offline.

    ``WANDB_MODE`` in the environment decides when the setting is ``auto``.

    Raises:
        UsageError: ``online`` is demanded, and there is no key or no network.
    """
    if setting == "offline":
        return setting
    inherited = os.environ.get("WANDB_MODE")
    if setting == "auto" and inherited in ("offline", "dryrun", "disabled"):
        return "offline"
    missing = _what_is_missing(host())
    if not missing:
        return "online"
    if setting == "online":
        raise UsageError(
            f"logger.wandb.mode=online: {missing}; run 'wandb login', or choose"
            " logger.wandb.mode=offline (upload later by 'python slurm/SlurmTrain.py sync')"
        )
    print(
        f"Weights & Biases: offline, because {missing}; 'python slurm/SlurmTrain.py sync'"
        " uploads later"
    )
    return "offline"


def _what_is_missing(address: str) -> str:
    if not key_for(address):
        return "there is no key (WANDB_API_KEY or .netrc)"
    if is_reachable(address, "WANDB_BASE_URL", _SECONDS):
        return ""
    return f"{split_address(address, 'WANDB_BASE_URL').hostname} can't be reached"
