"""``SlurmTrain.py doctor``: what may be wrong here, and what to do about it."""

from __future__ import annotations

import argparse
import dataclasses
import json

from mlmodeldev.slurm import sweep_state

HELP = "look at Python, disk, Slurm, profile and tracker; a fix for what is wrong"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)


def run(asked: argparse.Namespace) -> int:
    """Say what was found; 1 if something is wrong."""
    from mlmodeldev.doctor.checks import examine
    from mlmodeldev.settings.composition import compose_settings

    findings = list(examine(compose_settings(sweep_state.fixed_overrides(asked))))
    if asked.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    for finding in [] if asked.json else findings:
        print(f"{'ok   ' if finding.ok else 'WRONG'} {finding.what}")
        if finding.fix:
            print(f"      {finding.fix}")
    return 0 if all(finding.ok for finding in findings) else 1
