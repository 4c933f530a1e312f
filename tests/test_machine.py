"""Waiting threads sleep, unless the user says otherwise, and before torch reads the variable.

python -m pytest tests/test_threads.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROBE = """
import os, sys
from mlmodeldev.settings.command_line import run
run(lambda: print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules), lambda settings: None)
"""


@pytest.mark.parametrize("wanted", [None, "ACTIVE"])
def test_entry_says_how_threads_wait(wanted) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": wanted} if wanted else {}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [wanted or "PASSIVE", "False"]
