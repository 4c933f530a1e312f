"""Train one trial: settings -> data, model, callbacks -> fit or resume -> test -> export.

    python trainer.py                                  the bundled digits, on whatever is here
    python trainer.py training.max_epochs=5 optimizer.lr=0.001
    python trainer.py -m optimizer.lr=0.001,0.003      several trials, one after the other
    python trainer.py --help                           all settings

The last line printed is the trial's folder. Started again after an interruption, a trial goes on
where it was and ends with the same weights, bit for bit. Exit status: 0 done, 2 bad input, 75
interrupted, 1 failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hydra

from mlmodeldev.settings.command_line import call, run

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlmodeldev.settings import Settings


@dataclass
class Result:
    """What a trial came to."""

    folder: Path
    state: str
    metric: float | None


def train(settings: Settings) -> Result:
    """Train, or go on training, the trial that these settings describe.

    Raises:
        UsageError: bad settings, or a folder that can't be used.
        TrialInterrupted: a signal asked for an end; the state is saved.
    """
    from mlmodeldev.training.ranks import join
    from mlmodeldev.training.session import begin
    from mlmodeldev.trial import signals

    signals.listen()
    world = join(settings)
    with begin(settings, world) as trial:
        if trial.done:
            return Result(trial.folder.path, "done", trial.best)

        # What takes seconds to import comes after all that can be refused at once.
        from mlmodeldev.callbacks.stack import make_callbacks
        from mlmodeldev.tracking.loggers import make_loggers
        from mlmodeldev.training import build
        from mlmodeldev.training.quiet import quiet
        from mlmodeldev.training.trainer import make_trainer

        quiet()
        data = build.datamodule(settings, world)
        model = build.model(settings, data)
        loggers = make_loggers(settings, trial.folder, world.is_rank_zero)
        arguments = build.model_arguments(settings, data)
        callbacks = make_callbacks(settings, trial.folder, model, arguments)
        trainer = make_trainer(settings, world, loggers, callbacks, trial.folder.path)

        trial.fit(trainer, model, data)
        trial.test(trainer, model, data)
    return Result(trial.folder.path, trial.state, trial.best)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Compose and check the settings, train, print the folder."""
    print(call(train, config).folder)


if __name__ == "__main__":
    run(main, train)
