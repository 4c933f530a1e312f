"""examples/notebook.ipynb runs, and shows what the trial's files hold."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import notebook_run

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


@dataclass
class Executed:
    """A notebook that was run, and the trial that it has trained."""

    outputs: dict[str, list[dict]]
    trial: Path

    def printed(self, cell: str) -> str:
        return "".join("".join(each.get("text", [])) for each in self.outputs[cell])


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Executed:
    if not notebook_run.PACKAGES.is_dir():
        pytest.skip("no kernel; make .venv-extras")
    place = tmp_path_factory.mktemp("notebook")
    project = place / "project"
    shutil.copytree(ROOT / "conf", project / "conf")
    shutil.copytree(ROOT / "examples", project / "examples")
    for name in ("trainer.py", "model.py", "datamodule.py"):
        shutil.copy(ROOT / name, project)
    environment = {k: v for k, v in os.environ.items() if k != "MLMODELDEV_PROJECT"}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    places = [str(NOTEBOOK), str(place), str(project / "examples")]
    done = subprocess.run(
        [sys.executable, notebook_run.__file__, *places],
        env={**environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads((place / "executed.ipynb").read_text())["cells"]
    outputs = {cell["id"]: cell["outputs"] for cell in cells if cell["cell_type"] == "code"}
    return Executed(outputs, project / "runs" / "single" / "notebook")


def test_the_heat_map_is_the_trials_file(executed: Executed) -> None:
    (shown,) = [each for each in executed.outputs["heat-map"] if "data" in each]
    picture = base64.b64decode(shown["data"]["image/png"])
    assert picture.startswith(b"\x89PNG")
    assert picture == (executed.trial / "cka" / "towers" / "epoch-0002.png").read_bytes()


def test_the_metrics_are_those_of_the_log(executed: Executed) -> None:
    log = json.loads((executed.trial / "log.json").read_text())
    printed = re.findall(
        r"^epoch (\d+): validation accuracy (\S+)$", executed.printed("metrics"), re.M
    )
    wanted = [(entry["epoch"], entry["val/accuracy"]) for entry in log]
    assert [(int(epoch), float(value)) for epoch, value in printed] == wanted
    assert len(wanted) == 2


def test_it_trains_and_predicts(executed: Executed) -> None:
    assert executed.printed("train").splitlines()[-1] == f"done {executed.trial}"
    assert json.loads((executed.trial / "trial.json").read_text())["state"] == "done"
    assert re.fullmatch(r"a 0 is called \w+\n", executed.printed("predict"))


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert NOTEBOOK.stat().st_size < 10_000
