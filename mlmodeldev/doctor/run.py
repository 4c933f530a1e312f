"""Make checks one after the other: each ends in time, and an error in one is a line of its own.

Example::

    for line in run_checks(scope, quick=True):
        print(line.level, line.what, line.mend)
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import TimeoutError as StillWorking

from mlmodeldev.doctor.checks import CHECKS
from mlmodeldev.doctor.line import Check, Line, Scope, fail, ok, warn
from mlmodeldev.errors import UsageError
from mlmodeldev.machine import has_proc
from mlmodeldev.secrets import mask, masked
from mlmodeldev.tracking.bounded import in_background


def run_checks(
    scope: Scope, quick: bool = False, checks: Iterable[Check] = CHECKS
) -> Iterator[Line]:
    """Yield what the checks say; none of them changes anything.

    Args:
        scope: what is looked at; in a job those checks are made that tell something of the node.
        quick: only those that need no network, and a moment.
        checks: which.
    """
    seen: set[str] = set()
    for check in checks:
        if (quick and not check.quick) or (scope.in_job and not check.on_node):
            continue
        for line in _lines(check, scope):
            if line.what not in seen:  # two checks may come upon the same refusal
                seen.add(line.what)
                yield dataclasses.replace(line, check=check.name, what=mask(line.what))


def _lines(check: Check, scope: Scope) -> list[Line]:
    """Return a check's lines, whatever becomes of it."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        future = in_background(lambda: list(check.look(scope)))
        try:
            return future.result(check.seconds)
        except StillWorking:
            what = f"{check.name}: no answer within {check.seconds:.0f} s, so it was not checked"
            return [warn(what, "python slurm/SlurmTrain.py doctor")]
        except UsageError as error:
            return [fail(" ".join(str(error).split()), "python slurm/SlurmTrain.py plan")]
        except Exception as error:
            if str(getattr(error, "filename", "")).startswith("/proc/") and not has_proc():
                return [ok(f"{check.name}: not checked, for it is told under /proc alone")]
            text = masked(" ".join(str(error).split()), 200)
            what = f"{check.name}: was not checked ({type(error).__name__}: {text})"
            return [warn(what, "python slurm/SlurmTrain.py doctor --json")]


def worst(lines: Iterable[Line]) -> str:
    """Return the worst level of these lines."""
    levels = {line.level for line in lines}
    return next((level for level in ("FAIL", "WARN") if level in levels), "OK")
