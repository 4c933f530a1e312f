"""CKA in validation, for any LightningModule.

    CKACallback(
        {"towers": {"a": "image.layers.*", "b": "text.encoder.layer.*"},
         "drift": {"a": "image.layers.*", "against": "start"}},
        directory=Path("runs/sweep/trial"),
        every_n_epochs=1, max_batches=8,
    )

Layers are read by forward hooks during the model's own `validation_step`: the live model runs no
extra forward. Other models (`others`) run on the same batches. Nothing the run computes changes:
not weights, modes, `requires_grad`, or random numbers. The first validation loader is measured, its
first `max_batches` batches, which should be in random order; the sanity check is not. Compiled
modules run those batches uncompiled, the one thing that may move their last digit. Where devices
share a batch, its features are brought together (`of_ranks`): any number of devices measures what
one does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from mlmodeldev.alignment import history, of_ranks, results
from mlmodeldev.alignment.capture import Capture, check_poolings, match_layers
from mlmodeldev.alignment.comparison import Comparison, read_comparisons
from mlmodeldev.alignment.hsic import Gram
from mlmodeldev.alignment.of_ranks import Part
from mlmodeldev.alignment.present import PresentCKA, size_of_batch
from mlmodeldev.alignment.reference_models import ReferenceModels
from mlmodeldev.alignment.replay import Moment
from mlmodeldev.errors import UsageError

__all__ = ["CKACallback", "Comparison"]

_MOST_GROUPS = 256
"""Intervals come from so many groups of batches at most: more take memory and change little."""


class CKACallback(Callback):
    """Measure, write and log CKA matrices in validation.

    Args:
        compare: comparisons by name, see `Comparison`.
        directory: the trial's folder; files go to its ``cka/`` (see `results.write_files`).
        every_n_epochs: measure when (epoch + 1) is a multiple; default 1.
        max_batches: validation batches to use, default 8.

    Estimator, kernel, weighting, rbf_sigma, also, neighbours, permutations, seed and
    feature_correction are those of `metric.CKA`; pooling and batch_dim those of `capture.Capture`,
    default ``"mean"`` and 0, where names are patterns.

    Any module will do: copies of it run its own `validation_step` (see `replay`), and layers
    whose output is no feature are left out by name (see `present`).

    Scalars: `results.scalars`, and ``cka/mean_diagonal`` for the first comparison that has one.
    The start of training is kept in ``cka/start.safetensors``, so that a resumed run measures
    drift from the same weights; the weights for ``previous`` travel in the checkpoint.

    Raises `UsageError` for unknown settings, and in `on_fit_start` for patterns without a layer.
    """

    def __init__(
        self,
        compare: Mapping[str, Comparison | Mapping[str, Any]],
        directory: Path | str,
        every_n_epochs: int = 1,
        max_batches: int = 8,
        *,
        estimator: str = "unbiased",
        kernel: str = "linear",
        weighting: str = "pairs",
        pooling: str | Mapping[str, str] = "mean",
        permutations: int = 0,
        seed: int = 0,
        rbf_sigma: float | None = None,
        also: Sequence[str] = (),
        neighbours: int = 10,
        batch_dim: int | Mapping[str, int] = 0,
        feature_correction: bool = False,
    ) -> None:
        for key, value in (("every_n_epochs", every_n_epochs), ("max_batches", max_batches)):
            if value < 1:
                raise UsageError(f"cka.{key}={value!r} must be 1 or more")
        self.comparisons = read_comparisons(compare)
        self.directory = Path(directory)
        self.every_n_epochs = every_n_epochs
        self.max_batches = max_batches
        check_poolings(pooling.values() if isinstance(pooling, Mapping) else [pooling])
        self.pooling, self.batch_dim = pooling, batch_dim
        self._new_metric = partial(
            PresentCKA,
            kernel=kernel,
            estimator=estimator,
            weighting=weighting,
            permutations=permutations,
            groups=min(max_batches, _MOST_GROUPS),
            seed=seed,
            rbf_sigma=rbf_sigma,
            also=also,
            neighbours=neighbours,
            feature_correction=feature_correction,
        )
        self._gram = self._new_metric(["checks", "settings"]).gram
        self._references = ReferenceModels(self.comparisons, self.directory)
        self._metrics: dict[str, PresentCKA] = {}
        self._live: list[str] = []
        self._ranks = 1
        self._common_batches = 0
        self._waiting: list[Part[Tensor]] = []
        self._capture: Capture[Any] | None = None
        self._batch_size: int | None = None
        self._open = ExitStack()
        self._moment: Moment | None = None
        self._history: dict[str, dict[str, list[Any]]] = {}
        self._resumed = False

    # Start of a run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the weights as built, before a checkpoint is loaded."""
        self._resumed = False
        if stage == "fit":
            self._references.setup(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers and make the reference models."""
        self._resumed |= trainer.ckpt_path is not None
        if trainer.enable_validation:
            self._prepare(trainer, pl_module)
        else:
            rank_zero_warn("cka: there is no validation, in which it is measured: nothing is")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do the same where there is no fit: `trainer.validate`."""
        if not self._metrics:
            self._prepare(trainer, pl_module)

    def _prepare(self, trainer: Trainer, module: LightningModule) -> None:
        self._ranks = of_ranks.rank_count()
        alone = self._ranks == 1
        self._reduce: Any = self._gram if alone else of_ranks.copied
        self._pooled = self.pooling if alone else of_ranks.unflattened(self.pooling)
        self._references.reads(self._reduce, self._pooled, batch_dim=self.batch_dim)
        rows = {n: match_layers(module, c.patterns_a) for n, c in self.comparisons.items()}
        columns = self._references.prepare(trainer, module, self._resumed)
        live: dict[str, None] = {}
        for name, comparison in self.comparisons.items():
            live.update(dict.fromkeys(rows[name]))
            if comparison.against == "self":
                live.update(dict.fromkeys(columns[name]))
            self._metrics[name] = self._new_metric(
                rows[name], columns[name], paired=comparison.has_diagonal
            )
        self._live = list(live)

    # Validation

    def _measures(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from empty sums, on the model's device."""
        for metric in self._metrics.values():
            metric.reset()
            metric.epoch = trainer.current_epoch
            metric.to(pl_module.device)
        self._references.to(pl_module.device)
        self._waiting = []
        if self._ranks > 1 and self._measures(trainer):
            batches: Any = trainer.num_val_batches
            fewest = min(of_ranks.gathered(batches[0] if batches else 0))
            self._common_batches = int(fewest) if math.isfinite(fewest) else 0

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put the hooks on, and note for the other models what there is now."""
        if self._measures(trainer) and dataloader_idx == 0 and batch_idx < self.max_batches:
            if self._references.any_ready:
                self._moment = Moment.of(pl_module, batch, batch_idx)
            self._batch_size = size_of_batch(batch)
            # A compiled module skips hooks that came after its compilation.
            self._open.enter_context(torch.compiler.set_stance("force_eager"))
            capture = Capture(pl_module, self._live, self._reduce, self._pooled, self.batch_dim)
            self._capture = self._open.enter_context(capture)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take what the hooks saw, run the other models on the batch, add both up."""
        if self._capture is None:
            return
        live, moment = self._capture.take_usable(), self._moment
        self._release()
        others = self._references.run(trainer, moment) if moment else {}
        part: Part[Any] = Part({"self": live, **others}, self._batch_size)
        if self._ranks == 1:
            self._add(part, batch_idx)
        elif batch_idx < self._common_batches:
            self._join(part, batch_idx, pl_module.device)
        else:  # another rank may have no such batch: it would wait for this one elsewhere
            self._waiting.append(part)

    def _join(self, part: Part[Tensor], number: int, device: torch.device) -> None:
        whole = of_ranks.join(part, number % self._ranks, self._gram, device)
        if whole is not None:
            self._add(whole, number)

    def _join_rest(self, device: torch.device) -> None:
        """Add the batches that not all ranks have a share of; all ranks call this."""
        for number in range(max(of_ranks.gathered(len(self._waiting)))):
            part = self._waiting[number] if number < len(self._waiting) else Part.empty()
            self._join(part, self._common_batches + number, device)
        self._waiting = []

    def _add(self, batch: Part[Gram], number: int) -> None:
        seen = batch.seen
        for name, metric in self._metrics.items():
            against = self.comparisons[name].against
            if "self" in seen and against in seen:
                other = None if against == "self" else seen[against]
                metric.update(seen["self"], other, batch.batch_size, number)

    def _release(self) -> None:
        self._capture = self._moment = None
        self._open.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the hooks off whatever happened."""
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off and let go of the models."""
        self._release()
        self._metrics, self._waiting = {}, []
        self._references.clear()

    # Results

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Divide, write, log, and move `previous` on."""
        if not self._measures(trainer):
            return
        if self._ranks > 1:
            self._join_rest(pl_module.device)
        logged: dict[str, float] = {}
        for name, metric in self._metrics.items():
            if self._references.is_ready(self.comparisons[name].against):
                logged |= self._finish(trainer, self._result(name, metric, trainer))
                if line := metric.new_line(name):
                    rank_zero_warn(line)
        first = [value for key, value in logged.items() if key.endswith("/mean_diagonal")]
        if first:
            logged["cka/mean_diagonal"] = first[0]
        for key, value in logged.items():
            pl_module.log(key, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        self._references.move_previous_on(pl_module)

    def _result(self, name: str, metric: PresentCKA, trainer: Trainer) -> results.Result:
        comparison = self.comparisons[name]
        return results.Result.of(
            metric,
            name,
            against=comparison.against,
            has_diagonal=comparison.has_diagonal,
            epoch=trainer.current_epoch + 1,  # counted from 1, as in log.json
        )

    def _finish(self, trainer: Trainer, result: results.Result) -> dict[str, float]:
        if not result.matrix.size:
            return {}
        diagonals = self._remember(result)
        if trainer.is_global_zero:
            results.write_files(result, self.directory, diagonals)
            results.log_picture(result, self.directory, trainer.loggers, trainer.global_step)
        return results.scalars(result)

    def _remember(self, result: results.Result) -> dict[str, list[Any]] | None:
        """Add the diagonal to the history of the comparison; a repeated epoch replaces its own."""
        if result.diagonal is None:
            return None
        kept = self._history.get(result.name)
        if kept is None or kept["layers"] != list(result.rows):
            kept = self._history[result.name] = history.new(result.rows)
        history.add(kept, result)
        return kept

    # Checkpoints

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "CKACallback"

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, loadable with ``weights_only=True``."""
        return {"history": self._history, "previous": self._references.previous}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the history and the previous weights of an interrupted run."""
        self._resumed = True
        kept = state_dict["history"]
        self._history = {name: history.complete(one) for name, one in kept.items()}
        self._references.previous = state_dict["previous"]
