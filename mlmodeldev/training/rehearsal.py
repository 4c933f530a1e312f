"""A rehearsal: one batch of each stage on a second model, before the first epoch is paid for.

What is known only after an epoch otherwise is known in seconds: a ``training.monitor`` that nothing
logs, a mistake in ``validation_step``, a layer that CKA can't measure, a checkpoint that can't be
read back. It runs once for each state of code, data and shape of the settings, noted in the sweep's
folder; later trials, retries and resumes pass it over.

Example::

    rehearse(model, data, settings, world, folder)
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import json
import logging
import pickle
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger

from mlmodeldev.atomic import write_json
from mlmodeldev.callbacks.logged_names import not_logged, own_names
from mlmodeldev.callbacks.metric_states import MetricStates
from mlmodeldev.callbacks.seed_steps import SeedSteps
from mlmodeldev.data.randomness import global_states, restore_globals
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.conf_files import choices_of
from mlmodeldev.training import build
from mlmodeldev.training.model_kind import suit
from mlmodeldev.training.trainer import make_trainer
from mlmodeldev.trial.checkpoint_values import (
    LEFT_OUT,
    harmless_classes,
    unreadable,
    without_code,
)

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.training.ranks import World

log = logging.getLogger(__name__)

NOTES = ".rehearsed"
"""Folder of a sweep in which each state that was rehearsed has a file."""

_ONE_BATCH = {
    "max_epochs": 1,
    "max_steps": -1,
    "limit_train_batches": 1,
    "limit_val_batches": 1,
    "check_val_every_n_epoch": 1,
    "overfit_batches": 0,
    "log_every_n_steps": 1,
    "profiler": None,
    "compile": False,
}


def note_of(settings: Settings, code: Any, inputs: Any, sweep: Path) -> Path:
    """Return the file that says of this state that it has been rehearsed.

    Args:
        settings: their shape counts: names, types, and values that are no numbers.
        code: of the trial, as its record has it.
        inputs: digests of the data, as its record has them.
        sweep: folder of the sweep.
    """
    groups = ("model", "data", "training", "callbacks", "optimizer", "logger")
    dumped = settings.model_dump()
    shape = {group: _shape(dumped[group]) for group in groups}
    text = json.dumps([shape, code, inputs, torch.__version__], sort_keys=True, default=str)
    return sweep / NOTES / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shape(inner) for inner in value]
    return type(value).__name__ if isinstance(value, int | float) else value


def rehearse(
    model: LightningModule,
    data: LightningDataModule,
    settings: Settings,
    world: World,
    note: Path,
    make_more: Callable[[Path], list[Callback]] = lambda folder: [],
    export: Callable[[LightningModule, Any, Path], None] | None = None,
) -> None:
    """Run one batch of training and of each validation loader on a second model like this one.

    Args:
        model: left alone: its class is made again, under the same seed.
        note: see `note_of`; nothing is done where it exists.
        make_more: returns the callbacks to try besides, which write below the folder that it is
            given: alignment, and what an export wants to see.
        export: writes an export of a model, with the data's facts, into a folder.

    Raises:
        UsageError: what would have failed after an epoch, and how to mend it.
        Exception: whatever the user's code raises.
    """
    if world.on_rank_zero(note.is_file):
        return
    begun, random_numbers = time.monotonic(), global_states()
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as temporary:
        folder = Path(temporary)
        watch = _Watch(settings, type(model))
        callbacks = [SeedSteps(settings.training.seed), MetricStates(), *make_more(folder), watch]
        changed: dict[str, Any] = {**_ONE_BATCH, "trainer": {}}
        if settings.training.limit_val_batches == 0:
            changed["limit_val_batches"] = 0
        short = settings.model_copy(
            update={"training": settings.training.model_copy(update=changed)}
        )
        trainer = make_trainer(short, world, [DummyLogger()], callbacks, folder)
        trainer.num_sanity_val_steps = 1
        actor = build.model(settings, data)
        _same_again(model, actor)
        suit(trainer, actor, short)
        try:
            trainer.fit(actor, datamodule=data)
        except (KeyError, AttributeError) as error:
            watch.check_fit(error, data)
            raise
        finally:
            restore_globals(random_numbers)
        watch.check_steps(trainer, data)
        watch.check_monitors(trainer)
        if export is not None and trainer.is_global_zero:
            export(actor, data, folder / "export")
            _check_loads(actor, folder / "export")
    if world.is_rank_zero:
        note.parent.mkdir(exist_ok=True)
        write_json(note, {"seconds": round(time.monotonic() - begun, 3)})


def _same_again(model: LightningModule, again: LightningModule) -> None:
    """Warn where the constructor, under the same seed, has made other weights."""
    first, second = model.state_dict(), again.state_dict()
    other = [name for name in first if not torch.equal(first[name], second.get(name, first[name]))]
    if other or first.keys() != second.keys():
        log.warning(
            "model: made a second time, %s.%s has other weights (%s): what it draws does not come"
            " from the trial's seed, so this trial can't be repeated",
            type(model).__module__,
            type(model).__qualname__,
            (other or sorted(first.keys() ^ second.keys()))[0],
        )


def _check_loads(model: LightningModule, folder: Path) -> None:
    """Load an export and compare it with the model that was exported.

    Raises:
        UsageError: it can't be loaded, or another model comes back.
    """
    from mlmodeldev.training.load import load

    states = global_states()
    try:
        loaded: Any = load(folder).state_dict()
    finally:
        restore_globals(states)
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor) and not _equal(value, loaded.get(name, value)):
            raise UsageError(
                f"export: loaded again, {name} of {type(model).__qualname__} has other values;"
                " its export and load methods don't match (callbacks.export.enabled=false trains"
                " without best/ and last/)"
            )


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors are the same, with NaN equal to NaN: a bad loss is another's subject."""
    first, second = first.cpu(), second.cpu()
    if first.shape != second.shape:
        return False
    return bool(((first == second) | ((first != first) & (second != second))).all())  # noqa: PLR0124


class _Watch(Callback):
    """Looks at what is logged, and whether a checkpoint can be read back.

    Args:
        settings: of the trial.
        kind: class of the model.
    """

    def __init__(self, settings: Settings, kind: type[LightningModule]) -> None:
        self.settings, self.kind, self._steps = settings, kind, 0
        self._batch: Any = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            return
        logged = _names_logged(trainer)
        for name, text in self._monitors():
            may_be_missing = not logged and "training.monitor" not in self.settings.overrides
            if name not in logged and not may_be_missing and not self._may_come(name):
                raise UsageError(text(logged))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero or trainer.world_size > 1:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            check_readable(checkpoint)

    def check_steps(self, trainer: Trainer, data: LightningDataModule) -> None:
        """Refuse data that give no batch to train on: a trial of no step would be done at once.

        Raises:
            UsageError: naming the class of the data.
        """
        if self._steps or self.kind.training_step is LightningModule.training_step:
            return
        kind = type(data)
        loader: Any = trainer.train_dataloader
        sizes = [f"{n}={getattr(loader, n, None)}" for n in ("batch_size", "drop_last")]
        with contextlib.suppress(TypeError, AttributeError):
            sizes.insert(0, f"{len(loader.dataset)} examples")
        raise UsageError(
            f"data: the training loader of {kind.__module__}.{kind.__qualname__} gives no batch"
            f" ({', '.join(sizes)})"
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._steps, self._batch = self._steps + 1, batch

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batch = batch

    def check_fit(self, error: KeyError | AttributeError, data: LightningDataModule) -> None:
        """Say in one line that the model reads what the batch, or the DataModule, does not have.

        Raises:
            UsageError: that is what the error was.
        """
        settings, given = self.settings, ""
        if isinstance(error, AttributeError):
            missing: Any = error.name if error.obj is data else None
        else:
            missing = error.args[0] if error.args else None
            if not isinstance(self._batch, Mapping) or missing in self._batch:
                return
            given = f" (it gives {', '.join(map(str, self._batch))})"
        if not isinstance(missing, str) or "_target_" not in settings.data:
            return
        raise UsageError(
            f"model._target_={settings.model['_target_']}: reads {missing!r}, which"
            f" {settings.data['_target_']} does not give{given}; choose other data, or another"
            f" model (model={', '.join(choices_of('model'))})"
        ) from error

    def check_monitors(self, trainer: Trainer) -> None:
        """Refuse metrics that neither validation nor training have logged.

        Raises:
            UsageError: naming the setting and what is logged.
        """
        batches: Any = trainer.fit_loop.epoch_loop.val_loop.max_batches or [0]
        validates = trainer.enable_validation and sum(batches) > 0
        for name, text in self._monitors():
            metrics = trainer.callback_metrics
            chosen = "training.monitor" in self.settings.overrides
            if name in metrics or not (chosen or (validates and own_names(metrics))):
                continue
            if not self.settings.callbacks.added:
                raise UsageError(text(metrics))
            log.warning(
                "%s; unless one of your callbacks does: they are not rehearsed", text(metrics)
            )

    def _monitors(self) -> list[tuple[str, Callable[[Any], str]]]:
        monitor, pruning = self.settings.training.monitor, self.settings.callbacks.pruning
        names = [(monitor, lambda logged: not_logged(monitor, logged))]
        if pruning.enabled:
            key = "callbacks.pruning.metric"
            names.append((pruning.metric, lambda logged: not_logged(pruning.metric, logged, key)))
        return names

    def _may_come(self, name: str) -> bool:
        """Whether training, CKA or an added callback may log what validation has not."""
        if "train" in name.lower() or name.startswith("cka/") or self.settings.callbacks.added:
            return True
        sources = (kind for kind in self.kind.__mro__ if issubclass(kind, LightningModule))
        literals = (f'"{name}"', f"'{name}'")
        return any(
            literal in _source(kind)
            for kind in sources
            if kind is not LightningModule
            for literal in literals
        )


def _names_logged(trainer: Trainer) -> set[str]:
    """Return the names under which the validation at hand has logged, of all its loaders.

    While Lightning checks its sanity, it has the metrics of the last loader only.
    """
    results: Any = trainer._results
    names = set(trainer.callback_metrics)
    for result in results.result_metrics:
        if result.meta.on_epoch:
            names |= set(results._forked_name(result, on_step=False))
    return names


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def check_readable(checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint that could not be read back safely; log what it leaves out.

    Raises:
        UsageError: naming the entry and its type.
    """
    kept = without_code(checkpoint)
    for name in kept.get(LEFT_OUT, ()):
        log.warning(
            "checkpoint: %s can't be read back without running code from the file; %s is left out,"
            " and made anew by the model's on_save_checkpoint when a trial resumes",
            unreadable(checkpoint[name], name),
            name,
        )
    problem = unreadable(kept)
    if problem is None:
        small = {k: v for k, v in kept.items() if k not in ("state_dict", "optimizer_states")}
        file = io.BytesIO()
        torch.save(small, file)
        file.seek(0)
        try:
            with harmless_classes():
                torch.load(file, weights_only=True)
        except pickle.UnpicklingError as error:
            problem = str(error).strip().splitlines()[0]
    if problem is not None:
        raise UsageError(
            f"checkpoint: {problem}: can't be read back without running code from the file; keep"
            " plain values there (numbers, text, lists, dicts, tensors)"
        )
