"""A mistake in user code: its own frames on the terminal, all frames in the folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.trial.failure import FILE, keep_traceback, print_failure
from tests.training.own_project import Project

MINE = """\
from zoo import Net


def divide(a, b):
    return a / b


class Wrong(Net):
    def validation_step(self, batch, batch_idx):
        divide(1, 0)
"""


def test_a_mistake_in_a_model(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    project.write("zoo/mine.py", MINE)
    project.write("conf/model/wrong.yaml", "_target_: zoo.mine.Wrong\n")
    status, printed, folder = project.train("wrong", "model=wrong", "artefacts.rehearsal=false")
    assert status == 1
    trace = printed[printed.index("Traceback (most") :]
    assert "ZeroDivisionError: division by zero" in trace
    frames = [line for line in trace.splitlines() if line.startswith('  File "')]
    assert [("mine.py" in line, line.split()[-1]) for line in frames] == [
        (True, "validation_step"),
        (True, "divide"),
    ]
    file = folder / FILE
    assert str(file) in printed
    whole = file.read_text()
    assert "hydra" in whole
    assert "pytorch_lightning" in whole
    assert whole.rstrip().endswith("ZeroDivisionError: division by zero")


def raise_in_library(cause: bool) -> None:
    import json

    try:
        json.loads("{")
    except ValueError:
        if cause:
            raise KeyError("mine") from None
        raise


def test_the_frame_that_raised_is_shown_and_nothing_else_of_libraries(tmp_path, capsys) -> None:
    try:
        raise_in_library(cause=False)
    except ValueError as error:
        keep_traceback(error, tmp_path)
        print_failure(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "raise_in_library" in shown
    assert "raw_decode" in shown  # which raised
    assert "in loads" not in shown
    assert "in loads" in (tmp_path / FILE).read_text()
    assert f"all are in {tmp_path / FILE}" in shown


@pytest.mark.parametrize("kept", [True, False])
def test_all_is_printed_where_nothing_of_it_is_the_users(tmp_path, kept) -> None:
    code = f"""
import json, sys
from pathlib import Path
from mlmodeldev.trial.failure import keep_traceback, shorten_tracebacks
shorten_tracebacks()
try:
    json.loads("{{")
except ValueError as error:
    error.__traceback__ = error.__traceback__.tb_next
    if {kept}:
        keep_traceback(error, Path({str(tmp_path)!r}))
    sys.excepthook(type(error), error, error.__traceback__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "in loads" in done.stderr
    assert "raw_decode" in done.stderr
    assert "left out" not in done.stderr


def test_no_key_is_written(tmp_path) -> None:
    key = "hf_" + "a1B2" * 9
    try:
        raise ValueError(f"refused: {key}")
    except ValueError as error:
        keep_traceback(error, tmp_path)
    assert key not in (tmp_path / FILE).read_text()
