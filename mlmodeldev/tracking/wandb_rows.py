"""A trial's files written to its W&B run by another process: each row once.

The number of a row in ``metrics.csv`` is its ``_step`` (`mlmodeldev.tracking.wandb_logger`). A
run that is opened again tells how many rows W&B has, and only the rest is sent.

Example::

    replay = Replay.open(folder, scratch)
    replay.catch_up()           # rows that were written since; again and again
    replay.close()              # the run stays unfinished, unless opened with the trial's end
"""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.tracking.metadata import CHANGES, description, log_model, models_to_keep
from mlmodeldev.tracking.wandb_stop import STOP_NOTE
from mlmodeldev.trial.record import STEP, TIME, read_rows

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_EXIT = {"done": 0, "pruned": 0, "interrupted": EXIT_INTERRUPTED}


class RunWriter:
    """One run that is open for writing.

    Args:
        run: of `wandb.init`.
        folder: the trial's.
        settings: the trial's; None: it failed before it had any.
        state: how it ended; None: it is under way.

    Attributes:
        rows: rows that W&B has or will have; ``sent``: how many of them are this process's.
    """

    def __init__(
        self, run: Any, folder: Path, settings: Settings | None, state: str | None = None
    ) -> None:
        self.run, self.folder, self.settings, self.state = run, folder, settings, state
        training = settings.training if settings else None
        self.monitor, self.mode = (training.monitor, training.mode) if training else ("", "max")
        self.rows = self.sent = 0
        self._there = int(getattr(run, "starting_step", 0) or 0)
        self._best: float | None = None
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)

    @classmethod
    def open(cls, folder: Path, scratch: Path, state: str | None = None) -> RunWriter:
        """Open the run of a trial's folder.

        Args:
            state: how the trial ended: closing tells so; None: it is under way.
            scratch: where the client keeps its files.

        Raises:
            UsageError: the folder's settings can't be read.
            wandb.errors.Error: the server is not there, or refuses.
        """
        import wandb

        from mlmodeldev.tracking.wandb_init import INIT_SECONDS, git_metadata, prepare_environment

        prepare_environment()
        record = stored_record(folder)
        began = (folder / "config.yaml").is_file()  # else it failed before it had settings
        settings = stored_settings(folder) if began else None
        chosen, sweep = settings and settings.logger.wandb, record.get("wandb_sweep")
        about: dict[str, Any] = {"group": sweep}
        if settings:
            about = description(settings, record, sweep)
        run = wandb.init(
            **about,
            id=record["wandb_id"],
            entity=record.get("wandb_entity") or (chosen.entity if chosen else None),
            project=record.get("wandb_project") or (chosen.project if chosen else None),
            resume="allow",
            mode="online",
            dir=str(scratch),
            settings=wandb.Settings(
                sweep_id=sweep,
                reinit="create_new",  # many runs at once in one process
                console="off",
                silent=True,
                init_timeout=INIT_SECONDS,
                stop_fn=(folder / STOP_NOTE).touch,  # "stop" in W&B reaches the trial
                x_update_finish_state=state is not None,
                # what this process and its machine are says nothing of the trial
                x_disable_stats=True,
                x_disable_meta=True,
                **git_metadata(record),
                disable_code=True,
                x_save_requirements=False,
            ),
        )
        # the client names its service to child processes, which must not share this one's
        os.environ.pop("WANDB_SERVICE", None)
        return cls(run, folder, settings, state)

    def catch_up(self) -> int:
        """Send the rows that were written since the last call; return how many were sent."""
        before = self.sent
        for number, row in enumerate(read_rows(self.folder / "metrics.csv")):
            if number < self.rows:
                continue
            self.rows = number + 1
            self._see(row)
            if number >= self._there:
                self._send(number, row)
        return self.sent - before

    def _send(self, number: int, row: dict[str, float]) -> None:
        step, logged = int(row.pop("step")), row.pop(TIME, None)
        when = {} if logged is None else {"_timestamp": logged}
        media = self._pictures(int(row.get("epoch", -1)) + 1) if self.monitor in row else {}
        self.run.log({**row, **media, **when, STEP: step}, step=number, commit=True)
        self.sent += 1
        if self.monitor in row and self._best is not None:
            self.run.summary[self.monitor] = self._best

    def _see(self, row: dict[str, float]) -> None:
        value = row.get(self.monitor)
        if value is not None and not math.isnan(value):
            better = max if self.mode == "max" else min
            self._best = value if self._best is None else better(self._best, value)

    def _pictures(self, epoch: int) -> dict[str, Any]:
        import wandb

        return {
            f"cka/{file.parent.name}/heatmap": [wandb.Image(str(file))]
            for file in sorted(self.folder.glob(f"cka/*/epoch-{epoch:04d}.png"))
        }

    def close(self) -> bool:
        """End the writing; return whether W&B has it all."""
        if self.state is not None:
            self.run.summary["state"] = self.state
            if self._best is not None:
                self.run.summary[self.monitor] = self._best
        if self.state == "interrupted":
            self.run.mark_preempting()
        elif self.state is not None:
            self._log_samples()
            self._log_files()
        self.run.finish(exit_code=_EXIT.get(self.state or "done", 1))
        return not getattr(self.run, "_finish_timed_out", False)

    def _log_samples(self) -> None:
        import wandb

        file = self.folder / "samples.csv"
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as opened:
                columns, *data = csv.reader(opened)
            self.run.summary["val/samples"] = wandb.Table(columns=[*columns], data=data)

    def _log_files(self) -> None:
        changes = self.folder / CHANGES
        if changes.is_file():
            self.run.save(str(changes), base_path=str(self.folder), policy="now")
        if self.settings:
            for model in models_to_keep(self.settings, self.folder, str(self.state)):
                log_model(self.run, model)


def stored_settings(folder: Path) -> Settings:
    """Return the settings of a trial's folder.

    Raises:
        UsageError: there are none, or of another version.
    """
    from pydantic import ValidationError

    from mlmodeldev.errors import UsageError
    from mlmodeldev.settings.schema import Settings

    try:
        return Settings.model_validate(read_yaml(folder / "config.yaml"))
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(f"{folder / 'config.yaml'}: {str(error).splitlines()[0]}") from None


def read_yaml(file: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        OSError: it can't be read.
        ValueError: it is no YAML.
    """
    import yaml

    try:
        return yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML: {error}") from None


def stored_record(folder: Path) -> dict[str, Any]:
    """Return a trial's record; an empty one where there is none to be read."""
    try:
        record = json.loads((folder / "trial.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
