"""What a pool runs: a trial, how it ended, and the source that gives trials.

Example::

    class Draws:                                    # a source
        def take(self): return TrialTask(...)       # or WAIT, or None
        def report(self, work, ended): ...
        def tick(self): ...
"""

from __future__ import annotations

import enum
import functools
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlmodeldev.errors import UsageError


@dataclass(frozen=True)
class TrialTask:
    """One trial to run.

    Attributes:
        id: its identity, or any name that is its own.
        folder: the trial's folder; its output goes to ``log.txt`` in it.
        overrides: as on the command line of trainer.py; they must name the folder.
        program: module that has ``train(settings)``.
        command: run this command line as a process of its own instead of a fork.
        foreign: the command keeps no ``trial.json``: the pool claims the folder and writes there
            how it ended.
        stop_file: a foreign program is ended for good when this file appears.
        environment: variables of this trial alone.
        telling: signal that asks the command to save and end; ``srun`` kills its tasks on SIGTERM,
            but hands SIGUSR1 on.
        tag: whatever the source wants to find again.
    """

    id: str
    folder: Path
    overrides: Sequence[str] = ()
    program: str = "trainer"
    command: Sequence[str] | None = None
    foreign: bool = False
    stop_file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    telling: int = signal.SIGTERM
    tag: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class TrialResult:
    """How a trial's process ended.

    Attributes:
        status: exit status; negative: the signal that killed it.
        state: the trial's state after it: done, pruned, interrupted or failed.
        reason: why, in words; None if it is done.
        seconds: how long it ran.
        goes_on: whether it was ended because it hung, and is to be started again at once.
    """

    status: int
    state: str
    reason: str | None
    seconds: float
    goes_on: bool = False


class Wait(enum.Enum):
    """What a source says that has nothing to run now, but may have soon."""

    WAIT = enum.auto()


WAIT = Wait.WAIT


class Source(Protocol):
    """Where the pool's trials come from, and what takes note of how they ended."""

    def take(self) -> TrialTask | Wait | None:
        """Return the next trial; WAIT if there may be one soon; None at the end."""

    def report(self, work: TrialTask, ended: TrialResult) -> str | None:
        """Take note of how a trial ended.

        Returns:
            What counts instead of `TrialResult.state` for the pool's exit status, such as
            ``pending`` for a trial that was killed and goes on later; None: the state itself.
        """

    def tick(self) -> None:
        """Do what is due from time to time, such as renewing a lease; called every few seconds."""


def fill(source: Source, room: Callable[[], bool], begin: Callable[[TrialTask], None]) -> bool:
    """Begin a source's trials while there is room; return whether it has or may have more."""
    while room():
        work = source.take()
        if work is None:
            return False
        if not isinstance(work, TrialTask):
            break  # WAIT
        begin(work)
    return True


class ListSource:
    """The source of an enumeration: these trials, one after the other."""

    def __init__(self, work: Iterable[TrialTask]) -> None:
        self._ahead = iter(work)
        self.ended: list[tuple[TrialTask, TrialResult]] = []
        """What ran, and how it ended."""

    def take(self) -> TrialTask | Wait | None:
        return next(self._ahead, None)

    def report(self, work: TrialTask, ended: TrialResult) -> str | None:
        self.ended.append((work, ended))
        return None

    def tick(self) -> None:
        """A list has nothing to renew."""


ALONE: dict[str, tuple[Any, ...]] = {
    "training.devices": ("auto", 1),
    "training.num_nodes": ("auto", 1),
    "training.strategy": ("auto",),
}
"""Settings of a trial that a fork can train; any other value needs a process of its own."""


def own_command(work: TrialTask, root: Path) -> list[str] | None:
    """Return the command line of a trial that needs a process of its own; None for a fork.

    Args:
        work: the trial.
        root: the folder that its program lies in.
    """
    if not needs_processes(work.overrides):
        return None
    program = root / Path(*work.program.split(".")).with_suffix(".py")
    return [sys.executable, str(program), *work.overrides]


def needs_processes(overrides: Sequence[str]) -> bool:
    """Return whether a trial of these overrides is one of several processes."""
    chosen = tuple(item for item in overrides if "." not in item.partition("=")[0])
    values = {**_chosen(chosen), **_given(overrides)}
    return any(values[key] not in alone for key, alone in ALONE.items())


def _given(overrides: Sequence[str]) -> dict[str, Any]:
    from mlmodeldev.settings.overrides import parse_overrides

    named = [item for item in overrides if item.lstrip("+").partition("=")[0] in ALONE]
    try:
        return parse_overrides(named) if named else {}
    except UsageError:
        return {}  # what is wrong with it the trial will say


@functools.lru_cache(maxsize=32)
def _chosen(groups: tuple[str, ...]) -> dict[str, Any]:
    """Return what the chosen files of ``conf/`` say, such as ``experiment=NAME``."""
    from mlmodeldev.settings.composition import compose_settings

    try:
        training = compose_settings(groups, partial=True).training
    except UsageError:
        return dict.fromkeys(ALONE, "auto")
    return {key: getattr(training, key.rpartition(".")[2]) for key in ALONE}
