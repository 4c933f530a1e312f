"""A trial's side of the tests: what is changed in its process before it begins."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.tracking.trackers.shown import Entrance

before_kill: list[Callable[[Any], None]] = []
"""Called with the Trainer before the process kills itself."""

PICTURE = "mine/picture"


def prepare(entrances: list[Entrance], kill_at: int | None, end: str) -> None:
    """Prepare the process of a trial.

    Args:
        entrances: of the trackers.
        kill_at: number of the call of ``training_step`` in which it will be killed.
        end: ``done``, or how the trial is to end in its first validation: failed, pruned; or
            killed, after its first validation and before the checkpoint that follows.
    """
    import model

    for function, arguments in entrances:
        function(*arguments)
    ends = ENDS.get(end)

    def draw_and_end(self: Any) -> None:
        draw(self)
        if ends is not None:
            ends(self)

    model.DualEncoder.on_validation_epoch_end = draw_and_end  # type: ignore[method-assign]
    if end == "killed":
        model.DualEncoder.on_train_epoch_end = kill  # type: ignore[method-assign]
    if kill_at is not None:
        _wait_before(kill_at)


def draw(module: Any) -> None:
    """A model's own picture."""
    drawn = np.full((6, 8, 3), 10 * module.trainer.current_epoch, dtype=np.uint8)
    for logger in module.loggers:
        logger.log_image(PICTURE, [drawn])


def fail(module: Any) -> None:
    raise RuntimeError("out of luck")


def prune(module: Any) -> None:
    from mlmodeldev.trial import signals

    signals.ask_to_stop("the test")


ENDS: dict[str, Callable[[Any], None]] = {"failed": fail, "pruned": prune}


def _wait_before(call: int) -> None:
    """Let the trackers send all they have before the process is killed."""
    import model

    step, calls = model.DualEncoder.training_step, 0

    def wait_and_step(self: Any, batch: Any, batch_idx: int) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            _send_all(self.trainer)
        return step(self, batch, batch_idx)

    model.DualEncoder.training_step = wait_and_step  # type: ignore[method-assign]


def kill(module: Any) -> None:
    """Kill this process, after the trackers have sent all they have."""
    _send_all(module.trainer)
    os.kill(os.getpid(), signal.SIGKILL)


def _send_all(trainer: Any) -> None:
    for logger in trainer.loggers:
        if hasattr(logger, "_background"):
            logger._background.drain(60)
    for wait in before_kill:
        wait(trainer)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def children(name: str, parent: int | None = None) -> Iterator[int]:
    """Yield this process's descendants of a program's name."""
    parent = parent or os.getpid()
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            comm, _, rest = file.read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        if int(rest.split()[1]) == parent:
            pid = int(file.parent.name)
            yield from children(name, pid)
            if comm == name:
                yield pid
