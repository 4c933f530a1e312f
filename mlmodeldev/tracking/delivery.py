"""A tracker's logger that hands all to a thread, which sends what has gathered every few seconds.

A call costs a server some milliseconds, whether it brings one value or a thousand. What can't be
sent waits, and is sent again; rows that would be too many to keep lie in ``metrics.csv``.

Example::

    class MyLogger(DeliveringLogger[MyRun]):    # says how a run is opened, and takes rows
        ...
    tracker = MyLogger(settings, folder)
    tracker.resume_from(step=120)               # sends rows that are missing
    tracker.log_metrics({"train/loss": 0.3}, step=130)
    tracker.end("done", [folder.path / "best"])
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from mlmodeldev.lease import LostLease
from mlmodeldev.secrets import masked
from mlmodeldev.tracking.background import BackgroundCalls
from mlmodeldev.tracking.timed_rows import TimedRow, last_step, rows_of

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

AFTERWARDS = "training goes on, and it is tried again"

_PASSWORD = re.compile(r"//[^/@\s]*@")

R = TypeVar("R")
"""A tracker's open run."""


@dataclass(frozen=True)
class Pace:
    """How long is waited for what.

    Attributes:
        gather: seconds that rows gather before they are sent together.
        retry: seconds after a failure, until the tracker is tried again.
        open: seconds that the start of a trial waits; later the thread goes on trying.
        finish: seconds that the end of a trial waits.
        leave: the same where the trial is interrupted, and will come back.
        most_waiting: rows kept in memory while the tracker is away; older ones are read from
            ``metrics.csv`` again.
    """

    gather: float
    retry: float
    open: float
    finish: float
    leave: float
    most_waiting: int


class DeliveringLogger(Logger, Generic[R]):
    """Write to one run of a tracker, whose failure never fails the trial.

    It is a warning, once, and the tracker is tried again later. What is missing at the end, the
    next attempt or ``sync`` sends.

    Args:
        settings: the trial's.
        folder: the trial's.
        afterwards: what the warning says of what happens then.
    """

    title = ""
    """The tracker's name, as warnings have it."""
    uploaded_entry = ""
    """Name in ``trial.json`` of whether the tracker has everything."""

    def __init__(
        self, settings: Settings, folder: TrialFolder, afterwards: str = AFTERWARDS
    ) -> None:
        super().__init__()
        self._afterwards = afterwards
        self.settings, self.folder = settings, folder
        self._run: R | None = None
        self._lock = threading.Lock()
        self._rows: list[TimedRow] = []
        self._from_file_before: float | None = None
        self._unsent: list[Callable[[R], None]] = self._first_things()
        self._tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self._step, self._retry_at = 0, 0.0
        self._failed = self._warned = self._taken_over = self._complete = False
        self._gathering = False
        self._hurry = threading.Event()
        self._background = BackgroundCalls(f"{self.name}-rows")
        self._background.add(self._deliver)
        if not self._background.drain(self._pace.open):
            self._note_slow_start()

    # --- what a tracker is

    @property
    @abstractmethod
    def _pace(self) -> Pace:
        """How long is waited for what."""

    @abstractmethod
    def _open(self) -> R:
        """Return the trial's run; whatever it raises is tried again."""

    @abstractmethod
    def _send(self, run: R, rows: Sequence[TimedRow]) -> None:
        """Send what the run lacks of rows, which are in the order of their steps."""

    @abstractmethod
    def _last_things(self, state: str, models: Sequence[Path]) -> list[Callable[[R], None]]:
        """Return what else is sent when the trial has ended, the end itself last."""

    def _first_things(self) -> list[Callable[[R], None]]:
        """Return what is sent first."""
        return []

    def _refresh(self, run: R) -> None:
        """Look what the run has, after anything went wrong."""

    def _note_slow_start(self) -> None:
        """Do what there is to do where the run is not open when the start goes on."""

    def _is_away(self, error: Exception) -> bool:
        """Return whether an error says no more than that no server answers."""
        return False

    def _cause(self, error: Exception) -> str:
        """Return what an error says is the matter."""
        return next(iter(str(error).strip().splitlines()), "")

    # --- what training calls

    @rank_zero_only
    def resume_from(self, step: float) -> None:
        """Send the rows of ``metrics.csv`` before ``step`` that the tracker lacks.

        Args:
            step: where training goes on; infinity: the trial has ended, and all rows count.
        """
        with self._lock:
            self._from_file_before = step
        self._step = last_step(self._file, step)  # of what is sent now: a bound is no step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take one row, to be sent unless the tracker has it."""
        self._step = int(step or 0)
        row = TimedRow(dict(metrics), self._step, int(1000 * time.time()))
        with self._lock:
            self._rows.append(row)
            self._shorten()
            gathering, self._gathering = self._gathering, True
        if not gathering:
            self._background.add(self._gather)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run was begun with the settings."""

    @rank_zero_only
    def log_table(
        self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None
    ) -> None:
        """Keep a table, as it was last; it is sent at the end."""
        self._tables[key] = (list(columns), data)

    @rank_zero_only
    def end(self, state: str, models: Sequence[Path] = ()) -> bool:
        """Tell how the trial ended; return whether the tracker has everything.

        Args:
            state: of the trial.
            models: exported folders to keep, by the folders' names.
        """
        self._hurry.set()
        self._background.add(partial(self._end, state, [*models]))
        pace = self._pace
        seconds = min(pace.finish, pace.leave) if state == "interrupted" else pace.finish
        late = self._wait(seconds)
        if late:
            self._warn(late)
        return not late and self._complete

    def warn(self, error: Exception) -> None:
        """Say once what the tracker is not able to do."""
        cause = self._cause(error)
        self._warn(cause if self._is_away(error) else f"{type(error).__name__}: {cause}")

    @property
    def _file(self) -> Path:
        """The trial's rows."""
        return self.folder.path / "metrics.csv"

    def _wait(self, seconds: float) -> str:
        """Wait for the thread; return why it is waited no longer, empty: all was sent."""
        in_time = self._background.drain(max(0.0, seconds))
        return "" if in_time else f"not all of them within {seconds:.0f} s"

    # --- the thread's

    def _end(self, state: str, models: Sequence[Path]) -> None:
        self._retry_at = 0.0
        self._unsent += self._last_things(state, models)
        self._deliver()
        self._complete = not (self._failed or self._taken_over)

    def _add(self, sending: Callable[[R], None]) -> None:
        def work() -> None:
            self._unsent.append(sending)
            self._deliver()

        self._background.add(work)

    def _gather(self) -> None:
        self._hurry.wait(self._pace.gather)
        with self._lock:
            self._gathering = False
        self._deliver()

    def _deliver(self) -> None:
        """Send all that waits; what can't be sent waits on."""
        if self._taken_over or time.monotonic() < self._retry_at:
            return
        failed, self._failed = self._failed, False
        try:
            self.folder.check_owner()
            if self._run is None:
                self._run = self._open()
            elif failed:
                self._refresh(self._run)
            self._send_rows(self._run)
        except LostLease:
            self._taken_over = True  # a later attempt sends these rows, which it makes as well
            return
        except Exception as error:
            self._note_failure(error)
            return
        sendings, self._unsent = self._unsent, []
        for sending in sendings:
            try:
                sending(self._run)
            except Exception as error:  # one file's trouble is not the others'
                self._unsent.append(sending)
                self._note_failure(error)

    def _send_rows(self, run: R) -> None:
        with self._lock:
            rows, self._rows = self._rows, []
            before, self._from_file_before = self._from_file_before, None
        try:
            of_file = rows_of(self._file, before) if before else []
            self._send(run, [*of_file, *rows])
        except BaseException:
            with self._lock:
                if self._from_file_before is None:
                    self._from_file_before = before
                self._rows[:0] = rows
                self._shorten()
            raise

    def _shorten(self) -> None:
        """Keep as many rows in memory as there may be; older ones lie in the file."""
        most = self._pace.most_waiting
        if len(self._rows) > most:
            del self._rows[: -most // 2]
            self._from_file_before = math.inf

    def _note_failure(self, error: Exception) -> None:
        self._failed = True
        self._retry_at = time.monotonic() + self._pace.retry
        self.warn(error)

    def _warn(self, reason: str) -> None:
        """Say once that the tracker is away, and why."""
        if self._warned:
            return
        self._warned = True
        text = masked(_PASSWORD.sub("//***@", reason), 300)
        print(
            f"{self.title}: does not take the trial's rows ({text}); {self._afterwards}",
            file=sys.stderr,
        )
