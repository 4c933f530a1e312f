"""What 100 to 100,000 trials cost the commands and a search, on files and answers that are made up.

    python -m benchmarks scale                 # to 10,000 trials
    SCALE=100000 python -m benchmarks scale    # and to 100,000: half an hour, 1 GB of /dev/shm

The files lie in memory, so what is measured is our own: CPU time of the command and of what it
starts, memory, and how often it asks the file system something. A question takes about 0.2 ms on a
quiet NFS and 1 ms on a busy parallel one: the table says what that adds.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.simulated_cluster import SimulatedSweep, in_process
from benchmarks.table import Goal, Table

SIZES = (100, 1_000, 10_000, 100_000)
LATENCY = 0.001
"""Seconds of one question to a busy parallel file system."""
WORKERS = 1_000
NEW = (("plan", "--json"), ("submit", "-y"))
BEGUN = (("submit", "-y"), ("status",), ("status", "--json"), ("collect",), ("report",))
MEMORY = Path("/dev/shm")


def run(largest: int | None = None) -> Table:
    """Measure every command at every size, then a search."""
    most = largest or int(os.environ.get("SCALE", "10000"))
    sizes = [size for size in SIZES if size <= most]
    table = Table(
        "Scale",
        ["what", "trials", "CPU s", "MiB", "questions", "a trial", "at 1 ms each, s"],
        note=(
            "Made-up folders and answers of Slurm, no training. Of ten trials seven are done, one"
            f" failed, one runs (at most {WORKERS} at once), one waits. Questions are calls that"
            " open, look at, list, make, rename or remove something below the sweep's folder; the"
            " first `submit` copies the code besides. A search: what one more worker takes to"
            f" start, and for a trial, beside as many running ones as a tenth ({WORKERS} at most)."
        ),
    )
    results: dict[str, list[dict[str, Any]]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
            for what, taken in itertools.chain(
                _search(Path(name), size), _commands(Path(name), size)
            ):
                print(size, what, taken, file=sys.stderr, flush=True)
                results.setdefault(what, []).append({"size": size, **taken})
    for what, rows in results.items():
        for row in rows:
            _add(table, what, row)
        if len(rows) > 1:
            table.goals.append(_linear(what, rows))
    return table


def _commands(base: Path, size: int) -> Iterator[tuple[str, dict[str, Any]]]:
    new, begun = base / "new", base / "begun"
    new.mkdir()
    begun.mkdir()
    empty = SimulatedSweep(new, size, begun=False)
    for words in NEW:
        yield f"`{' '.join(words)}`, all new", empty.measured(*words)
    there = SimulatedSweep(begun, size, running=min(size // 10, WORKERS))
    for words in BEGUN:
        taken = there.measured(*words)
        if words[0] == "report":
            taken["page"] = (there.folder / "report.html").stat().st_size / 1e6
        yield f"`{' '.join(words)}`", taken


def _search(base: Path, size: int) -> Iterator[tuple[str, dict[str, Any]]]:
    words = [str(base / "search"), str(size), str(min(size // 10, WORKERS))]
    taken = in_process("benchmarks.simulated_search", words)
    start, mib = taken["start"], taken["mib"]
    trial = {"cpu": taken["take"] + taken["report"], "mib": mib, "calls": taken["calls"]}
    yield "search: a worker's start", start
    yield "search: a trial of a worker", trial


def _add(table: Table, what: str, row: dict[str, Any]) -> None:
    size, calls = row["size"], row["calls"]
    page = f", page of {row['page']:.1f} MB" if "page" in row else ""
    cpu = f"{row['cpu']:.3f}" if row["cpu"] < 1 else f"{row['cpu']:.1f}"
    each = f"{calls / size:.2f}" if "search" not in what else "–"
    table.add(what + page, f"{size:,}", cpu, row["mib"], f"{calls:,}", each,
              f"{calls * LATENCY:.1f}")  # fmt: skip


def _linear(what: str, rows: list[dict[str, Any]]) -> Goal:
    """Return the goal that the work grows no faster than the trials do, in the last step of ten."""
    before, last = rows[-2:]
    growth = max(last["cpu"] / before["cpu"], last["calls"] / before["calls"])
    return Goal(f"{what}: growth from {before['size']:,} to {last['size']:,}", growth, 13.0)


if __name__ == "__main__":
    print(run().text())
