"""``SlurmTrain.py plan``: what submit would run; nothing is started."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm import declared

if TYPE_CHECKING:
    from mlmodeldev.slurm.declared import Declared
    from mlmodeldev.slurm.reconcile import Entry

HELP = "say what submit would run; start nothing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    declared.add_options(parser)


def run(asked: argparse.Namespace) -> int:
    """Print the plan."""
    known = declared.read(asked)
    return _here(known, asked.json)


def _here(known: Declared, as_json: bool) -> int:
    from mlmodeldev.slurm.reconcile import ENDED

    due = [entry for entry in known.entries if entry.state not in ENDED]
    plan: dict[str, Any] = {
        "trials": [
            {"id": e.trial.id, "overrides": e.trial.overrides, "state": e.state}
            for e in known.entries
        ],
        "jobs": len(due),
        "gpu_hours": 0.0,  # this machine's hours are not counted
        "script": _script(due, known.overrides),
    }
    if as_json:
        print(json.dumps(plan, indent=1))
        return 0
    count = len(known.entries)
    print(f"{count} trials declared, {count - len(due)} ended, {len(due)} to run here:")
    print(plan["script"], end="")
    return 0


def _script(due: Sequence[Entry], overrides: Sequence[str]) -> str:
    from mlmodeldev.slurm.local import trial_overrides

    lines = [shlex.join(["python", "trainer.py", *trial_overrides(e, overrides)]) for e in due]
    return "".join(f"{line}\n" for line in lines)
