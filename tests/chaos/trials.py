"""The trials that are run: three sweeps of tiny ones, in a project of their own.

Example::

    trials = Trials(folder, SIZES["3"])        # folder/project, folder/ours.yaml, ...
    names(trials.files["ours"])               # {"ab12cd34": 0, ...}
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlmodeldev.sweep import load

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4
STEPS = 6
"""In each epoch."""
SETTINGS = (
    "artefacts.rehearsal=false",
    "callbacks=none",
    "callbacks.export.enabled=true",
    "training.accelerator=cpu",
    "training.checkpoint_every_n_steps=3",
    "training.log_every_n_steps=1",
    f"training.max_epochs={EPOCHS}",
    "training.mode=min",
    "training.monitor=val_loss",
    "training.test=false",
)
OURS_ONLY = ("processing.batch_size=8",)
"""The others' code makes its own loaders."""
TEXT = """\
# Expected best value: none
# Cost: seconds
# Command: python slurm/SlurmTrain.py
program: trainer.py
name: {name}
method: grid
metric: {{name: val_loss, goal: minimize}}
parameters:
  model: {{value: {kind}}}
  data: {{value: {kind}}}
  training.seed: {{values: {seeds}}}
command: ["${{env}}", "${{interpreter}}", "${{program}}", "${{args_no_hyphens}}"]
"""


@dataclass(frozen=True)
class Size:
    """How many trials, how many jobs at once, and for how long they are disturbed.

    Attributes:
        ours, agents, theirs: trials under SlurmTrain, under W&B agents, of plain Lightning code.
        jobs: of each of these at once; each runs ``slots`` trials at once.
        faults: how many.
        pause: seconds between two, at least.
        step_seconds: what a step takes at least until the last of them.
    """

    ours: int
    agents: int
    theirs: int
    jobs: int
    faults: int
    slots: int = 3
    pause: tuple[float, float] = (2.0, 4.0)
    step_seconds: float = 0.25


SIZES = {
    "3": Size(12, 4, 3, jobs=1, faults=18, slots=4, pause=(1.0, 3.0), step_seconds=1.5),
    "10": Size(60, 20, 12, jobs=2, faults=72, step_seconds=1.5),
    "full": Size(200, 60, 40, jobs=3, faults=288, step_seconds=1.5),
}
"""By the word after ``--minutes``."""


class Trials:
    """The project and the sweeps in a folder.

    Attributes:
        project: the project's folder.
        files: sweep files, by name; ``served`` is for the W&B server.
    """

    def __init__(self, folder: Path, size: Size) -> None:
        self.project = folder / "project"
        shutil.copytree(Path(__file__).with_name("project"), self.project)
        for name in ("slurm", "trainer.py", "environment.yml"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.project / name)
            else:
                shutil.copy(source, self.project)
        config = (ROOT / "conf" / "config.yaml").read_text()
        config = config.replace("model: dual_encoder", "model: ours")
        config = config.replace("data: digits", "data: ours")
        (self.project / "conf" / "config.yaml").write_text(config)
        seeds = {
            "ours": range(size.ours),
            "theirs": range(1000, 1000 + size.theirs),
            "served": range(2000, 2000 + size.agents),
        }
        self.files = {name: folder / f"{name}.yaml" for name in seeds}
        for name, file in self.files.items():
            kind = "theirs" if name == "theirs" else "ours"
            file.write_text(TEXT.format(name=name, kind=kind, seeds=list(seeds[name])))


def own_settings(name: str) -> tuple[str, ...]:
    """Return the settings that one sweep has and another has not."""
    return () if name == "theirs" else OURS_ONLY


def names(file: Path) -> dict[str, int]:
    """Return the seed of each trial of a sweep file, by the trial's identity."""
    return {trial.id: trial.overrides["training.seed"] for trial in load(file).trials()}
