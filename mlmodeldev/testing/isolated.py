"""Run a function in a process of its own that has imported torch and Lightning already.

A check may kill its process, change generators and patch the Trainer; nothing of it is left here.

Example::

    loss = run_isolated(root, Path("log.txt"), measure, overrides)    # measure(overrides), there
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import traceback
import unittest
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from mlmodeldev.errors import TrialInterrupted, UsageError
from mlmodeldev.project import PROJECT_VARIABLE

_context: ForkServerContext = multiprocessing.get_context("forkserver")
_HEAVY = ["torch", "pytorch_lightning", "transformers", "mlmodeldev.callbacks.stack"]
"""What each check imports; the user's code is imported by each check anew."""
SECONDS = 600.0
"""A process that takes longer hangs."""


class CheckFailed(AssertionError):
    """What is wrong with the user's classes: what, why, and what to change."""


class Killed(Exception):
    """The process ended by a signal, or without an answer."""


def preload() -> None:
    """Let the server of processes import what is heavy, once; it starts with the first check."""
    _context.set_forkserver_preload(_HEAVY)


def run_isolated(root: Path, log: Path, function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function of a module returns in a process of its own.

    Args:
        root: the project: its working directory, where imports begin.
        log: file to which the process prints.
        function: can be pickled, as can its arguments and what it returns.

    Raises:
        CheckFailed: from the function; or the function ended in another error, with its traceback.
        unittest.SkipTest: from the function.
        Killed: the process was killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    receiver, answers = _context.Pipe(duplex=False)
    process = _context.Process(target=_answer, args=(str(root), str(log), answers, function, args))
    process.start()
    answers.close()
    hangs = ("failed", f"after {SECONDS:.0f} s there is no end; what it printed: {log}")
    try:
        kind, value = receiver.recv() if receiver.poll(SECONDS) else hangs
    except EOFError:
        process.join()
        raise Killed(f"exit status {process.exitcode}; what it printed: {log}") from None
    finally:
        receiver.close()
        process.join(10)
        if process.is_alive():
            process.kill()
    if kind == "skip":
        raise unittest.SkipTest(value)
    if kind == "failed":
        raise CheckFailed(value)
    return value


def _answer(
    root: str, log: str, answers: Connection, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        _enter(Path(root))
        answer = ("value", function(*args))
    except unittest.SkipTest as reason:
        answer = ("skip", str(reason))
    except (CheckFailed, UsageError, TrialInterrupted) as error:
        answer = ("failed", str(error))
    except BaseException:
        text = traceback.format_exc()
        answer = ("failed", f"the project's code ended in an error:\n{text}")
    answers.send(answer)
    answers.close()
    sys.stdout.flush()
    sys.stderr.flush()


def _enter(root: Path) -> None:
    """Make the project the place of imports and settings, whatever was imported before."""
    import torch

    torch.set_num_threads(1)  # more make small models slower, and results another on each machine
    os.chdir(root)
    os.environ[PROJECT_VARIABLE] = str(root)
    sys.path.insert(0, str(root))
    own = {path.stem for path in root.glob("*.py")} | {"examples"}
    for name, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None)
        if name.partition(".")[0] in own and place and not Path(place).is_relative_to(root):
            del sys.modules[name]
    importlib.invalidate_caches()
