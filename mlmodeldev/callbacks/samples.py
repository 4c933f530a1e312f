"""A table of validation examples with truth and prediction, the most confident mistakes first.

The model's ``validation_step`` returns ``{"index", "label", "prediction", "probability"}``, each of
shape (batch,); the DataModule tells what an example looks like by ``describe(index)``. A model that
does not classify, such as one that generates, may have ``sample_rows(count)``: it returns the
table's rows, each a dict of one set of columns, and draws no random numbers but its own.

Example::

    Trainer(callbacks=[Samples(folder / "samples.csv", count=32)], ...)
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.atomic import atomic_write
from mlmodeldev.data.info import label_names

_COLUMNS = ("index", "label", "prediction", "probability")


class Samples(Callback):
    """Write ``samples.csv`` after each validation, and a table to trackers that take one.

    In a trial of several processes the table is of the first one's share of the examples.

    Args:
        file: where to write.
        count: examples at most.
    """

    def __init__(self, file: Path, count: int = 32) -> None:
        self.file, self.count = file, count
        self._parts: list[dict[str, torch.Tensor]] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.is_global_zero and _is_table(outputs):
            self._parts.append({name: outputs[name].detach() for name in _COLUMNS})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self._parts:
            rows = self._rows(trainer)
            self._parts = []
        else:  # on every process: a model that is sharded generates with all of them
            make: Any = getattr(pl_module, "sample_rows", None)
            rows = make(self.count) if make is not None else []
        if rows and trainer.is_global_zero:
            self._write(trainer, rows)

    def _write(self, trainer: Trainer, rows: list[dict[str, Any]]) -> None:
        with atomic_write(self.file, "w") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                columns = list(rows[0])
                data = [[row[name] for name in columns] for row in rows]
                logger.log_table("val/samples", columns=columns, data=data)

    def _rows(self, trainer: Trainer) -> list[dict[str, Any]]:
        whole = {name: torch.cat([part[name] for part in self._parts]) for name in _COLUMNS}
        wrong = whole["label"] != whole["prediction"]
        # mistakes first, then by confidence; stable, so that equal ones keep the data's order
        order = torch.argsort(wrong * 2.0 + whole["probability"], descending=True, stable=True)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        names = label_names(datamodule)
        describe: Any = getattr(datamodule, "describe", None)
        if describe is None or trainer.overfit_batches:  # type: ignore[attr-defined]
            describe = _nothing  # the examples of overfitting are not of the validation set

        def named(label: int) -> Any:
            return names[label] if names else label

        rows = []
        for place in order[: self.count].tolist():
            index = int(whole["index"][place])
            rows.append(
                {
                    "index": index,
                    "label": named(int(whole["label"][place])),
                    "prediction": named(int(whole["prediction"][place])),
                    "probability": round(float(whole["probability"][place]), 4),
                    "correct": not bool(wrong[place]),
                    **describe(index),
                }
            )
        return rows


def _is_table(outputs: Any) -> bool:
    """Whether a validation step returned the columns; another's dict may use the same words."""
    columns = [outputs.get(name) for name in _COLUMNS] if isinstance(outputs, dict) else [None]
    return all(isinstance(one, torch.Tensor) and one.ndim == 1 for one in columns)


def _nothing(index: int) -> dict[str, str]:
    return {}
