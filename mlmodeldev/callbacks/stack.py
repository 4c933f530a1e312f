"""The callbacks of a trial, from the settings, in the order in which they act.

Example::

    Trainer(callbacks=make_callbacks(settings, folder, model), ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import ProgressBar

from mlmodeldev.callbacks.beats import Beats
from mlmodeldev.callbacks.epoch_log import EpochLog
from mlmodeldev.callbacks.example_inputs import ExampleInputs
from mlmodeldev.callbacks.export import Export
from mlmodeldev.callbacks.loader_epochs import LoaderEpochs
from mlmodeldev.callbacks.metric_states import MetricStates
from mlmodeldev.callbacks.nonfinite import NonFinite
from mlmodeldev.callbacks.progress import ProgressReport
from mlmodeldev.callbacks.resume import ResumeCheckpoint
from mlmodeldev.callbacks.samples import Samples
from mlmodeldev.callbacks.seed_steps import SeedSteps
from mlmodeldev.callbacks.throughput import Throughput
from mlmodeldev.callbacks.training_states import TrainingStates
from mlmodeldev.callbacks.write_first import WriteFirst
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.instantiation import instantiate
from mlmodeldev.settings.lightning_names import accept_both_names
from mlmodeldev.settings.targets import check_kind

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

_CALLBACK = "a Lightning Callback"


def make_callbacks(
    settings: Settings,
    folder: TrialFolder,
    model: LightningModule,
    model_arguments: Mapping[str, Any],
) -> list[Callback]:
    """Return what every trial has, what the `callbacks` group turns on, and what it adds.

    `EpochLog` comes before `ResumeCheckpoint`: a checkpoint then never lacks its epoch's entry.

    Raises:
        UsageError: an added callback can't be made, or would save its state over another's.
    """
    training, chosen = settings.training, settings.callbacks
    added = {name: _added(name, one) for name, one in chosen.added.items()}
    numbers = NonFinite(training.nonfinite, folder.path / "checkpoints")
    recovery = ResumeCheckpoint(
        folder,
        training.monitor,
        training.mode,
        training.checkpoint_every_n_steps,
        required="training.monitor" in settings.overrides,
        numbers=numbers,
    )
    stack: list[Callback] = [
        Beats(),
        WriteFirst(recovery),
        SeedSteps(training.seed),
        TrainingStates(),
        LoaderEpochs(),
        MetricStates(),
        numbers,
        EpochLog(folder.path / "log.json"),
        recovery,
    ]
    if training.log_every_n_steps and chosen.throughput.enabled:
        stack.append(Throughput(settings.processing.batch_size))
    if chosen.progress.enabled and not any(isinstance(c, ProgressBar) for c in added.values()):
        stack.append(ProgressReport(chosen.progress.every_seconds, training.monitor))
    if chosen.samples.enabled:
        stack.append(Samples(folder.path / "samples.csv", chosen.samples.count))
    if chosen.export.enabled:
        inputs = ExampleInputs() if chosen.export.onnx else None
        stack.append(Export(folder.path, recovery, _state(settings, model_arguments), inputs))
        stack.extend([inputs] if inputs else [])
    if chosen.cka.enabled:
        stack.extend(make_cka(settings, folder.path, model))
    if chosen.pruning.enabled:
        stack.append(_pruning(settings, folder))
    if training.patience is not None:
        stack.append(_early_stopping(settings))
    for callback in stack:
        _drop_idle_hooks(callback)
    _check_states(stack, added)
    return [*stack, *added.values()]


def _added(name: str, chosen: Mapping[str, Any]) -> Callback:
    """Make a callback of the user's; its hooks are left alone."""
    target = chosen["_target_"]
    accept_both_names()
    check_kind(f"callbacks.{name}", target, (Callback,), _CALLBACK)
    made = instantiate(f"callbacks.{name}", chosen)
    if not isinstance(made, Callback):  # a function that does not do what it says, `_partial_`
        raise UsageError(f"callbacks.{name}._target_={target}: must be {_CALLBACK}")
    return made


def _check_states(stack: list[Callback], added: Mapping[str, Callback]) -> None:
    """Refuse callbacks of one class whose states would be one entry of the checkpoint."""
    keys = {callback.state_key: "one that is there already" for callback in stack}
    for name, callback in added.items():
        if callback.state_key in keys:
            raise UsageError(
                f"callbacks.{name}: has the same state_key ({callback.state_key}) as"
                f" {keys[callback.state_key]}, and a checkpoint keeps one state of it: give each a"
                " state_key of its own"
            )
        keys[callback.state_key] = f"callbacks.{name}"


_EACH_BATCH = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def _drop_idle_hooks(callback: Callback) -> None:
    """Spare Lightning the hooks of each batch in which this callback does nothing.

    Entering an empty hook costs microseconds, and there are fifty a batch: 0.3 ms for nothing.
    Lightning passes over a hook that can't be called.
    """
    for name in _EACH_BATCH:
        if getattr(type(callback), name) is getattr(Callback, name):
            setattr(callback, name, None)


def make_cka(settings: Settings, folder: Path, model: LightningModule) -> list[Callback]:
    """Return the alignment callback, unless neither settings nor model say what to compare."""
    chosen = settings.callbacks.cka
    compare = {name: one.model_dump() for name, one in chosen.compare.items()}
    compare = compare or getattr(model, "ALIGNMENT", {})
    if not compare:
        return []
    from mlmodeldev.alignment.callback import CKACallback

    return [
        CKACallback(
            compare,
            folder,
            every_n_epochs=chosen.every_n_epochs,
            max_batches=chosen.max_batches,
            estimator=chosen.estimator,
            kernel=chosen.kernel,
            weighting=chosen.weighting,
            pooling=chosen.pooling,
            permutations=chosen.permutations,
            seed=settings.training.seed,
            rbf_sigma=chosen.rbf_sigma,
            also=chosen.also,
            neighbours=chosen.neighbours,
            batch_dim=chosen.batch_dim,
            feature_correction=chosen.feature_correction,
        )
    ]


def _pruning(settings: Settings, folder: TrialFolder) -> Callback:
    from mlmodeldev.callbacks.pruning import Pruning

    return Pruning(folder.path, settings.callbacks.pruning)


def _early_stopping(settings: Settings) -> Callback:
    from pytorch_lightning.callbacks import EarlyStopping

    training = settings.training
    assert training.patience is not None
    return EarlyStopping(
        training.monitor, patience=training.patience, mode=training.mode, check_finite=False
    )


def _state(settings: Settings, model_arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seed": settings.training.seed,
        "model_arguments": dict(model_arguments),
        "settings": settings.model_dump(),
    }
