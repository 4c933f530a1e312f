"""Run a sweep's trials on this machine, one after the other.

Example::

    run_local(entries, sweep, settings)     # exit status
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.errors import EXIT_INTERRUPTED
from mlmodeldev.slurm.reconcile import ENDED, Entry
from mlmodeldev.trial.overrides import to_overrides
from mlmodeldev.trial.worker import launch, start_server


def run_local(
    entries: Sequence[Entry], program: str, fixed: Sequence[str], modules: Sequence[str], root: Path
) -> int:
    """Run what has not ended yet; say a line for each trial.

    Args:
        entries: the declared trials.
        program: module that has ``train``.
        fixed: overrides of every trial, beside its own.
        modules: what the trials import beside the program.
        root: the project's folder.

    Returns:
        Exit status: 0 all ended well, 1 some failed, 75 interrupted.
    """
    start_server([program, *modules], root)
    failed = 0
    for number, entry in enumerate(entries, 1):
        head = f"[{number}/{len(entries)}] {entry.trial.id}  {entry.trial.name}"
        if entry.state in ENDED:
            print(f"{head}  {entry.state} already", flush=True)
            continue
        print(f"{head}  ...", flush=True)
        begun = time.monotonic()
        status, interrupted = _run_one(entry, program, fixed)
        print(f"{head}  {_outcome(entry.again(), status)}  {time.monotonic() - begun:.1f} s")
        failed += status not in (0, EXIT_INTERRUPTED)
        if interrupted:
            print("interrupted; the same command goes on where it was", file=sys.stderr)
            return EXIT_INTERRUPTED
    return 1 if failed else 0


def _run_one(entry: Entry, program: str, fixed: Sequence[str]) -> tuple[int, bool]:
    overrides = trial_overrides(entry, fixed)
    process = launch(program, overrides, entry.folder / "log.txt")
    with _passing_on(process) as received:
        process.join()
    return process.exitcode or 0, bool(received)


def trial_overrides(entry: Entry, fixed: Sequence[str]) -> list[str]:
    """Return the command line of a trial: its own values, and where it lies."""
    where = {
        "artefacts.runs_dir": str(entry.folder.parents[1].absolute()),
        "artefacts.sweep": entry.folder.parent.name,
        "artefacts.trial": entry.trial.id,
    }
    return [*fixed, *to_overrides(entry.trial.overrides), *to_overrides(where)]


@contextlib.contextmanager
def _passing_on(process: Any) -> Iterator[list[int]]:
    """Pass signals on to the trial, which saves its state; then nothing new is begun."""
    received: list[int] = []

    def handle(signum: int, frame: Any) -> None:
        received.append(signum)
        # Ctrl-C in a terminal has reached the trial already (one process group)
        if signum != signal.SIGINT and process.pid:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(entry: Entry, status: int) -> str:
    if entry.value is not None and entry.state == "done":
        return f"done  {entry.record['metric']['name']} {entry.value:.4f}"
    reason = entry.record.get("reason") or f"exit status {status}"
    return f"{entry.state if entry.state != 'missing' else 'failed'} ({reason}; see log.txt)"
