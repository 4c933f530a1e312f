"""Whether a signal means "save and come back" or "this trial is not worth going on with".

W&B ends a trial early by SIGTERM, the signal that Slurm preempts with; so the server is asked.
Our own agent knows, and leaves a note in the trial's folder instead.

Example::

    if stop_wanted(): ...        # who wants it, or None
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mlmodeldev.tracking.wandb_api import NO_ANSWER, part, query_server
from mlmodeldev.trial import signals

NOTE_VARIABLE = signals.STOP_NOTE_VARIABLE
"""Names the file by which an agent of ours tells its trial to stop for good."""

LOOK_SECONDS = 2.0
"""Between two looks for the note, which may lie on a slow shared file system."""

STOP_NOTE = ".stop"
"""Name of that file in a trial's folder."""

_ASK_SIGNALS = ("SIGTERM", "SIGINT")
_SECONDS = 5.0
_last_look = [-LOOK_SECONDS]
_QUERY = """
query RunStopped($entity: String!, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) { shouldStop stopped } }
}
"""


def stop_noted() -> bool:
    """Return whether anyone asked for the end for good; cheap enough for every step."""
    if signals.stopped_by() is not None:
        return True
    note = signals.stop_note()
    if note is None or time.monotonic() - _last_look[0] < LOOK_SECONDS:
        return False
    _last_look[0] = time.monotonic()
    return Path(note).exists()


def stop_wanted() -> str | None:
    """Return who wants this trial to end for good; asks the server once at most."""
    if signals.stopped_by() is None and _is_stopped():
        signals.ask_to_stop("W&B")
    return signals.stopped_by()


def _is_stopped() -> bool:
    note = signals.stop_note()
    if note is not None:
        return Path(note).exists()
    client = sys.modules.get("wandb")
    current = getattr(client, "run", None)
    if signals.requested() not in _ASK_SIGNALS or current is None or current.offline:
        return False
    names = {"entity": current.entity, "project": current.project, "run": current.id}
    try:
        answer = query_server(_QUERY, names, _SECONDS)
    except NO_ANSWER:
        return False
    run = part(answer, "project", "run")
    return part(run, "shouldStop") is True or part(run, "stopped") is True
