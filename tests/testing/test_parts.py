"""The rules behind the checks: what counts as a fall, as a dependence, as part of a batch."""

from __future__ import annotations

import unittest
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from mlmodeldev.testing.batches import first_difference
from mlmodeldev.testing.isolated import CheckFailed, Killed, run_isolated
from mlmodeldev.testing.learning import judge
from mlmodeldev.testing.observer import rows

ROOT = Path(__file__).resolve().parents[2]
Pair = namedtuple("Pair", "image label")


def falling(start: float, end: float) -> list[float]:
    return torch.linspace(start, end, 40).tolist()


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({}, "No loss to look at"),
        ({"loss": [1.0, float("nan")]}, "not finite"),
        ({"loss": falling(1.0, 0.95)}, "from 1 to 0.95"),
        ({"loss": [0.0] * 9}, "does not learn"),
        ({"loss": falling(1.0, 3.0)}, "does not learn"),
    ],
)
def test_what_is_no_fall(losses: dict[str, list[float]], message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        judge(losses, falls_by=0.2)


@pytest.mark.parametrize(
    "losses",
    [
        {"loss": falling(2.3, 0.1)},
        {"loss": falling(-1.0, -4.0)},  # a likelihood of something continuous
        {"g_loss": falling(1.0, 1.2), "d_loss": falling(1.0, 0.5)},
    ],
)
def test_what_is_a_fall(losses: dict[str, list[float]]) -> None:
    judge(losses, falls_by=0.2)


def test_a_part_of_a_batch_keeps_its_kind() -> None:
    x = torch.arange(12.0).view(4, 3)
    batch = {"pair": Pair(x, torch.arange(4)), "texts": list("abcd"), "scale": torch.tensor(2.0)}
    part = rows(batch, 1, 3)
    assert torch.equal(part["pair"].image, x[1:3])
    assert part["pair"].label.tolist() == [1, 2]
    assert part["texts"] == ["b", "c"]
    assert part["scale"] == 2
    two = rows((x[:2], torch.arange(2)), 0, 1)  # a tuple of as many entries as examples
    assert [len(each) for each in two] == [1, 1]


def outputs(function, x: torch.Tensor) -> list[dict[str, list[torch.Tensor]]]:
    return [{"layer": [function(part)]} for part in (x, x, x[:3], x[3:])]


@pytest.mark.parametrize(
    ("function", "depends"),
    [
        (lambda x: x * 2, False),
        (lambda x: x - x.mean(0), True),
        (lambda x: x.softmax(0), True),
        (lambda x: x.mean(), False),  # no entry for each example: nothing to compare
        (lambda x: x @ x.T, False),
        (lambda x: x + torch.rand(x.shape), False),  # random on purpose
        (lambda x: torch.stack([x, 2 * x]).flatten(0, 1), False),  # (time, example), flattened
        (lambda x: torch.ones(10, 2), False),  # of classes
    ],
)
def test_what_depends_on_the_batch(function, depends: bool) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert (first_difference(outputs(function, x), 6, 1e-3) == "layer") == depends


def skipped() -> None:
    raise unittest.SkipTest("for a reason")


def test_a_process_answers_skips_or_dies(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert run_isolated(ROOT, log, max, 1, 2) == 2
    with pytest.raises(unittest.SkipTest, match="for a reason"):
        run_isolated(ROOT, log, skipped)
    with pytest.raises(Killed):
        run_isolated(ROOT, log, __import__("os")._exit, 3)
