"""The warning of a GPU that has little to do: sites cancel such jobs.

Example::

    watch = IdleGpu(wait_share=lambda: 0.7, workers=lambda: 0)
    watch.line(uses=[0.02, 0.05], seconds=300)
    # "the GPU was 4 % busy in the first 5 minutes of training ..."
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlmodeldev.machine import cores

IDLE_MINUTES = 5.0
"""Of training, after which a GPU is judged."""
IDLE_SHARE = 0.10
"""A GPU that is busy for less of the time is idle."""
WAITING_SHARE = 0.25
"""Where training waits for data for more of the time, that is the cause."""


@dataclass
class IdleGpu:
    """Judge a GPU's first minutes, once.

    Attributes:
        wait_share: returns which share of the time training has waited for data; None: not
            measured.
        workers: returns how many processes load data; None: that is not to be had.
        trials_per_gpu: trials at once on the GPU, ``cluster.trials_per_gpu``.
        minutes: of training that are judged.
    """

    wait_share: Callable[[], float | None]
    workers: Callable[[], int | None] = lambda: None
    trials_per_gpu: int = 1
    minutes: float = IDLE_MINUTES
    _is_over: bool = False

    def line(self, uses: Sequence[float], seconds: float) -> str | None:
        """Return the warning when it is due.

        Args:
            uses: the GPU's, 0 to 1, sampled since training began.
            seconds: since then.
        """
        if self._is_over or not uses or seconds < 60 * self.minutes:
            return None
        self._is_over = True
        mean = sum(uses) / len(uses)
        if mean >= IDLE_SHARE:
            return None
        return (
            f"the GPU was {100 * mean:.0f} % busy in the first {seconds / 60:.0f} minutes of"
            f" training, and sites cancel such jobs: {self._cause()}"
        )

    def _cause(self) -> str:
        waited = self.wait_share()
        more = self.trials_per_gpu + 1
        if waited is None:
            return (
                "raise processing.num_workers if it waits for data (callbacks.throughput measures"
                f" that), else run several trials on it: cluster.trials_per_gpu={more}"
            )
        share = f"{100 * waited:.0f} % of the time"
        if waited <= WAITING_SHARE:
            return (
                f"it waited for data only {share}, so its steps are small; a larger"
                f" processing.batch_size, or several trials on it: cluster.trials_per_gpu={more}"
            )
        workers = self.workers()
        if workers is None:
            return f"it waited for data {share}; let more processes load them (num_workers)"
        if workers < cores():
            return (
                f"it waited for data {share}; let more processes load them:"
                f" processing.num_workers={min(cores(), max(2, 2 * workers))} (now {workers})"
            )
        return (
            f"it waited for data {share}, with {workers} loader processes on {cores()} cores;"
            " ask for more cores: cluster.cpus_per_task, then processing.num_workers"
        )
