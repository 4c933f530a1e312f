"""The Python of docs/settings.md runs as it stands; the groups that it lists are all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "settings.md").read_text()


def test_the_snippet_runs(tmp_path, data_dir) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    here = f'"artefacts.runs_dir={tmp_path}", "artefacts.data_dir={data_dir}", '
    code = code.replace('"debug=fast", ', f'"debug=fast", {here}')
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder, state, metric = done.stdout.split()[-3:]
    assert Path(folder) == tmp_path / "single" / "notebook"
    assert state == "done"
    assert 0 <= float(metric) <= 1


def test_all_groups_are_listed() -> None:
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"hydra"}
    table = TEXT.partition("## On the command line")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.M)))) == groups
