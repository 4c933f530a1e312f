"""Folders of trials as a sweep would leave them, without any training.

sweep = MadeUpSweep(tmp_path, lrs=[0.001, 0.01], widths=[16, 32], seeds=[0, 1])
sweep.write(failed={"ab12cd34"})
sweep.report()                          # the path of its page, through the command line
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from mlmodeldev.report.command import run_report
from mlmodeldev.slurm import command_line
from mlmodeldev.sweep import load

REASON = "NonFiniteLoss: the loss is not finite at step 1"
LOG = (
    "step 0\n</script><script>document.title = 'taken over'</script>\n{{CONTENT}} and {{NOTHING}}\n"
)


class MadeUpSweep:
    """A grid of lr x width x seeds, whose value is known: it depends on lr, hardly on width."""

    def __init__(
        self, folder: Path, lrs: Sequence[float], widths: Sequence[int], seeds: Sequence[int]
    ) -> None:
        self.folder, self.epochs = folder, 6
        self.file = folder / "sweep.yaml"
        parameters = {
            "optimizer.lr": {"values": list(lrs)},
            "model.hidden_size": {"values": list(widths)},
            "training.seed": {"values": list(seeds)},
        }
        text = {
            "name": "made-up",
            "program": "trainer.py",
            "method": "grid",
            "metric": {"name": "val/accuracy", "goal": "maximize"},
            "parameters": parameters,
            "controller": {"type": "cloud", "replicates": "training.seed"},
        }
        self.file.write_text(json.dumps(text))  # JSON is YAML
        self.trials = list(load(self.file).trials())
        self.runs = folder / "runs" / "made-up"

    def value(self, overrides: dict[str, Any]) -> float:
        """Return a trial's best value."""
        lr, width = float(overrides["optimizer.lr"]), int(overrides["model.hidden_size"])
        noise = 0.004 * overrides["training.seed"]
        return round(0.9 - 0.1 * abs(math.log10(lr) + 2) + width / 100_000 + noise, 6)

    def write(
        self, failed: frozenset[str] | set[str] = frozenset(), matrices: int | None = None
    ) -> None:
        """Write every trial's folder.

        Args:
            failed: the identities of trials that failed at their first step.
            matrices: how many trials have CKA matrices; None: all.
        """
        for number, trial in enumerate(self.trials):
            folder = self.runs / trial.id
            folder.mkdir(parents=True)
            wrong = trial.id in failed
            (folder / "trial.json").write_text(json.dumps(self._record(trial, wrong)))
            (folder / "log.txt").write_text(LOG)
            if not wrong:
                self._write_curves(folder, self.value(trial.overrides))
                if matrices is None or number < matrices:
                    self._write_matrices(folder, number)

    def _record(self, trial: Any, wrong: bool) -> dict[str, Any]:
        record = {
            "id": trial.id,
            "state": "failed" if wrong else "done",
            "reason": REASON if wrong else None,
            "attempts": 1,
            "seconds": 60.0,
            "sha": "0a1b" * 10,
            "dirty": False,
            "code": {"model.py": "1f", "datamodule.py": "2f"},
            "software": {"library": "0.2.0", "torch": "2.13.0", "python": "3.11.7"},
            "data": {"inputs": {"/data/digits.csv.gz": "09f66e"}},
        }
        if wrong:
            return record
        value = self.value(trial.overrides)
        seed = trial.overrides["training.seed"]
        usage = {"seconds": 50.0, "cpu_seconds": 75.0, "memory_gib": 2.0 + seed, "samples": 6}
        gpu = {"gpu_memory_gib": 10.0, "gpu_gib": 80.0, "gpu_use": 0.25, "gpu_samples": 5}
        metric = {"name": "val/accuracy", "mode": "max", "value": value, "epoch": self.epochs}
        ended = {"epoch": self.epochs, "epochs": self.epochs, "metric": metric}
        test = {"test/accuracy": value - 0.01}
        return {**record, **ended, "test": test, "usage": {**usage, **gpu}}

    def _write_curves(self, folder: Path, value: float) -> None:
        rows, entries = ["epoch,step,train/loss,val/accuracy,cka/a~b"], []
        for epoch in range(1, self.epochs + 1):
            reached = round(value * epoch / self.epochs, 6)
            rows.append(f"{epoch - 1},{epoch * 40 - 20},{1 / epoch:.6f},,")
            rows.append(f"{epoch - 1},{epoch * 40},,{reached},0.5")
            entries.append({"epoch": epoch, "step": epoch * 40, "val/accuracy": reached})
        (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
        (folder / "log.json").write_text(json.dumps(entries))

    def _write_matrices(self, folder: Path, seed: int) -> None:
        source, place = np.random.default_rng(seed), folder / "cka" / "towers"
        place.mkdir(parents=True)
        for epoch in range(1, self.epochs + 1):
            matrix = source.uniform(-0.05, 1, (5, 4))
            matrix[0, 0] = epoch / 10  # what the page shows of this cell says its epoch
            matrix[4, 3] = np.nan
            np.savez(
                place / f"epoch-{epoch:04d}.npz",
                matrix=matrix,
                rows=np.array([f"image.{i}" for i in range(5)]),
                columns=np.array([f"text.{i}" for i in range(4)]),
                against=np.array("text"),
                epoch=np.array(epoch),
                samples=np.array(64),
                estimator=np.array("unbiased"),
                kernel=np.array("linear"),
                significant=matrix > 0.3,
            )

    def report(self, *words: str, logger: str | None = "csv") -> Path:
        """Write the page as a user does; return its path. Other programs have no logger."""
        printed = io.StringIO()
        given = ["report", "--sweep", str(self.file), f"artefacts.runs_dir={self.runs.parent}"]
        chosen = [f"logger={logger}"] if logger else []
        with contextlib.redirect_stdout(printed):
            commands = {"report": run_report.__module__}
            assert command_line.main([*given, *chosen, *words], commands) == 0
        return Path(printed.getvalue().splitlines()[-1])


def content_of(page: Path) -> dict[str, Any]:
    """Return the JSON of a page, as the browser would read it."""
    pieces: list[str] = []

    class Content(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside = ("id", "content") in attrs

        def handle_data(self, data: str) -> None:
            if self.inside:
                pieces.append(data)

        def handle_endtag(self, tag: str) -> None:
            self.inside = False

    Content().feed(page.read_text(encoding="utf-8"))
    content: dict[str, Any] = json.loads("".join(pieces))
    return content
