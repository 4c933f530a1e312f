"""What the monkey can do: a table of faults, each by name, and those that kill processes.

A fault does something to the scene by a random draw and returns in words to what; None where there
is nothing to do it to for the moment. What must end again goes to ``undo``.

Example::

    text = FAULTS["kill trial"](scene, draw, undo)
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from mlmodeldev.lease import start_ticks
from tests.chaos.scene import Scene

Undo = Callable[[float, Callable[[], Any]], None]
"""Takes seconds, and what to do after them."""
Fault = Callable[[Scene, Random, Undo], str | None]
FAULTS: dict[str, Fault] = {}
"""By name; other modules add theirs (`tests.chaos.monkey` imports them all)."""
WORKER = r"^\S*python\S* -u -m mlmodeldev\.slurm\.entrypoint"
AGENT = r"^\S*python\S* -m mlmodeldev\.slurm\.agent "


def fault(name: str) -> Callable[[Fault], Fault]:
    """Enter a function in the table."""

    def enter(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return enter


def running_trials(scene: Scene) -> list[tuple[Path, int]]:
    """Return the folders of trials whose process lives, with the process."""
    result = []
    for folder, record in scene.records():
        owner = record.get("owner") or {}
        pid = owner.get("pid")
        if record.get("state") == "running" and pid and start_ticks(pid) == owner.get("started"):
            result.append((folder, int(pid)))
    return result


def short(folder: Path) -> str:
    """Return a trial's name for the log of actions."""
    return f"{folder.parent.name}/{folder.name}"


@fault("kill -9 of a trial")
def kill_trial(scene: Scene, draw: Random, undo: Undo) -> str | None:
    trials = running_trials(scene)
    if not trials:
        return None
    folder, pid = draw.choice(trials)
    _kill(pid)
    return short(folder)


@fault("kill -9 of a worker")
def kill_worker(scene: Scene, draw: Random, undo: Undo) -> str | None:
    return _kill_one_of(scene.processes(WORKER), draw)


@fault("kill -9 of an agent")
def kill_agent(scene: Scene, draw: Random, undo: Undo) -> str | None:
    return _kill_one_of(scene.processes(AGENT), draw)


def _kill_one_of(pids: list[int], draw: Random) -> str | None:
    if not pids:
        return None
    pid = draw.choice(pids)
    _kill(pid)
    return f"process {pid}"


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@fault("hang of a trial")
def hang(scene: Scene, draw: Random, undo: Undo) -> str | None:
    """A trial stands still; without ``scene.watchdog`` it goes on after some seconds."""
    trials = running_trials(scene)
    if not trials:
        return None
    folder, pid = draw.choice(trials)
    ticks, seconds = start_ticks(pid), draw.uniform(2, 8)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        if start_ticks(pid) == ticks:
            os.kill(pid, signal.SIGCONT)

    if scene.watchdog:
        return f"{short(folder)}, for good"
    undo(seconds, go_on)
    return f"{short(folder)} for {seconds:.0f} s"
