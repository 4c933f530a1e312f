"""``SlurmTrain.py doctor``: what is wrong here, and what to do about it.

Example::

    python slurm/SlurmTrain.py doctor                 # this machine, the cluster, the sweep
    python slurm/SlurmTrain.py doctor --job           # and a compute node
    python slurm/SlurmTrain.py doctor --quick --json
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.sweep_state import add_sweep_options, fixed_overrides, read_sweep_state

if TYPE_CHECKING:
    from mlmodeldev.doctor.line import Line, Scope
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.slurm.sweep_state import SweepState

DOCTOR_HELP = "look at all that a trial needs here; each line OK, WARN or FAIL, with one mend"
JOB_SECONDS = 600


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer SlurmTrain.py's command line: by this name projects of version 0.2 and before call it.

    Their slurm/SlurmTrain.py stays as it is until ``mlmodeldev update``.
    """
    return int(importlib.import_module("mlmodeldev.cli").slurm_train(arguments))


def add_doctor_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_sweep_options(parser)
    parser.add_argument(
        "--quick", action="store_true", help="only what needs no network: what submit looks at"
    )
    parser.add_argument(
        "--job", action="store_true", help="submit a short job that looks at a compute node, too"
    )
    parser.add_argument(
        "--wait",
        type=int,
        default=JOB_SECONDS,
        metavar="SECONDS",
        help=f"how long --job waits for its job (default {JOB_SECONDS})",
    )


def run_doctor(args: argparse.Namespace) -> int:
    """Print what the checks say; return 1 if a line is FAIL."""
    from mlmodeldev.doctor.run import worst

    if args.job and args.quick:
        raise UsageError("--job, --quick: a job is not quick; give one of them")
    if args.wait < 1:
        raise UsageError(f"--wait {args.wait}: must be at least 1")
    scope = read_scope(args)
    if args.job:
        from mlmodeldev.doctor.job import refuse_without_jobs

        refuse_without_jobs(scope)
    lines: list[Line] = []
    for line in _all_lines(scope, args):
        lines.append(line)
        if not args.json:
            print("\n".join(_in_words(line)), flush=True)
    level = worst(lines)
    if args.json:
        rows = [dataclasses.asdict(line) for line in lines]
        print(json.dumps({"level": level, "lines": rows}, indent=1))
    else:
        print(_summary(lines, args.quick))
    return int(level == "FAIL")


def _all_lines(scope: Scope, args: argparse.Namespace) -> Iterator[Line]:
    from mlmodeldev.doctor.run import run_checks

    yield from run_checks(scope, args.quick)
    if args.job:
        from mlmodeldev.doctor.job import lines_of_job

        yield from lines_of_job(scope, args.wait)


def read_scope(args: argparse.Namespace) -> Scope:
    """Read the settings and the sweep file; a mistake in the latter is a line.

    Args:
        args: options of `add_sweep_options`.

    Raises:
        UsageError: for the first mistake in the settings.
    """
    from mlmodeldev.doctor.line import Scope
    from mlmodeldev.project import project_root
    from mlmodeldev.settings.composition import compose_settings

    overrides = fixed_overrides(args)
    settings = compose_settings(overrides, partial=True)
    scope = Scope(settings, project_root(), args=args, overrides=tuple(overrides))
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            sweep = read_sweep_state(args)
        except UsageError as error:
            return dataclasses.replace(scope, problem=" ".join(str(error).split()))
    notes = tuple(line for line in printed.getvalue().splitlines() if line.strip())
    settings, overrides = _first_trial(sweep)
    return dataclasses.replace(
        scope, settings=settings, sweep=sweep, notes=notes, overrides=tuple(overrides)
    )


def _first_trial(sweep: SweepState) -> tuple[Settings, list[str]]:
    """Return the settings of the sweep's first trial, and its overrides; of a search, of all."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.settings.overrides import to_overrides

    if not sweep.entries:
        return sweep.base, sweep.overrides
    overrides = [*sweep.overrides, *to_overrides(sweep.entries[0].trial.overrides)]
    try:
        return compose_settings(overrides, partial=True), overrides
    except UsageError:
        return sweep.base, sweep.overrides  # `sweep check` says it better


def look_first(sweep: SweepState) -> None:
    """Look at this machine before a sweep's trials are started: what takes no network.

    Raises:
        UsageError: the first FAIL; a WARN is printed.
    """
    from mlmodeldev.doctor.checks import CHECKS
    from mlmodeldev.doctor.line import Scope
    from mlmodeldev.doctor.run import run_checks
    from mlmodeldev.project import project_root

    quiet = {check.name for check in CHECKS if check.in_submit}
    checks = [check for check in CHECKS if check.in_submit != "all"]
    scope = Scope(_first_trial(sweep)[0], project_root())
    for line in run_checks(scope, quick=True, checks=checks):
        if line.level == "FAIL":
            raise UsageError(f"{line.what}; {line.mend}")
        if line.level == "WARN" and line.check not in quiet:
            print(f"warning: {line.what}; {line.mend}", file=sys.stderr)


# --- how it is shown


def _in_words(line: Line) -> Iterator[str]:
    where = f"{line.where}: " if line.where else ""
    yield f"{_coloured(line.level):4} {line.check:12} {where}{line.what}"
    if line.mend:
        yield f"{'':17} mend: {line.mend}"


_COLOURS = {"OK": 32, "WARN": 33, "FAIL": 31}


def _coloured(level: str) -> str:
    text = f"{level:4}"
    is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{_COLOURS[level]}m{text}\x1b[0m" if is_coloured else text


def _summary(lines: Sequence[Line], quick: bool) -> str:
    counts = {level: sum(line.level == level for line in lines) for level in _COLOURS}
    numbers = ", ".join(f"{count} {level}" for level, count in counts.items())
    advice = f"next: python slurm/SlurmTrain.py {'doctor' if quick else 'plan'}"
    if counts["FAIL"] or counts["WARN"]:
        advice = "docs/doctor.md has a row for each"
    return f"{numbers}{' of the quick checks' if quick else ''}; {advice}"
