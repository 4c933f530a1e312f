"""What metrics have gathered belongs to the checkpoint: an epoch's mean, the best value so far.

Lightning's checkpoints leave it out: after a resume within an epoch, ``self.log(on_epoch=True)``
and torchmetrics of training cover the rest of the epoch only, a `MaxMetric` begins anew, and a
scheduler that waits for a metric of an earlier epoch finds none. The states of the model's own
`torchmetrics.Metric` modules, of what it has logged, and the last value of each metric are kept;
so are numbers and tensors that metrics keep in plain attributes, as wrappers do (the extremes of a
`MinMaxMetric`, the place in a running window), and the steps of a `MetricTracker`.

Example::

    Trainer(callbacks=[MetricStates()], ...)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultMetric,
    _Sync,
)
from torch import Tensor
from torchmetrics import Metric, MetricTracker
from torchmetrics.wrappers.abstract import WrapperMetric

from mlmodeldev.callbacks.of_ranks import gather, own_part

_KEPT = (
    *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph"),
    *("add_dataloader_idx", "dataloader_idx", "metric_attribute"),
)


class MetricStates(Callback):
    """Save and restore what metrics have gathered."""

    def __init__(self) -> None:
        self._saved: dict[str, Any] = {}
        self._before_validation: dict[str, Any] | None = None
        self._fresh: dict[str, dict[str, Any]] = {}
        self._epoch_over = False
        self._trainer: Trainer | None = None
        self._model: LightningModule | None = None

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "MetricStates"

    # --- saving

    def state_dict(self) -> dict[str, Any]:
        trainer, model = self._trainer, self._model
        if trainer is None or model is None:
            return {}
        results = {} if self._epoch_over else _results_of(trainer)
        # A metric that Lightning resets at the epoch's end must not come back full.
        reset = _logged_metrics(trainer) if self._epoch_over else set()
        states = self._before_validation
        if states is None:
            states = self._states_of(model, reset)
        last = {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()}
        return {"of_ranks": gather(trainer, {**states, "logged": results, "last": last})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict

    # --- moments

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer, self._model = trainer, pl_module

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fresh = {name: _attributes_of(metric) for name, metric in _metrics_of(pl_module)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        saved, self._saved = own_part(trainer, self._saved.get("of_ranks")), {}
        if not saved:
            return
        _bring_to_step(pl_module, saved.get("steps", {}))
        metrics = dict(_metrics_of(pl_module))
        for name, state in saved["metrics"].items():
            if name in metrics:
                _restore(metrics[name], state, pl_module.device)
        for name, values in saved.get("attributes", {}).items():
            for each, value in values.items():
                if hasattr(metrics.get(name), each):
                    setattr(metrics[name], each, _on(value, pl_module.device))
        trainer._logger_connector._callback_metrics.update(saved["last"])
        for key, entry in saved["logged"].items():
            _register(trainer, pl_module, key, entry)
        if saved["logged"]:
            # Lightning empties what was logged at the first batch that it sees of an epoch
            trainer._logger_connector._first_loop_iter = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_over = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._epoch_over = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A trial that resumes here validates from the first batch on.
        if trainer.state.fn == "fit":
            self._before_validation = self._states_of(pl_module, set())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before_validation = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_over = True
        # On all ranks before any of them looks alone: torchmetrics gather when they are computed.
        _ = trainer.callback_metrics

    def _states_of(self, model: LightningModule, reset: set[int]) -> dict[str, Any]:
        """Return what the model's metrics have gathered, but for those that are about to be reset.

        Of plain attributes those that have changed; others are what the code makes them.
        """
        attributes = {}
        for name, metric in _metrics_of(model):
            fresh = self._fresh.get(name, {})
            changed = {
                each: _copied(value)
                for each, value in _attributes_of(metric).items()
                if id(metric) not in reset and not _is_same(value, fresh.get(each))
            }
            if changed:
                attributes[name] = changed
        return {
            "metrics": _states_of(model, reset),
            "attributes": attributes,
            "steps": {name: tracker.n_steps for name, tracker in _trackers_of(model)},
        }


def _metrics_of(model: LightningModule) -> Iterator[tuple[str, Metric]]:
    return ((n, m) for n, m in model.named_modules() if isinstance(m, Metric))


def _trackers_of(model: LightningModule) -> Iterator[tuple[str, MetricTracker]]:
    return ((n, m) for n, m in model.named_modules() if isinstance(m, MetricTracker))


def _bring_to_step(model: LightningModule, steps: Mapping[str, int]) -> None:
    """Let trackers have a metric for each of their steps, whose states are then restored."""
    for name, tracker in [*_trackers_of(model)]:
        while tracker.n_steps < steps.get(name, 0):
            tracker.increment()


class _Bare(Metric):
    """Has the attributes of every metric, and no other."""

    def update(self) -> None: ...

    def compute(self) -> None: ...


_OF_EVERY_METRIC = frozenset(vars(_Bare()))


def _attributes_of(metric: Metric) -> dict[str, Any]:
    """Return copies of the numbers and tensors in plain attributes: neither states nor buffers."""
    return {
        name: _copied(value)
        for name, value in vars(metric).items()
        if isinstance(value, Tensor | int | float)
        and name not in _OF_EVERY_METRIC
        and name not in metric._defaults
    }


def _is_same(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return value.dtype == other.dtype and torch.equal(value, other)
    return type(value) is type(other) and bool(value == other)


def _states_of(model: LightningModule, reset: set[int]) -> dict[str, Any]:
    """Return each metric's states and number of updates; nothing of one that has seen none.

    A wrapper's updates are not counted; its states, if it has any, are always there.
    """
    states = {}
    for name, metric in _metrics_of(model):
        seen = metric._update_count or (isinstance(metric, WrapperMetric) and metric._defaults)
        if seen and id(metric) not in reset:
            values = {k: _copied(v) for k, v in metric.metric_state.items()}
            states[name] = {"count": metric._update_count, "values": values}
    return states


def _copied(value: Any) -> Any:
    """Return a copy of a tensor, or of a metric's list of tensors, on the CPU."""
    if isinstance(value, list | tuple):
        return [_copied(each) for each in value]
    return value.detach().clone().cpu() if isinstance(value, Tensor) else value


def _on(value: Any, device: Any) -> Any:
    if isinstance(value, list):
        return [_on(each, device) for each in value]
    return value.to(device) if isinstance(value, Tensor) else value


def _restore(metric: Metric, state: dict[str, Any], device: Any) -> None:
    for name, value in state["values"].items():
        if hasattr(metric, name):
            setattr(metric, name, _on(value, device))
    metric._update_count = state["count"]
    metric._computed = None


def _logged_metrics(trainer: Trainer) -> set[int]:
    logged = trainer.fit_loop.epoch_loop._results.values()
    return {id(each.value) for each in logged if not each.is_tensor}


# --- what was logged in training: Lightning's own results, which its checkpoints leave out


def _results_of(trainer: Trainer) -> dict[str, Any]:
    entries = {}
    for key, result in trainer.fit_loop.epoch_loop._results.items():
        meta = result.meta
        if result.has_reset:
            continue
        kept = {name: getattr(meta, name) for name in _KEPT}
        kept["reduce_fx"] = meta.reduce_fx.__name__
        sync = {"should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only}
        entry: dict[str, Any] = {
            "meta": {**kept, "reduce_fx": meta.reduce_fx.__name__},
            "sync": sync,
        }
        if isinstance(result._forward_cache, Tensor):  # shown again by a step that logs nothing
            entry["step"] = _copied(result._forward_cache)
        if result.is_tensor:
            entry["value"] = _copied(result.value)
            if meta.is_mean_reduction:
                entry["count"] = _copied(result.cumulated_batch_size)
        entries[key] = entry
    return entries


def _register(trainer: Trainer, model: LightningModule, key: str, entry: dict[str, Any]) -> None:
    """Put back a result as it was when the checkpoint was written."""
    results = trainer.fit_loop.epoch_loop._results
    if key in results:
        return
    meta = _Metadata(**{**entry["meta"], "reduce_fx": getattr(torch, entry["meta"]["reduce_fx"])})
    sync = entry["sync"]
    meta.sync = _Sync(
        fn=trainer.strategy.reduce, _should=sync["should"], rank_zero_only=sync["rank_zero_only"]
    )
    result = _ResultMetric(meta, "value" in entry)
    if "value" in entry:
        result.value = entry["value"].to(model.device)
        if meta.is_mean_reduction:
            result.cumulated_batch_size = entry["count"].to(model.device)
        result._update_count = 1
    else:
        metric = _attribute(model, entry["meta"]["metric_attribute"])
        if metric is None:
            return
        result.value, result._update_count = metric, 1
    if "step" in entry:
        result._forward_cache = entry["step"].to(model.device)
    result.has_reset = False
    results[key] = result


def _attribute(model: LightningModule, name: str | None) -> Any:
    part: Any = model
    for each in (name or "").split("."):
        part = getattr(part, each, None)
    return part if isinstance(part, Metric) else None
