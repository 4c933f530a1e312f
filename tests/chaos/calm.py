"""The same trials without any of it, in one pool here: what the disturbed ones are compared with.

python -m tests.chaos.calm tasks.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mlmodeldev.sweep import load
from mlmodeldev.sweep.loading import trial_arguments
from mlmodeldev.trial.pool import run_pool
from mlmodeldev.trial.task import ListSource, TrialTask
from tests.chaos.outcome import Outcome, outcome
from tests.chaos.scene import Scene
from tests.chaos.trials import SETTINGS, own_settings


class Calm:
    """Started beside all else; `outcomes` waits for its end."""

    def __init__(self, scene: Scene) -> None:
        self.runs = scene.folder / "calm"
        self.scene = scene
        tasks = []
        for name, file in scene.trials.files.items():
            fixed = [*SETTINGS, *own_settings(name), "logger=csv"]
            for trial in load(file).trials():
                folder = self.runs / name / trial.id
                words = trial_arguments(trial.overrides, folder, fixed)
                tasks.append([trial.id, str(folder), words])
        (scene.folder / "calm.json").write_text(json.dumps(tasks))
        with (scene.folder / "calm.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.calm", str(scene.folder / "calm.json")],
                cwd=scene.trials.project, env=scene.calm_environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def outcomes(self) -> dict[str, dict[str, Outcome]]:
        """Return what each trial of each sweep came to.

        Raises:
            RuntimeError: one did not end well.
        """
        if self.process.wait(3600):
            printed = (self.scene.folder / "calm.txt").read_text()
            raise RuntimeError(f"undisturbed trials failed: {printed[-3000:]}")
        return {
            name: {f.parent.name: outcome(f.parent) for f in (self.runs / name).glob("*/last")}
            for name in self.scene.trials.files
        }


def main(file: Path) -> int:
    """Run the trials of a file, in the project that is the working folder."""
    tasks = [
        TrialTask(name, Path(folder), overrides)
        for name, folder, overrides in json.loads(file.read_text())
    ]
    return run_pool(ListSource(tasks), 2, ["trainer", "ours", "theirs"], Path.cwd())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
