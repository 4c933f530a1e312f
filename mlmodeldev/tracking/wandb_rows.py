"""The rows of ``metrics.csv`` in a trial's W&B run: each once, whoever sends them.

A run that is opened again says how many rows W&B has, and which is the last of them: rows of later
optimizer steps are sent. A trial that comes back writes the same rows by the same steps, bit for
bit, so what W&B has need not be sent anew. Steps are compared, not the rows' numbers: a disk that
has lost rows of ``metrics.csv`` would give later ones the numbers of those. `RunRows` is this rule;
the trial's own logger (`mlmodeldev.tracking.wandb_logger`) uses it, and so does `RunWriter`, which
writes the files of a trial without a network from another process.

Example::

    writer = RunWriter.open(folder, scratch)
    writer.catch_up()           # rows that were written since; again and again
    writer.close()              # the run stays unfinished, unless opened with the trial's end
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.tracking.metadata import (
    CHANGES,
    description,
    log_model,
    models_to_keep,
    stored_settings,
)
from mlmodeldev.tracking.wandb_api import last_row
from mlmodeldev.tracking.wandb_init import git_metadata, init_seconds, prepare_environment
from mlmodeldev.tracking.wandb_stop import STOP_NOTE
from mlmodeldev.trial.record import STEP, TIME, read_record, read_rows

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_EXIT = {None: 0, "done": 0, "pruned": 0, "interrupted": EXIT_INTERRUPTED}


@dataclass(frozen=True)
class Row:
    """A row that W&B lacks: its number there, its values, the best value of the metric so far."""

    number: int
    values: dict[str, Any]
    best: float | None


class RunRows:
    """Number the rows of a run, send those that W&B lacks, and end the run.

    Args:
        run: of `wandb.init`; its ``starting_step`` is the number of rows that W&B has.
        monitor: metric whose best value the run's summary shows; "" for none.
        mode: whether ``max`` or ``min`` of it is better.

    Attributes:
        count: rows of ``metrics.csv`` so far, which W&B has or will have.
        best: best value of the monitored metric in them.
    """

    def __init__(self, run: Any, monitor: str, mode: str) -> None:
        self.run, self.monitor, self.mode = run, monitor, mode
        self.count = 0
        self.best: float | None = None
        self._there = self._next = int(getattr(run, "starting_step", 0) or 0)
        self._last = _last_row(run) if self._there else {}
        self._passed = False

    def define_metrics(self) -> None:
        """Let W&B draw every metric over the optimizer steps."""
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP, step_sync=True)

    def unnumbered(self, file: Path) -> list[dict[str, float]]:
        """Return the rows that were written to the file since the last one that has a number."""
        return read_rows(file)[self.count :]

    def number(self, metrics: Mapping[str, Any], step: int) -> Row | None:
        """Give the next row its number; return it, or None where W&B has it already."""
        count, self.count = self.count, self.count + 1
        self._note_best(metrics)
        if self._is_there(count, metrics, step):
            return None
        number, self._next = self._next, self._next + 1
        values = {**metrics, STEP: step}
        written = values.pop(TIME, None)  # of rows that are sent later than they were written
        if written is not None:
            values["_timestamp"] = written
        return Row(number, values, self.best if self.monitor in metrics else None)

    def send(self, row: Row, media: Mapping[str, Any]) -> None:
        """Hand a row and what goes with it to the client; of a name that both have, the row's."""
        self.run.log({**media, **row.values}, step=row.number, commit=True)
        if row.best is not None:
            self.run.summary[self.monitor] = row.best

    def finish(self, state: str | None, send_extras: Callable[[], None]) -> bool:
        """End the run as its trial ended; return whether W&B has everything in time.

        An interrupted trial's run is announced as preempted, so that it is no failure.

        Args:
            state: of the trial; None: it goes on.
            send_extras: sends tables and files; not called where seconds count.
        """
        if state is not None:
            self.run.summary["state"] = state
        if state == "interrupted":
            self.run.mark_preempting()
        elif state is not None:
            send_extras()
        self.run.finish(exit_code=_EXIT.get(state, 1))
        return not getattr(self.run, "_finish_timed_out", None)

    def _is_there(self, count: int, metrics: Mapping[str, Any], step: int) -> bool:
        """Whether W&B has a row; among several of its last row's step, those up to that one."""
        last = self._last.get(STEP)
        if last is None:  # the server did not say
            return count < self._there
        if step != last:
            return bool(step < last)
        there = count < self._there and not self._passed
        self._passed = self._passed or _is_in(metrics, self._last)
        return there

    def _note_best(self, metrics: Mapping[str, Any]) -> None:
        value = metrics.get(self.monitor)
        if value is not None and not math.isnan(value):
            better = max if self.mode == "max" else min
            self.best = float(value if self.best is None else better(self.best, value))


def _last_row(run: Any) -> Mapping[str, Any]:
    """Return the last row that W&B has of a run; an empty one where the server does not say."""
    place = [getattr(run, name, None) for name in ("entity", "project", "id")]
    return last_row(*map(str, place)) if all(place) else {}


def _is_in(metrics: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a row of W&B has these values, as far as JSON can hold them."""
    numbers = {k: v for k, v in metrics.items() if k != TIME and isinstance(v, int | float)}
    return all(row.get(k) == v for k, v in numbers.items() if math.isfinite(v))


def heat_maps(folder: Path, metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the heat maps in a trial's folder of the validation whose row this is, by key."""
    epoch = int(metrics.get("epoch", -1)) + 1
    files = sorted(folder.glob(f"cka/*/epoch-{epoch:04d}.png"))
    return {f"cka/{file.parent.name}/heatmap": str(file) for file in files}


class RunWriter:
    """The run of a trial's folder, open for writing from another process.

    Args:
        run: of `wandb.init`.
        folder: the trial's.
        settings: the trial's; None: it failed before it had any.
        state: how it ended; None: it is under way.
    """

    def __init__(
        self, run: Any, folder: Path, settings: Settings | None, state: str | None = None
    ) -> None:
        self.run, self.folder, self.settings, self.state = run, folder, settings, state
        training = settings.training if settings else None
        monitor, mode = (training.monitor, training.mode) if training else ("", "max")
        self._rows = RunRows(run, monitor, mode)
        self._rows.define_metrics()

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

        prepare_environment()
        record = read_record(folder)
        began = (folder / "config.yaml").is_file()  # else it failed before it had settings
        settings = stored_settings(folder) if began else None
        chosen, sweep = settings and settings.logger.wandb, record.get("wandb_sweep")
        about = description(settings, record, sweep) if settings else {"group": sweep}
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
                init_timeout=init_seconds(),
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

    @property
    def rows(self) -> int:
        """How many rows W&B has or will have."""
        return self._rows.count

    def catch_up(self) -> int:
        """Send the rows that were written since the last call; return how many were sent."""
        sent = 0
        for metrics in self._rows.unnumbered(self.folder / "metrics.csv"):
            row = self._rows.number(metrics, int(metrics.pop("step")))
            if row is not None:
                self._rows.send(row, self._pictures(metrics))
                sent += 1
        return sent

    def close(self) -> bool:
        """End the writing; return whether W&B has it all."""
        if self.state is not None and self._rows.best is not None:
            self.run.summary[self._rows.monitor] = self._rows.best
        return self._rows.finish(self.state, self._send_extras)

    def _pictures(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        import wandb

        files = heat_maps(self.folder, metrics) if self._rows.monitor in metrics else {}
        return {key: [wandb.Image(file)] for key, file in files.items()}

    def _send_extras(self) -> None:
        import wandb

        samples, changes = self.folder / "samples.csv", self.folder / CHANGES
        if samples.is_file():
            with samples.open(encoding="utf-8", newline="") as file:
                columns, *data = csv.reader(file)
            self.run.summary["val/samples"] = wandb.Table(columns=[*columns], data=data)
        if changes.is_file():
            self.run.save(str(changes), base_path=str(self.folder), policy="now")
        if self.settings:
            for model in models_to_keep(self.settings, self.folder, str(self.state)):
                log_model(self.run, model)
