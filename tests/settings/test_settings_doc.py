"""The Python of docs/settings.md runs as it stands; the groups that it lists are all of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.project

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
    folders = [ROOT / "conf", ROOT / "mlmodeldev" / "conf"]
    groups = {path.parent.name for folder in folders for path in folder.glob("*/*.yaml")}
    table = TEXT.partition("## On the command line")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.M)))) == groups


def test_files_and_table_are_what_the_schema_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlmodeldev.settings", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "| `optimizer.lr` | `0.002` | Peak learning rate |" in TEXT


def test_the_command_lines_run(tmp_path, data_dir) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "conf", project / "conf")
    for name in ("trainer.py", "model.py", "datamodule.py"):
        shutil.copy(ROOT / name, project)
    (addition,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    with (project / "conf/config.yaml").open("a") as file:
        file.write(f"\n{addition}")
    lines = re.findall(r"```bash\npython trainer.py (.*?)\n```", TEXT)
    assert len(lines) == 3
    small = ["logger=csv", "callbacks.export.enabled=false", "callbacks.cka.enabled=false"]
    for number, line in enumerate(lines):
        where = [f"artefacts.data_dir={data_dir}", f"artefacts.trial=line{number}"]
        done = subprocess.run(
            [sys.executable, "trainer.py", *shlex.split(line), *small, *where],
            cwd=project,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    stored = yaml.safe_load((project / "runs/single/line2/config.yaml").read_text())
    assert stored["size"] == stored["model"]["hidden_size"] == 16
