"""The checks of a project's own classes, one method each; a failure is a paragraph.

Example::

    project = Project(ROOT, runs, "logger=csv", "training.max_epochs=2")
    project.learns_one_batch()
    project.resumes_exactly()
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlmodeldev.testing import batches, devices, exports, layers, learning, resuming
from mlmodeldev.testing.isolated import CheckFailed, Killed, preload, run_isolated

_WHOLE, _BROKEN, _AGAIN = "whole", "broken", "again"


class Project:
    """A project whose model and data are to be checked.

    Args:
        root: folder of trainer.py, model.py and conf/.
        runs: folder for the trials of the checks.
        overrides: as on the command line of trainer.py: ``model=NAME``, ``data=NAME``, and what
            makes a trial short.
    """

    def __init__(self, root: Path, runs: Path, *overrides: str) -> None:
        self.root, self.runs, self.overrides = Path(root).resolve(), Path(runs).resolve(), overrides
        self._batches: int | None = None
        preload()

    def learns_one_batch(self, steps: int = 60, falls_by: float = 0.2) -> None:
        """Check that the training loss of one batch falls when it is the only one.

        Args:
            steps: batches that the model is trained on, all the same one.
            falls_by: share of the first loss by which the last ones must be smaller.

        Raises:
            CheckFailed: it does not, or there is no loss to look at.
        """
        losses = self._run(learning.losses_of_one_batch, self._settings("one-batch"), steps)
        learning.judge(losses, falls_by)

    def resumes_exactly(self) -> None:
        """Check that a trial killed (SIGKILL) in the middle goes on to the same weights.

        Raises:
            CheckFailed: with the cause: two undisturbed trials differ, or a state is not saved.
        """
        batches_seen = self._whole_trial()
        at = resuming.place_of_kill(batches_seen)
        self._clear(_BROKEN)
        try:
            self._train(_BROKEN, at)
        except Killed:
            pass
        else:
            raise CheckFailed(resuming.never_killed(at))
        self._train(_BROKEN)
        different = self._differences(_BROKEN)
        if different:
            self._clear(_AGAIN)
            self._train(_AGAIN)
            raise CheckFailed(resuming.reason(different, self._differences(_AGAIN)))

    def exports_load_back(self) -> None:
        """Check that ``best/`` and ``last/`` of a trial load in a fresh process, weights equal.

        Raises:
            CheckFailed: they are not there, do not load, or hold other weights.
        """
        self._whole_trial()
        self._run(exports.check, str(self._folder(_WHOLE)))

    def outputs_rest_on_the_example(self, tolerance: float = 1e-3) -> None:
        """Check that in evaluation an example's outputs do not depend on the rest of its batch.

        Args:
            tolerance: difference allowed, as a share of the largest output of a layer.

        Raises:
            CheckFailed: naming the first layer where they do.
            unittest.SkipTest: there is no validation to look at.
        """
        self._run(batches.check_rows, self._settings("rows"), tolerance)

    def runs_on_any_device(self) -> None:
        """Check that all that a forward needs moves with the model, and no device is named.

        No GPU is needed.

        Raises:
            CheckFailed: naming the module.
            unittest.SkipTest: there is no validation to look at.
        """
        self._run(devices.check, self._settings("device"))

    def cka_layers_exist(self) -> None:
        """Check that each pattern of ``callbacks.cka.compare`` names a layer of the model.

        Raises:
            CheckFailed: naming the pattern and the nearest layer.
        """
        self._run(layers.check, self._settings("layers"))

    def _whole_trial(self) -> int:
        """Train an undisturbed trial, unless that is done; return the batches that it has seen."""
        if self._batches is None:
            self._clear(_WHOLE)
            self._batches = int(self._train(_WHOLE))
        return self._batches

    def _train(self, name: str, kill_at: int | None = None) -> Any:
        return self._run(resuming.train, self._settings(name), kill_at)

    def _differences(self, name: str) -> list[str]:
        folders = str(self._folder(_WHOLE)), str(self._folder(name))
        result: list[str] = self._run(resuming.differences, *folders)
        return result

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return run_isolated(self.root, self.runs / "checks.log", function, *args)

    def _settings(self, name: str) -> list[str]:
        given = [f"artefacts.runs_dir={self.runs}", f"artefacts.trial={name}"]
        given.append("artefacts.rehearsal=false")  # these checks are one
        return [*given, *self.overrides]

    def _folder(self, name: str) -> Path:
        (folder,) = self.runs.glob(f"*/{name}")
        return folder

    def _clear(self, name: str) -> None:
        for folder in self.runs.glob(f"*/{name}"):
            shutil.rmtree(folder)
