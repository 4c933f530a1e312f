"""Faults around the trials: a W&B server, a disk, a clock, folders and files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from random import Random

from tests.chaos.faults import Undo, fault, running_trials, short
from tests.chaos.scene import Scene

ODD = ("html", "null", "list", "truncated", "status 401", "commands odd", "hangs up", "no HTTP",
       "errors odd", "beat null", "body without end", "status 429")  # fmt: skip
"""Of `tests.wandb.odd_answers`."""


@fault("W&B down")
def server_down(scene: Scene, draw: Random, undo: Undo) -> str | None:
    seconds = draw.uniform(2, 8)
    scene.server.faults.silent = True

    def back() -> None:
        scene.server.faults.silent = False

    undo(seconds, back)
    return f"for {seconds:.0f} s"


@fault("W&B answers 5xx")
def server_errors(scene: Scene, draw: Random, undo: Undo) -> str | None:
    status, count = draw.choice([500, 502, 503]), draw.randint(3, 12)
    scene.server.faults.fail(status, count)
    return f"{count} times {status}"


@fault("W&B answers oddly")
def odd_answers(scene: Scene, draw: Random, undo: Undo) -> str | None:
    name, count = draw.choice(ODD), draw.randint(1, 4)
    scene.server.faults.odd(name, "Heartbeat|CreateAgent", count)
    return f"{count} times {name}"


@fault("full disk")
def full_disk(scene: Scene, draw: Random, undo: Undo) -> str | None:
    seconds = draw.uniform(1, 5)
    filler = scene.runs / ".filler"
    with contextlib.suppress(OSError), filler.open("ab") as file:
        for size in (1 << 26, 1 << 20, 1 << 14, 1 << 12):
            _fill(file.fileno(), size)
    undo(seconds, lambda: filler.unlink(missing_ok=True))
    return f"for {seconds:.0f} s"


def _fill(descriptor: int, size: int) -> None:
    """Take pieces of a disk until none of this size is left."""
    with contextlib.suppress(OSError):
        while True:
            os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, size)


@fault("clock jump")
def clock(scene: Scene, draw: Random, undo: Undo) -> str | None:
    node = draw.choice(scene.cluster.layout.names)
    seconds = draw.choice([-7200, -300, -45, 45, 300, 7200])
    file = scene.clocks / node
    file.write_text(str(seconds))
    undo(draw.uniform(5, 20), lambda: file.unlink(missing_ok=True))
    return f"{node} by {seconds} s"


@fault("torn write")
def torn_write(scene: Scene, draw: Random, undo: Undo) -> str | None:
    """A trial dies in the midst of writing: what it leaves is written for it."""
    trials = running_trials(scene)
    if not trials:
        return None
    folder, pid = draw.choice(trials)
    kind = draw.choice(["record", "row", "checkpoint"])
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGSTOP)
        {"record": _tear_record, "row": _tear_row, "checkpoint": _tear_checkpoint}[kind](folder)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    return f"{short(folder)}, {kind}"


def _tear_record(folder: Path) -> None:
    """Half of a record under the name that it has until it is whole."""
    text = (folder / "trial.json").read_text()
    (folder / f".trial.json.{os.urandom(8).hex()}.tmp").write_text(text[: len(text) // 2])


def _tear_row(folder: Path) -> None:
    """Half of a row at the end of the table."""
    with (folder / "metrics.csv").open("r+b") as file:
        lines = file.read().splitlines()
        if len(lines) > 1:
            file.write(lines[-1][: len(lines[-1]) // 2])


def _tear_checkpoint(folder: Path) -> None:
    """The newest checkpoint ends before its end, as after a power cut on a careless disk."""
    files = sorted((folder / "checkpoints").glob("step-*.ckpt"))
    if files:
        os.truncate(files[-1], files[-1].stat().st_size // 2)


@fault("folder removed")
def remove_folder(scene: Scene, draw: Random, undo: Undo) -> str | None:
    folders = [folder for folder, _ in running_trials(scene)]
    if not folders:
        return None
    folder = draw.choice(folders)
    for _ in range(3):  # a trial that writes meanwhile keeps it from being removed
        shutil.rmtree(folder, ignore_errors=True)
    scene.removed.add(short(folder))
    return short(folder)
