"""Trials as forks of a server: status, output and settings of each; one fault spares the next.

The server runs in a process of its own, for each process can have but one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import os, signal, sys
from mlmodeldev.errors import UsageError
from mlmodeldev.errors import TrialInterrupted

IMPORTED = os.getpid()

def train(settings):
    case = settings.training.monitor
    print(f"{case} lr={settings.optimizer.lr} forked={os.getppid() == IMPORTED}")
    print("to stderr", file=sys.stderr)
    if case == "usage": raise UsageError("no such data")
    if case == "interrupted": raise TrialInterrupted("by SIGTERM")
    if case == "defect": raise ValueError("a defect")
    if case == "exit": raise SystemExit(3)
    if case == "killed": os.kill(os.getpid(), signal.SIGKILL)
"""

DRIVER = """
import json, sys
from pathlib import Path
from mlmodeldev.trial import worker
worker.HEAVY = ()  # the program here needs no torch
here = Path(sys.argv[1])
worker.start_server([sys.argv[3]], here)
codes = {}
for case in json.loads(sys.argv[2]):
    overrides = [f"training.monitor={case}", "optimizer.lr=0.25"]
    overrides = case if isinstance(case, list) else overrides
    name = overrides[0].rpartition("=")[2]
    process = worker.launch(sys.argv[3], overrides, log=here / "logs" / f"{name}.txt")
    process.join(60)
    codes[name] = process.exitcode
print(json.dumps(codes))
"""

CASES = ["good", "usage", "interrupted", "defect", "exit", "killed", "good", ["optimizer.lrr=1"]]


# A program that imports Lightning by its other name, as the file of a model may, at its top.
OTHER_NAME = """
from lightning.pytorch import LightningModule
from mlmodeldev.settings.lightning_names import accept_both_names

def train(settings):
    accept_both_names()
    print("module of", LightningModule.of)
"""


def drive(
    here: Path, program: str, cases: list, name: str = "program"
) -> tuple[dict[str, int], Path, str]:
    """Return exit codes by case, the folder of the logs, and what else was printed."""
    file = here.joinpath(*name.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    file.write_text(program)
    (here / "conf").symlink_to(ROOT / "conf")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(here), json.dumps(cases), name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), here / "logs", done.stderr


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What `drive` returns for the program above."""
    return drive(tmp_path_factory.mktemp("worker"), PROGRAM, CASES)


def test_the_status_says_how_a_trial_ended(launched):
    codes, _, _ = launched
    assert codes == {
        "good": 0,
        "usage": 2,
        "interrupted": 75,
        "defect": 1,
        "exit": 1,
        "killed": -9,
        "1": 2,
    }


def test_output_of_both_kinds_goes_to_the_end_of_the_log_and_nowhere_else(launched):
    _, logs, stderr = launched
    line = "good lr=0.25 forked=True"
    lines = (logs / "good.txt").read_text().splitlines()
    assert sorted(lines) == sorted([line, "to stderr"] * 2)
    assert stderr == ""


def test_bad_input_and_interruption_are_one_line_a_defect_is_a_traceback(launched):
    _, logs, _ = launched
    assert "program: no such data" in (logs / "usage.txt").read_text().splitlines()
    assert "program: by SIGTERM" in (logs / "interrupted.txt").read_text().splitlines()
    assert (logs / "defect.txt").read_text().rstrip().endswith("ValueError: a defect")
    (line,) = (logs / "1.txt").read_text().splitlines()
    assert "did you mean 'lr'?" in line
    assert "Traceback" not in (logs / "usage.txt").read_text()


def test_what_the_server_imports_takes_lightning_by_either_name(tmp_path):
    for package in ("lightning", "lightning/pytorch", "pytorch_lightning"):
        (tmp_path / package).mkdir()
        text = f"class LightningModule: of = {package!r}\n"
        (tmp_path / package / "__init__.py").write_text(text)
    codes, logs, _ = drive(tmp_path, OTHER_NAME, ["good"])
    assert codes == {"good": 0}, (logs / "good.txt").read_text()
    assert "module of pytorch_lightning" in (logs / "good.txt").read_text()


def test_a_program_in_a_folder_imports_what_lies_beside_it(tmp_path):
    """As ``python scripts/run.py`` does; the project's own modules come first."""
    for folder, text in {"scripts": "VALUE = 'beside'\n", ".": "VALUE = 'above'\n"}.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "both.py").write_text(text)
    (tmp_path / "scripts" / "helper.py").write_text("VALUE = 'beside'\n")
    text = "import both, helper\ndef train(settings): print(helper.VALUE, both.VALUE)\n"
    codes, logs, _ = drive(tmp_path, text, ["good"], "scripts.run")
    assert codes == {"good": 0}, (logs / "good.txt").read_text()
    assert (logs / "good.txt").read_text() == "beside above\n"
