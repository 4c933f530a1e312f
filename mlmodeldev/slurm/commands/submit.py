"""``SlurmTrain.py submit``: run what is missing, interrupted or failed."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm import declared
from mlmodeldev.slurm.commands import plan, status

if TYPE_CHECKING:
    from mlmodeldev.slurm.declared import Declared
    from mlmodeldev.slurm.reconcile import Entry

HELP = "run what is missing, interrupted or failed (the default)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    declared.add_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="the same as plan")


def run(asked: argparse.Namespace) -> int:
    """Run the trials that have not ended."""
    if asked.dry_run:
        return plan.run(asked)
    known = declared.read(asked)
    return _here(known, asked.json)


def _here(known: Declared, as_json: bool) -> int:
    """Run on this machine."""
    from mlmodeldev.settings.cli import config_root
    from mlmodeldev.slurm.local import run_local

    with _progress_to_stderr(as_json):
        outcome = run_local(
            known.entries, known.program, known.overrides, known.modules, config_root()
        )
    again = [entry.again() for entry in known.entries]
    status.show(known.sweep, again, as_json)
    if not as_json and again:
        _next_steps(again)
    return outcome


def _progress_to_stderr(as_json: bool) -> Any:
    """Keep standard output to the JSON object alone."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def _next_steps(entries: Sequence[Entry]) -> None:
    from mlmodeldev.slurm.table import ranked

    best = ranked(entries)[0]
    pictures = sorted((best.folder / "cka").glob("*.png"))
    print(f"folder:    {best.folder.parent}")
    for picture in pictures:
        print(f"CKA:       {picture}")
    if best.value is not None:
        print(f"best:      {best.folder / 'best'}")
        print(f"next:      python inference.py {best.folder} IMAGE_OR_TEXT")
        print("           python slurm/SlurmTrain.py status")
