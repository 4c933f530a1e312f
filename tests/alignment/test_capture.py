"""Hooks: which layers, what they give, and that nothing of them stays."""

from __future__ import annotations

import gc
from collections import OrderedDict

import pytest
import torch
from torch import nn

from mlmodeldev.alignment.capture import Capture, match_layers
from mlmodeldev.errors import UsageError


class Odd(nn.Module):
    """Layers that give tuples, mappings and maps, run twice, or not at all."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.blocks = nn.ModuleList(nn.Linear(5, 5) for _ in range(12))
        self.act = nn.ReLU(inplace=True)
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.both = Both()
        self.number = Number()
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        self.conv(x)
        tokens = x[:, 0]
        for block in self.blocks:
            tokens = self.act(block(tokens))
        self.lstm(tokens)
        self.number(tokens)
        return self.both(tokens)


class Both(nn.Module):
    def forward(self, x):
        return OrderedDict(note="first", first=x, second=x + 1)


class Number(nn.Module):
    def forward(self, x):
        return 3


def run(layers, **options):
    torch.manual_seed(0)
    model, x = Odd(), torch.randn(7, 1, 5, 5)
    with Capture(model, layers, **options) as capture:
        model(x)
        return capture.take()


def test_globs_stay_within_a_part_and_regexes_take_the_whole_name():
    model = nn.ModuleDict({"image": Odd(), "text": Odd()})
    names = match_layers(model, "image.blocks.*")
    assert names == [f"image.blocks.{i}" for i in range(12)]
    assert match_layers(model, "image.blocks.1?") == ["image.blocks.10", "image.blocks.11"]
    assert match_layers(model, "*.conv") == ["image.conv", "text.conv"]
    assert "text.blocks.3" in match_layers(model, "text.**")
    assert match_layers(model, r"re:text\.blocks\.[0-2]") == [f"text.blocks.{i}" for i in range(3)]
    assert match_layers(model, ["text.act#2", "text.act", "text.act"]) == ["text.act#2", "text.act"]


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("blcoks.3", "did you mean 'blocks.3'"),
        ("zzz", "at the top are: conv, blocks, act"),
        ("re:(", "no regular expression"),
        ("act#x", "after '#' comes the number"),
    ],
)
def test_unknown_patterns_name_the_nearest(pattern, message):
    with pytest.raises(UsageError, match=message):
        match_layers(Odd(), pattern)


def test_tuples_mappings_and_pooling():
    got = run(
        ["conv", "lstm", "both", "blocks.0"],
        pooling={"conv": "mean", "lstm": "cls", "blocks.*": "none"},
    )
    assert {name: tuple(x.shape) for name, x in got.items()} == {
        "conv": (7, 4),
        "lstm": (7, 6),
        "both": (7, 25),
        "blocks.0": (7, 5, 5),
    }


def test_mean_pooling_is_the_mean_over_positions_and_over_tokens():
    flat, mean = run(["conv", "lstm"], pooling="none"), run(["conv", "lstm"], pooling="mean")
    assert torch.allclose(mean["conv"], flat["conv"].mean((2, 3)), atol=1e-6)
    assert torch.allclose(mean["lstm"], flat["lstm"].mean(1), atol=1e-6)


def test_a_module_that_runs_twice_is_distinguished_by_the_call():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(5, 3)
    model = nn.Sequential(OrderedDict(a=model[0], act=model[1], b=model[0], again=model[1]))
    with Capture(model, ["act", "act#1"]) as capture:
        out = model(x)
        got = capture.take()
    assert torch.equal(got["act"], torch.tanh(model.a(x)))
    assert torch.equal(got["act#1"], out)


def test_layers_that_do_not_run_are_named():
    with pytest.raises(UsageError, match="'unused' did not run"):
        run(["unused"])
    with pytest.raises(UsageError, match=r"'act#12' ran 12 times .* no call 12"):
        run(["act#12"])
    with pytest.raises(UsageError, match="'number' gives int, not a tensor"):
        run(["number"])
    with pytest.raises(UsageError, match=r"'conv' gives .* pooling 'cls' needs"):
        run(["conv"], pooling="cls")


def test_a_reducer_sees_the_output_before_an_in_place_operation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    with Capture(model, ["0"], reduce=torch.Tensor.clone) as capture:
        model(torch.randn(9, 4))
        assert (capture.take()["0"] < 0).any()


def test_the_batch_dimension_is_configurable():
    model = nn.Sequential(nn.Linear(4, 6))
    with Capture(model, ["0"], pooling="mean", batch_dim=1) as capture:
        out = model(torch.randn(11, 3, 4))
        assert torch.allclose(capture.take()["0"], out.mean(0), atol=1e-6)


def trace_of(model, x):
    model.zero_grad()
    out = model(x)
    out.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    hooks = sum(len(m._forward_hooks) for m in model.modules())
    return out.detach().clone(), gradients, hooks, model.training


def live_tensors():
    gc.collect()
    return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())


def test_no_trace_is_left_even_after_an_error():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(9, 4)
    before, tensors = trace_of(model, x), live_tensors()
    with Capture(model, ["0", "2"]) as capture:
        during = trace_of(model, x)
        assert all(not kept.requires_grad for kept in capture.take().values())
    with pytest.raises(ZeroDivisionError), Capture(model, ["0"], reduce=lambda x: 1 / 0):
        model(x)
    after = trace_of(model, x)
    for other in (during, after):
        assert torch.equal(other[0], before[0])
        assert all(torch.equal(a, b) for a, b in zip(other[1], before[1], strict=True))
    assert before[2:] == after[2:] == (0, True)
    del during, after, other, capture
    assert live_tensors() <= tensors
