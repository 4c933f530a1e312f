"""Rows and weights are compared bit by bit; times are not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mlmodeldev.trial.outcome import compare_outcomes

ROWS = "epoch,step,time/logged,train/loss,val/accuracy\n0,4,{time},0.5,\n0,9,{time},,0.75\n"


def trial(folder: Path, rows: str = ROWS, step: int = 9, **weights: Tensor) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.csv").write_text(rows.format(time=len(folder.name)))
    state = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7), **weights}
    torch.save({"state_dict": state}, folder / "checkpoints" / f"step-{step:010d}.ckpt")
    return folder


def shown(a: Path, b: Path) -> list[str]:
    return [str(each) for each in compare_outcomes(a, b).differences]


def test_equal_but_for_times(tmp_path: Path) -> None:
    outcome = compare_outcomes(trial(tmp_path / "a"), trial(tmp_path / "longer"))
    assert (outcome.differences, outcome.rows, outcome.tensors) == ([], 2, 2)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS.replace("0.75", "0.7500001"), "val/accuracy at step 9: 0.75 | 0.7500001"),
        (ROWS.replace(",0.5,", ",,"), "row 1 of metrics.csv: step 4 | step 9"),
        (ROWS.replace(",0.5,\n", ",0.5,0.1\n"), "val/accuracy at step 4: – | 0.1"),
        (ROWS + "1,14,1,0.25,\n", "rows of metrics.csv: 2 | 3"),
        (ROWS + "1,14,1,,\n", ""),  # a row of times alone
    ],
)
def test_the_first_value_that_differs(tmp_path: Path, rows: str, expected: str) -> None:
    differences = shown(trial(tmp_path / "a"), trial(tmp_path / "b", rows))
    assert differences == ([f"metric: {expected}"] if expected else [])


def test_the_first_element_that_differs(tmp_path: Path) -> None:
    a = trial(tmp_path / "a")
    near = torch.arange(6.0).reshape(2, 3)
    near[1, 2] = torch.nextafter(near[1, 2], torch.tensor(9.0))
    file = "checkpoints/step-0000000009.ckpt"
    expected = f"weights: a[1, 2] ({file}): 5.0 | {near[1, 2].item()}"
    assert shown(a, trial(tmp_path / "b", a=near)) == [expected]
    number = trial(tmp_path / "c", n=torch.tensor(8))
    assert shown(a, number) == [f"weights: n[] ({file}): 7 | 8"]
    double = trial(tmp_path / "d", a=torch.arange(6.0).reshape(2, 3).double())
    assert "[2, 3] torch.float32 | [2, 3] torch.float64" in shown(a, double)[0]
    more = trial(tmp_path / "e", b=torch.zeros(1))
    assert shown(a, more) == [f"weights: b ({file}): – | [1] torch.float32"]


def test_bits_count_not_values(tmp_path: Path) -> None:
    nan = torch.tensor([math.nan, 0.0])
    a = trial(tmp_path / "a", x=nan)
    assert shown(a, trial(tmp_path / "b", x=nan.clone())) == []
    assert len(shown(a, trial(tmp_path / "c", x=torch.tensor([math.nan, -0.0])))) == 1


def test_exports_stand_in_for_checkpoints_that_are_gone(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    a, b = trial(tmp_path / "a", step=9), trial(tmp_path / "b", step=12)
    for folder, value in ((a, 1.0), (b, 2.0)):
        (folder / "best").mkdir()
        save_file({"w": torch.tensor([value])}, folder / "best" / "model.safetensors")
    assert shown(a, b) == ["weights: w[0] (best/model.safetensors): 1.0 | 2.0"]
