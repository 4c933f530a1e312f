"""Trials as they look on disk, made by hand: what was written is known without training.

Example::

    trial = OfflineTrial(runs, "first")
    trial.log(0, 10)            # ten rows
    trial.end("done")
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import yaml

from mlmodeldev.lease import start_ticks
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.trial.folder import TrialFolder


class OfflineTrial:
    """A trial that this process pretends to run, without a network."""

    def __init__(self, runs: Path, name: str, *overrides: str, sweep: str = "single") -> None:
        self.path = runs / sweep / name
        self.path.mkdir(parents=True)
        where = (
            f"artefacts.runs_dir={runs}",
            f"artefacts.sweep={sweep}",
            f"artefacts.trial={name}",
        )
        settings = compose_settings(["training.monitor=val/accuracy", *where, *overrides])
        text = yaml.safe_dump(settings.model_dump(), sort_keys=False)
        (self.path / "config.yaml").write_text(text)
        self.folder, self.run = TrialFolder(self.path), f"{name}-run"
        self.file, self.count = self.path / "metrics.csv", 0
        self.begin()

    def begin(self) -> None:
        """A new attempt."""
        attempts = int(self.folder.read().get("attempts", 0)) + 1
        pid, host = os.getpid(), os.uname().nodename
        owner = {"host": host, "pid": pid, "started": start_ticks(pid)}
        self.folder.update(
            id=self.path.name, state="running", attempts=attempts, owner=owner,
            wandb_id=self.run, wandb_path=None, uploaded=False,
        )  # fmt: skip

    def log(self, first: int, last: int) -> None:
        """Write rows of these numbers; every fifth is a validation."""
        with self.file.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not first:
                writer.writerow(["epoch", "step", "train/loss", "val/accuracy"])
            for number in range(first, last):
                value = self.accuracy(number) if number % 5 == 4 else ""
                writer.writerow([number // 5, number * 10, self.loss(number), value])
        self.count = last

    @staticmethod
    def loss(number: int) -> float:
        return 1 / (number + 3)

    @staticmethod
    def accuracy(number: int) -> float:
        return 0.9 - abs(number - 9) / 100  # best in row 9

    def tear(self, text: str = "7,9") -> None:
        """Leave the beginning of a row behind, as a killed writer does."""
        with self.file.open("a") as file:
            file.write(text)

    def cut(self, rows: int) -> None:
        """Go back to so many rows, as a trial does that resumes from a checkpoint."""
        lines = self.file.read_text().splitlines(keepends=True)
        self.file.write_text("".join(lines[: rows + 1]))

    def end(self, state: str, **changes: Any) -> None:
        """End the attempt."""
        self.folder.update(state=state, owner=None, **changes)

    def check(self, run: Any, rows: int | None = None) -> None:
        """Compare what the server has with what was written."""
        count = self.count if rows is None else rows
        assert run.steps == list(range(count))
        assert run.values("train/loss") == [self.loss(n) for n in range(count)]
        assert [row["trainer/global_step"] for row in run.history] == [n * 10 for n in range(count)]
        assert [name for name, _ in run.rewritten if name == "wandb-history.jsonl"] == []
