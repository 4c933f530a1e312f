"""What an attempt uses: a light sampler in a thread of the trial's first process.

Every ten seconds it reads the CPU time and the memory of the trial's processes on this node, how
busy the GPU is and how much of it torch has taken. The sums and peaks of all attempts are the entry
``usage`` of the record, written with each renewal of the lease and when the attempt ends; of one
that is killed, what came after the last renewal is lost.

Example::

    sampler = UsageSampler(former=record.get("usage"))
    sampler.start()
    ...
    sampler.stop()
    sampler.entry()
    # {"seconds": 812.4, "cpu_seconds": 1490.2, "memory_gib": 2.31, "gpu_memory_gib": 11.2,
    #  "gpu_gib": 79.1, "gpu_use": 0.71, "gpu_samples": 81, "samples": 82, "cores": 4}

``cores`` is what the processes of the node may use, ``memory_given_gib`` what Slurm gives them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from mlmodeldev.machine import cores
from mlmodeldev.trial.gpu_use import GpuUse
from mlmodeldev.trial.idle_gpu import IdleGpu
from mlmodeldev.trial.process_use import ProcessUse

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
"""Between two samples, at least."""
COST = 1000
"""And at least so many times the CPU time that one took, of memory (many pages) and of the rest
each: all in all no more than 0.2 % of a core, whatever the trial is like."""

_SUMS = ("seconds", "cpu_seconds", "samples", "gpu_samples")
_PEAKS = ("memory_gib", "gpu_memory_gib", "gpu_gib", "cores", "memory_given_gib")


class UsageSampler:
    """Sample until stopped; whatever goes wrong is no error of the trial.

    Args:
        former: the entry of the attempts before, to which this one's is added.
        ranks: of the trial on this node that this process has not started itself, it included.
        clock: tells seconds.
    """

    def __init__(
        self,
        former: Mapping[str, Any] | None = None,
        ranks: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._former = dict(former or {})
        self._clock = clock
        self._processes = ProcessUse(ranks)
        self._begin = self._last = clock()
        self._training_since = 0.0
        self._cpu_seconds = self._memory = self._gpu_memory = self._gpu_size = 0.0
        self._samples = 0
        self._gpu_uses: list[float] = []
        self._idle: IdleGpu | None = None
        self._gpu: GpuUse | None = None
        self._wait, self._memory_due = EVERY_SECONDS, 0.0
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def watch(self, gpu: GpuUse, idle: IdleGpu | None = None) -> None:
        """Sample this GPU from now on: training begins.

        Args:
            gpu: which.
            idle: judges its first minutes.
        """
        with self._lock:
            self._gpu, self._idle = gpu, idle
            self._training_since = self._clock()

    def stop(self) -> None:
        """End sampling, for good."""
        self._end.set()
        with contextlib.suppress(Exception):
            if self._gpu is not None:
                self._gpu.close()

    def sample(self, last: bool = False) -> None:
        """Take a sample now, unless one is under way.

        Args:
            last: whether memory is looked at in any case.
        """
        if not self._lock.acquire(timeout=1.0):
            return
        try:
            begun = time.thread_time()
            self._take()
            self._wait = max(EVERY_SECONDS, COST * (time.thread_time() - begun))
            if last or self._last >= self._memory_due:
                begun = time.thread_time()
                self._memory = max(self._memory, self._processes.memory().peak_gib)
                self._memory_due = self._last + COST * (time.thread_time() - begun)
        except Exception as error:  # a trial never fails of being watched
            log.debug("no sample of what the trial uses: %s", error)
        finally:
            self._lock.release()

    def entry(self, last: bool = False) -> dict[str, Any]:
        """Return the record's entry as it is now, this attempt's part added to the former.

        Args:
            last: whether to take a sample first.
        """
        if last:
            self.sample(last)
        own: dict[str, Any] = {
            "seconds": round(self._last - self._begin, 3),
            "cpu_seconds": round(self._cpu_seconds, 3),
            "memory_gib": round(self._memory, 4),
            "samples": self._samples,
            "cores": _cores_given(),
            "memory_given_gib": _memory_given(),
        }
        if self._gpu_memory:
            own["gpu_memory_gib"] = round(self._gpu_memory, 4)
            own["gpu_gib"] = round(self._gpu_size, 4)
        if self._gpu_uses:
            own["gpu_use"] = round(sum(self._gpu_uses) / len(self._gpu_uses), 4)
            own["gpu_samples"] = len(self._gpu_uses)
        return merged(self._former, {k: v for k, v in own.items() if v is not None})

    # --- parts

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the trial's
        while not self._end.wait(self._wait):
            self.sample()

    def _take(self) -> None:
        seconds = self._processes.cpu_seconds()
        self._last = self._clock()
        self._cpu_seconds = max(self._cpu_seconds, seconds)
        self._samples += 1
        if self._gpu is None:
            return
        self._gpu_memory = max(self._gpu_memory, self._gpu.memory_gib() or 0.0)
        self._gpu_size = self._gpu_size or self._gpu.size_gib() or 0.0
        use = None if self._end.is_set() else self._gpu.use()
        if use is not None:
            self._gpu_uses.append(use)
            self._warn()

    def _warn(self) -> None:
        """Say once, where the trial prints, that its GPU has little to do."""
        seconds = self._last - self._training_since
        line = self._idle.line(self._gpu_uses, seconds) if self._idle else None
        if line:
            print(f"warning: {line}", file=sys.stderr, flush=True)


def merged(former: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Add an attempt's entry to that of the attempts before: sums add, of peaks the higher counts.

    >>> merged({"seconds": 10.0, "memory_gib": 2.0}, {"seconds": 5.0, "memory_gib": 1.5})
    {'seconds': 15.0, 'memory_gib': 2.0}
    """
    entry = {**former, **own}
    for name in entry.keys() & former.keys() & own.keys():
        if name in _SUMS:
            entry[name] = round(former[name] + own[name], 3)
        elif name in _PEAKS:
            entry[name] = max(former[name], own[name])
    if "gpu_use" in former and "gpu_use" in own:
        counts = former["gpu_samples"], own["gpu_samples"]
        total = former["gpu_use"] * counts[0] + own["gpu_use"] * counts[1]
        entry["gpu_use"] = round(total / sum(counts), 4)
    return entry


def _cores_given() -> int:
    """Return the cores that the job has on this node; without one, those of this process."""
    with contextlib.suppress(KeyError, ValueError):
        return int(os.environ["SLURM_CPUS_ON_NODE"])
    return cores()


def _memory_given() -> float | None:
    """Return the GiB that the job has on this node; None: Slurm does not say."""
    try:
        return round(int(os.environ["SLURM_MEM_PER_NODE"]) / 1024, 4)
    except (KeyError, ValueError):
        return None
