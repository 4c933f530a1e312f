"""A trial's run in W&B: the rows of ``metrics.csv``, each once, whatever interrupts the trial.

The number of a row in ``metrics.csv`` is its ``_step`` in W&B. A trial that comes back sends what
W&B lacks and leaves out what W&B has already: both were written by the same steps, bit for bit.
The same rule lets `mlmodeldev.tracking.upload` upload a trial that ran without a network.

What the training loop logs is handed to a thread, which talks to the client.

Example::

    tracker = Tracker(run, folder / "metrics.csv", monitor="val/accuracy", mode="max")
    tracker.resume_from(step=120)       # sends rows that are missing
    tracker.log_metrics({"train/loss": 0.3}, step=130)
    tracker.end("done")
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.trial.record import STEP, TIME, read_rows

EXTRA_SECONDS = 20.0
"""How long the end of a trial waits until the client has taken its tables; they are in its folder
anyway."""

_EXIT = {"done": 0, "pruned": 0, "interrupted": EXIT_INTERRUPTED}


class WandbTrialLogger(Logger):
    """Write to one W&B run.

    A failure of the client never fails the trial: it is told once, and nothing more is sent;
    ``metrics.csv`` has all rows, and the next attempt or ``sync`` sends them.

    Args:
        run: of `wandb.init`; its ``starting_step`` tells how many rows W&B has.
        file: the trial's ``metrics.csv``.
        monitor: metric whose best value the run's summary shows.
        mode: whether ``max`` or ``min`` of it is better.
    """

    def __init__(self, run: Any, file: Path, monitor: str = "", mode: str = "max") -> None:
        super().__init__()
        self.run, self.file, self.monitor, self.mode = run, file, monitor, mode
        self._next = 0
        self._there = int(getattr(run, "starting_step", 0) or 0)
        self._best: float | None = None
        self._media: dict[str, Any] = {}
        self._tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self._lost = False
        self._sender = BackgroundCalls("wandb-rows")
        with self._guarded():
            run.define_metric(STEP)
            run.define_metric("*", step_metric=STEP, step_sync=True)

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "wandb"

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self.run.id)

    @property
    def experiment(self) -> Any:
        """The run."""
        return self.run

    # --- rows

    @rank_zero_only
    def resume_from(self, step: int) -> None:
        """Send the rows of ``metrics.csv`` that W&B lacks; it was cut back to ``step`` before."""
        self.catch_up()

    def catch_up(self) -> int:
        """Send rows that were written since the last call; return how many rows there are."""
        for row in read_rows(self.file)[self._next :]:
            step = int(row.pop("step"))
            self.log_metrics(row, step)
        return self._next

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send one row, unless W&B has it."""
        number, self._next = self._next, self._next + 1
        self._see(metrics)
        if number < self._there:
            return
        media, self._media = self._media, {}
        best = self._best if self.monitor in metrics else None
        row = {**metrics, STEP: int(step or 0)}
        self._sender.do(lambda: self._send_row(number, row, media, best))

    def _send_row(
        self, number: int, row: dict[str, Any], media: dict[str, Any], best: float | None
    ) -> None:
        with self._guarded():
            logged = row.pop(TIME, None)  # of rows that are sent later than they were written
            when = {} if logged is None else {"_timestamp": logged}
            self.run.log({**row, **_pictures(media), **when}, step=number, commit=True)
            if best is not None:
                self.run.summary[self.monitor] = best

    def _see(self, metrics: Mapping[str, float]) -> None:
        value = metrics.get(self.monitor)
        if value is None or math.isnan(value):
            return
        better = max if self.mode == "max" else min
        self._best = float(value if self._best is None else better(self._best, value))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run was begun with the settings."""

    # --- pictures travel with the next row, tables come at the end

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, **options: Sequence[Any]
    ) -> None:
        """Show pictures (files or arrays) under one key, with a slider over the rows."""
        self._media[key] = (list(images), options)

    @rank_zero_only
    def log_table(
        self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None
    ) -> None:
        """Show a table, as it was last; it is sent at the end.

        The client asks the server before it sends one, and would hold the training up while the
        server is gone.
        """
        self._tables[key] = (list(columns), data)

    # --- facts and files

    @rank_zero_only
    def note(self, facts: Mapping[str, Any]) -> None:
        """Show facts among the settings, in place of those of the same name."""
        config = dict(facts)

        def send() -> None:
            with self._guarded():
                self.run.config.update(config, allow_val_change=True)

        self._sender.do(send)

    @rank_zero_only
    def keep_file(self, file: Path) -> None:
        """Show a file of the trial's folder among the run's files."""

        def send() -> None:
            with self._guarded():
                self.run.save(str(file), base_path=str(file.parent), policy="now")

        if file.is_file():
            self._sender.do(send)

    # --- the end

    @rank_zero_only
    def end(self, state: str, models: Sequence[Path] = ()) -> bool:
        """Tell how the trial ended; return whether W&B has everything.

        An interrupted trial's run is announced as preempted, so that it is no failure.

        Args:
            state: of the trial.
            models: exported folders to keep as artifacts; each one's name is its alias.
        """
        if not self._sender.drain(_patience()):
            self._lost = True
        with self._guarded():
            for key, value in _pictures(self._media).items():
                self.run.summary[key] = value
            self.run.summary["state"] = state
            if state == "interrupted":  # then seconds count
                self.run.mark_preempting()
            else:
                self._send_extras(models)
            self.run.finish(exit_code=_EXIT.get(state, 1))
        return not self._lost and not getattr(self.run, "_finish_timed_out", None)

    def _send_extras(self, models: Sequence[Path]) -> None:
        """Send what the client asks the server about before it takes it."""

        def send() -> None:
            import wandb

            from mlmodeldev.tracking.metadata import log_model

            with contextlib.suppress(Exception):
                for key, (columns, data) in self._tables.items():
                    self.run.summary[key] = wandb.Table(columns=[*columns], data=data)
                for folder in models:
                    log_model(self.run, folder)

        if self._tables or models:
            self._sender.do(send)
            self._sender.drain(min(EXTRA_SECONDS, _patience()))

    @contextlib.contextmanager
    def _guarded(self) -> Any:
        """Go on without W&B when its client fails: it may be killed, or its disk full."""
        if self._lost:
            with contextlib.suppress(Exception):
                yield
            return
        try:
            yield
        except Exception as error:
            self._lost = True
            print(
                f"Weights & Biases: gone ({type(error).__name__}: {error}); training goes on,"
                " 'python slurm/SlurmTrain.py sync' uploads the rest",
                file=sys.stderr,
            )


def _patience() -> float:
    """Return how many seconds the end of a trial may wait for the client."""
    return float(os.environ.get("WANDB_FINISH_TIMEOUT") or 60)


def _pictures(media: Mapping[str, Any]) -> dict[str, Any]:
    import wandb

    return {
        key: [
            wandb.Image(image, **{name: values[number] for name, values in options.items()})
            for number, image in enumerate(images)
        ]
        for key, (images, options) in media.items()
    }


Call = Callable[[], None]


class BackgroundCalls:
    """Make calls one after the other, in the order in which they came.

    Args:
        name: of the thread, which starts with the first call.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, call: Call) -> None:
        """Hand over a call, which must not raise."""
        if self._thread is None:
            # a daemon: a client that hangs must not keep a trial that has ended
            self._thread = threading.Thread(target=self._work, daemon=True, name=self._name)
            self._thread.start()
        self._calls.put(call)

    def drain(self, seconds: float) -> bool:
        """Wait until all calls so far have been made; return whether they were in time."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._calls.put(done.set)
        return done.wait(seconds)

    def _work(self) -> None:
        while True:
            self._calls.get()()
