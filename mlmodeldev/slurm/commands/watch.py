"""``SlurmTrain.py status --watch``: the sweep as it goes, in a terminal, a pipe or as JSON.

In a terminal the table is drawn over and over in its place. The cursor stays visible and the
terminal's modes are left alone, so there is nothing to restore, however the command is ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.commands.watch_table import draw
from mlmodeldev.slurm.sweep_watch import Look, Row, SweepWatch

if TYPE_CHECKING:
    from rich.console import Console

    from mlmodeldev.slurm.sweep_state import SweepState

SECONDS, FEWEST_SECONDS = 5.0, 1.0
EXIT_CTRL_C = 130
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class _Signalled(Exception):
    """A signal that ends the watch."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def add_watch_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--watch``."""
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        const=f"{SECONDS:g}",
        help=f"go on looking, so often ({SECONDS:g}), until all trials have ended, or Ctrl-C",
    )


def watch_seconds(args: argparse.Namespace) -> float | None:
    """Return from one look to the next; None: the sweep is not watched.

    Args:
        args: what ``--watch`` took for its seconds and is a setting is put where it belongs.

    Raises:
        UsageError: for a time that is too short, or none.
    """
    if args.watch is not None and "=" in args.watch:  # --watch optimizer.lr=0.1
        args.overrides, args.watch = [args.watch, *args.overrides], f"{SECONDS:g}"
    if args.watch is None:
        return None
    try:
        seconds = float(args.watch)
    except ValueError:
        seconds = 0.0
    if not FEWEST_SECONDS <= seconds < float("inf"):
        raise UsageError(f"--watch {args.watch}: must be a number, at least {FEWEST_SECONDS:g}")
    return seconds


def watch_sweep(sweep_state: SweepState, seconds: float, as_json: bool) -> int:
    """Show the sweep until all has ended; return the exit status: 130 after Ctrl-C.

    Args:
        seconds: from one look to the next.
        as_json: print a line for each change, whatever the output is.
    """
    watch = SweepWatch(sweep_state)
    try:
        with _raised_signals():
            if as_json:
                _print_changes(watch, seconds)
            elif _is_terminal():
                _draw_live(watch, seconds)
            else:
                _print_tables(watch, seconds)
    except KeyboardInterrupt:
        return EXIT_CTRL_C
    except _Signalled as signalled:
        return signalled.status
    return 0


@contextlib.contextmanager
def _raised_signals() -> Iterator[None]:
    """Let what would end this process raise, so that the last table stays whole."""

    def end(number: int, _: FrameType | None) -> None:
        raise _Signalled(number)

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_terminal() -> bool:
    """Return whether lines can be drawn over; FORCE_COLOR asks for colours, not for this."""
    from rich.console import Console

    return sys.stdout.isatty() and not Console().is_dumb_terminal


def _looks(watch: SweepWatch, seconds: float) -> Iterator[Look]:
    """Yield the sweep again and again, the last time when all has ended."""
    while True:
        look = watch.look()
        yield look
        if look.is_over:
            return
        time.sleep(seconds)


def _draw_live(watch: SweepWatch, seconds: float) -> None:
    from rich.live import Live

    console = _console()
    # refreshed by hand: a thread that draws four times a second would cost more than all reading
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for look in _looks(watch, seconds):
            live.update(draw(look, console.width, console.height), refresh=True)


def _console() -> Console:
    from rich.console import Console

    class VisibleCursor(Console):
        """Hides no cursor: nobody would show it again after ``kill -9``."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    return VisibleCursor(markup=False, emoji=False, highlight=False)


def _print_tables(watch: SweepWatch, seconds: float) -> None:
    """Print a table for the first look and for each that shows a change."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    for look, _ in _changed(watch, seconds):
        console.print(f"{time.strftime('%H:%M:%S')}")
        console.print(draw(look, console.width))
        sys.stdout.flush()


def _print_changes(watch: SweepWatch, seconds: float) -> None:
    """Print a line of JSON for the first look and for each that shows a change."""
    for look, rows in _changed(watch, seconds):
        content = {
            "sweep": look.sweep,
            "at": round(time.time(), 3),
            "states": look.states,
            "waits": look.waits,
            "undrawn": look.undrawn,
            "workers": look.workers,
            "seconds_left": look.seconds_left,
            "slurm": look.complaint or None,
            "trials": [row.as_dict() for row in rows],
        }
        print(json.dumps(content), flush=True)


def _changed(watch: SweepWatch, seconds: float) -> Iterator[tuple[Look, list[Row]]]:
    """Yield the first look, and those that show a change, with the rows that are others now."""
    before: dict[str, tuple[object, ...]] = {}
    summary: object = None
    for look in _looks(watch, seconds):
        rows = [row for row in look.rows if before.get(row.id) != row.facts]
        now = look.undrawn, dict(look.workers), look.complaint
        if rows or now != summary:
            yield look, rows
        before, summary = {row.id: row.facts for row in look.rows}, now
