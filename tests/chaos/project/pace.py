"""How slowly a trial's steps go, so that there is time to disturb it, and who has trained it.

STEP_SECONDS: what each training step takes at least, until the file that RELEASE names is there.
SPANS: a file, to which each process writes when it begins to train a trial and when it has
trained it to the end; it lies outside of the runs, where no fault reaches it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def step() -> None:
    """Take the time that a step takes."""
    if not Path(os.environ.get("RELEASE", "/nowhere")).exists():
        time.sleep(float(os.environ.get("STEP_SECONDS", "0")))


def note(event: str, trainer: Any) -> None:
    """Write ``event`` with the trial's folder, this process and its time to that file."""
    if "SPANS" in os.environ:
        line = f"{trainer.default_root_dir}\t{event}\t{os.getpid()}\t{time.monotonic():.3f}\n"
        descriptor = os.open(os.environ["SPANS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, line.encode())  # one write: lines of many processes do not mix
        os.close(descriptor)
