"""The sub-commands of ``slurm/SlurmTrain.py``, listed in `mlmodeldev.slurm.command_line`.

A module has, for each of its sub-commands::

    NAME_HELP = "one line for --help"

    def add_NAME_options(parser): ...   # its own; the shared ones: sweep_state.add_sweep_options
    def run_NAME(args) -> int: ...      # the exit status; bad input raises UsageError

Heavy imports stay inside of functions: ``--help`` imports all of them.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState


def call_hook(args: argparse.Namespace, name: str, sweep_state: SweepState) -> None:
    """Let the command line do its part, where it has one (`command_line.main`).

    Raises:
        UsageError: of ``look_first``: the trials could not run.
    """
    hook = getattr(args, "hooks", {}).get(name)
    if hook is not None:
        hook(sweep_state)
