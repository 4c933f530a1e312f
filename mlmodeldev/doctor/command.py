"""``SlurmTrain.py doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from mlmodeldev.slurm import command_line
from mlmodeldev.slurm.sweep_state import add_sweep_options, fixed_overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer SlurmTrain.py's command line, with `doctor` among its sub-commands."""
    return command_line.main(arguments, others={"doctor": "mlmodeldev.doctor.command"})


DOCTOR_HELP = "look at Python, disk, Slurm, profile and tracker; a fix for what is wrong"


def add_doctor_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_sweep_options(parser)


def run_doctor(args: argparse.Namespace) -> int:
    """Print what the checks find; return 1 if something is wrong."""
    from mlmodeldev.doctor.checks import run_checks
    from mlmodeldev.settings.composition import compose_settings

    findings = list(run_checks(compose_settings(fixed_overrides(args), partial=True)))
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    for finding in [] if args.json else findings:
        print(f"{'ok   ' if finding.ok else 'WRONG'} {finding.what}")
        if finding.fix:
            print(f"      {finding.fix}")
    return 0 if all(finding.ok for finding in findings) else 1
