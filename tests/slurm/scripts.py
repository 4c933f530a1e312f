"""Golden files of the scripts that users submit: a difference shows what changes for them.

``GOLDEN=write python -m pytest tests/slurm`` writes them anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def check_golden(script: str, name: str, folder: Path) -> None:
    """Compare a script with ``golden/NAME.sh``, paths of this machine aside."""
    script = script.replace(str(folder), "/shared").replace(sys.executable, "/venv/python")
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(script)
    assert script == golden.read_text()
