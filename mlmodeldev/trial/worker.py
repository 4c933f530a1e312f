"""Trials in processes that are born in a moment: forks of one that has imported everything.

A fresh process imports for six seconds before it trains; a fork of a process that did nothing but
import begins at once, and its result is the same. `multiprocessing`'s fork server does the forking.

Example::

    start_server(["trainer", "model", "datamodule"], root)
    process = launch("trainer", ["optimizer.lr=0.003"], log=folder / "log.txt")
    process.join()
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.threads import share_cores

_context: ForkServerContext = multiprocessing.get_context("forkserver")

HEAVY = ("torch", "pytorch_lightning", "transformers", "mlmodeldev.callbacks.stack")
"""What every trial imports. Imports only: a fork after threads or CUDA began would hang."""


def start_server(modules: Sequence[str], root: Path) -> None:
    """Say what the server imports; it starts with the first trial.

    Args:
        modules: the front rooms, such as ``trainer`` and ``model``.
        root: the folder that they lie in.
    """
    share_cores()
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *([path] if path else [])])
    _context.set_forkserver_preload([*HEAVY, *modules])


def launch(program: str, overrides: Sequence[str], log: Path) -> ForkServerProcess:
    """Start a trial; its output goes to the end of a file.

    Args:
        program: module that has ``train(settings)``.
        overrides: as on the command line of trainer.py.
        log: the file.
    """
    process = _context.Process(target=_run, args=(program, list(overrides), str(log)))
    process.start()
    return process


def _run(program: str, overrides: list[str], log: str) -> None:
    from mlmodeldev.settings.cli import TrialInterrupted
    from mlmodeldev.settings.composition import compose_settings

    # Inherited from the server otherwise: loader workers would start servers of their own.
    multiprocessing.set_start_method("fork", force=True)
    _write_to(log)
    status = 0
    try:
        importlib.import_module(program).train(compose_settings(overrides))
    except UsageError as error:
        print(f"{program}: {error}", file=sys.stderr)
        status = EXIT_BAD_INPUT
    except TrialInterrupted as error:
        print(f"{program}: {error}", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


def _write_to(log: str) -> None:
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
