"""Runs of plain Lightning classes, undisturbed and killed, in processes of their own."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import TrialResult, in_fork
from tests.training.test_plain_resume import COMMON, run_classes

CLASSES = "tests.training.stateful_classes"
QUICK = (
    *("artefacts.rehearsal=false", "callbacks.export.enabled=false", "training.test=false"),
    *("training.accelerator=cpu", "training.max_epochs=3"),
)


@dataclass(frozen=True)
class Place:
    """Where trials lie.

    Attributes:
        runs: folder of sweeps.
        sweep: whose trials they are.
    """

    runs: Path
    sweep: str = "single"

    def run(
        self,
        name: str,
        model: str,
        data: str,
        *overrides: str,
        at: tuple[str, int] | None = None,
        number: int = signal.SIGKILL,
        callbacks: Mapping[str, Any] | None = None,
    ) -> TrialResult:
        """Train a class of `stateful_classes` on another; one that is there already goes on.

        Args:
            name: of the trial.
            model: name of the class.
            data: name of the class.
            overrides: settings beside `QUICK`.
            at: method of the model, and the number of its call in which a signal comes.
            number: the signal.
            callbacks: that are added, by name: ``_target_`` and arguments.
        """
        own = (f"artefacts.runs_dir={self.runs}", f"artefacts.trial={name}")
        wanted = [*COMMON, *QUICK, *own, f"artefacts.sweep={self.sweep}", *overrides]
        printed = self.runs / f"{name}.txt"
        classes = [{"_target_": f"{CLASSES}.{kind}"} for kind in (model, data)]
        code = in_fork(
            printed, run_classes, *classes, wanted, at, int(number), dict(callbacks or {})
        )
        return TrialResult(code, self.runs / self.sweep / name, printed.read_text())
