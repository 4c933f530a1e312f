"""End a trial early that falls behind the others of its sweep; it is exported all the same.

The others' values are read from their folders, where each trial writes its own: no server, no
coordinator. The rule is W&B's hyperband (`mlmodeldev.sweep.stopping`), or one of Optuna's.

Example::

    Trainer(callbacks=[Pruning(folder, settings.callbacks.pruning)], ...)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.callbacks.logged_names import nearest_metric
from mlmodeldev.errors import UsageError
from mlmodeldev.sweep.stopping import verdict
from mlmodeldev.trial.record import history

if TYPE_CHECKING:
    from mlmodeldev.settings.callback_schema import Pruning as PruningSettings


class Pruning(Callback):
    """Compare this trial with the others after each validation.

    Args:
        folder: the trial's folder; the others lie beside it.
        settings: the rule.
    """

    def __init__(self, folder: Path, settings: PruningSettings) -> None:
        self.folder, self.settings = folder, settings
        self.reason: str | None = None
        self.values: list[float] = []
        self._read: dict[Path, tuple[tuple[int, int], list[float]]] = {}

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "Pruning"

    def state_dict(self) -> dict[str, Any]:
        return {"reason": self.reason, "values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reason, self.values = state_dict["reason"], list(state_dict["values"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        value = self._current(trainer)
        if math.isfinite(value):
            self.values.append(value)
        reason = self._judge() if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            self.reason = reason
            trainer.should_stop = True

    def _current(self, trainer: Trainer) -> float:
        logged, name = trainer.callback_metrics, self.settings.metric
        if name not in logged:
            listed = ", ".join(sorted(logged)) or "none"
            raise UsageError(
                f"callbacks.pruning.metric={name}: is not logged by the end of a validation"
                f"{nearest_metric(name, logged)} (logged: {listed})"
            )
        return float(logged[name])

    def _judge(self) -> str | None:
        if self.settings.rule == "hyperband":
            return verdict(self.settings, self.values, self._others(), self.settings.goal)
        from mlmodeldev.sweep.optuna_rules import judge

        return judge(self.settings, self.values)

    def _others(self) -> list[list[float]]:
        """Return what the other trials have logged; a file is read again only if it changed."""
        files = (f for f in self.folder.parent.glob("*/log.json") if f.parent != self.folder)
        return [values for file in files if (values := self._values(file))]

    def _values(self, file: Path) -> list[float]:
        try:
            status = file.stat()
        except OSError:
            return []
        version = (status.st_mtime_ns, status.st_size)
        cached = self._read.get(file)
        if cached is None or cached[0] != version:
            cached = (version, history(file.parent, self.settings.metric))
            self._read[file] = cached
        return cached[1]
