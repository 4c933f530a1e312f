"""The streamed number is the number of one batch of everything."""

from __future__ import annotations

import copy

import pytest
import torch

from mlmodeldev.alignment.fullset import FullSetCKA
from mlmodeldev.errors import UsageError
from tests.alignment import oracles


def data(n=211, offset=0.0):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 12, generator=generator, dtype=torch.float64)
    y = x[:, :5].tanh() + 0.3 * torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return {"x": x + offset, "y": y - offset}


def stream(whole, sizes, metric):
    start = 0
    for size in sizes:
        metric.update({name: x[start : start + size] for name, x in whole.items()})
        start += size
    return metric


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("sizes", [(211,), (64, 64, 64, 19), (1, 2, 208)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_any_split_gives_the_full_set_value(estimator, sizes, offset):
    whole = data(offset=offset)
    got = stream(whole, sizes, FullSetCKA(["x", "y"], estimator)).compute()
    want = oracles.cka([(data()["x"].numpy(), data()["y"].numpy())], estimator)
    assert got[0, 1].item() == pytest.approx(want, abs=1e-10)
    assert torch.allclose(got.diagonal(), torch.ones(2).double())


def test_parts_of_several_processes_are_merged_about_one_mean():
    whole = data()
    one, two = FullSetCKA(["x", "y"]), FullSetCKA(["x", "y"])
    stream(whole, (64, 47), one)
    stream({name: x[111:] for name, x in whole.items()}, (30, 70), two)
    gathered = copy.deepcopy(one)
    gathered.shift = [one.shift, two.shift]
    gathered.moments = [one.moments, two.moments]
    want = oracles.cka([(whole["x"].numpy(), whole["y"].numpy())])
    assert gathered.compute()[0, 1].item() == pytest.approx(want, abs=1e-10)


def test_where_there_is_no_value():
    with pytest.warns(UserWarning, match="under 4"):
        assert stream(data(), (3,), FullSetCKA(["x", "y"])).compute().isnan().all()
    with pytest.warns(UserWarning):
        assert FullSetCKA(["x", "y"]).compute().isnan().all()
    dead = data() | {"y": torch.full((211, 3), 1.1)}
    with pytest.warns(UserWarning, match="'y' is constant"):
        got = stream(dead, (100, 111), FullSetCKA(["x", "y"])).compute()
    assert got.isnan().tolist() == [[False, True], [True, True]]


def test_reset_takes_other_widths_and_too_wide_features_are_refused():
    metric = stream(data(), (100, 111), FullSetCKA(["x", "y"]))
    first = metric.compute()
    metric.reset()
    assert torch.equal(stream(data(), (100, 111), metric).compute(), first)
    with pytest.raises(UsageError, match="fixed dims"):
        metric.update({"x": torch.zeros(5, 3), "y": torch.zeros(5, 3)})
    metric.reset()
    metric.update({"x": torch.zeros(5, 3), "y": torch.zeros(5, 3)})
    with pytest.raises(UsageError, match="pool them"):
        FullSetCKA(["x"], max_bytes=1000).update({"x": torch.zeros(5, 100)})
