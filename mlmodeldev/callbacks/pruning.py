"""End a trial early that falls behind the others of its sweep; it is exported all the same.

The others' values are read from their folders, where each trial writes its own, one for each
validation (``pruning.json``): no server, no coordinator. The rule is W&B's hyperband
(`mlmodeldev.sweep.stopping`), or one of Optuna's.

Example::

    Trainer(callbacks=[Pruning(folder, settings.callbacks.pruning)], ...)
"""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.atomic import write_json
from mlmodeldev.callbacks.logged_names import nearest_metric
from mlmodeldev.errors import UsageError
from mlmodeldev.sweep.stopping import bands, verdict
from mlmodeldev.trial.record import VALIDATIONS, read_record, validations

if TYPE_CHECKING:
    from mlmodeldev.settings.callback_schema import Pruning as PruningSettings


@dataclass(frozen=True)
class _Logged:
    """What another trial has logged, the file's version then, and whether nothing can follow."""

    version: tuple[int, int]
    values: list[float]
    is_final: bool


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
        self._read: dict[str, _Logged] = {}

    @property
    def state_key(self) -> str:
        """Names this callback's state in checkpoints; it stays, whatever the class is called."""
        return "Pruning"

    def state_dict(self) -> dict[str, Any]:
        return {"reason": self.reason, "values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reason, self.values = state_dict["reason"], list(state_dict["values"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        value = self._current(trainer)
        if math.isfinite(value):
            self.values.append(value)
        if trainer.is_global_zero:
            counted = {"metric": self.settings.metric, "values": self.values}
            write_json(self.folder / VALIDATIONS, counted)
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
            reached = [band for band in bands(self.settings) if band <= len(self.values)]
            if not reached:
                return None  # whatever the others have logged
            others = self._others(reached[-1])
            return verdict(self.settings, self.values, others, self.settings.goal)
        from mlmodeldev.sweep.optuna_rules import judge

        return judge(self.settings, self.values)

    def _others(self, band: int) -> list[list[float]]:
        """Return what the other trials have logged, as far as this band.

        What was logged stays, so a trial's files are looked at no more once it has reached the
        band, or has ended before it: each look is a question to the file server, and every trial of
        the sweep asks about every other.
        """
        try:
            with os.scandir(self.folder.parent) as items:
                names = [item.name for item in items if item.name[0] != "."]
        except OSError:
            return []
        others = (self._values(name, band) for name in names if name != self.folder.name)
        return [values for values in others if values]

    def _values(self, name: str, band: int) -> list[float]:
        cached = self._read.get(name)
        if cached is not None and (cached.is_final or len(cached.values) >= band):
            return cached.values
        folder = self.folder.parent / name
        version = _version(folder)
        if version is None:
            return []
        if cached is None or cached.version != version:
            values, is_final = validations(folder, self.settings.metric), False
            if len(values) < band and read_record(folder).get("state") in ("done", "pruned"):
                # once more, for it may have logged its last value in between
                values, is_final = validations(folder, self.settings.metric), True
            cached = _Logged(version, values, is_final)
            self._read[name] = cached
        return cached.values


def _version(folder: Path) -> tuple[int, int] | None:
    """Return what changes with each value that a trial writes; None where it has written none.

    Trials of earlier versions, and those that are compared with no other, write ``log.json`` alone.
    """
    for name in (VALIDATIONS, "log.json"):
        with contextlib.suppress(OSError):
            status = (folder / name).stat()
            return (status.st_mtime_ns, status.st_size)
    return None
