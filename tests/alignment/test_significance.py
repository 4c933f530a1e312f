"""Noise floor, permutations and intervals against independent numpy code and their own promises."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from mlmodeldev.alignment.callback import CKACallback
from mlmodeldev.alignment.hsic import gram, pairwise_hsic
from mlmodeldev.alignment.metric import CKA
from mlmodeldev.alignment.significance import bootstrap, orders, permuted_hsic
from mlmodeldev.errors import UsageError
from tests.alignment import oracles
from tests.alignment.test_callback import Saver
from tests.alignment.test_ddp import batches as uneven_batches
from tests.alignment.towers import COMPARE, fit

warnings.filterwarnings("ignore", module="pytorch_lightning")
DRAWS = 4000
PAIRS, SAMPLES, EQUAL = (lambda n: n * (n - 3)), (lambda n: n), (lambda n: 1)


@pytest.fixture(autouse=True)
def one_thread():
    """Small products on a busy machine wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def zero_diagonal(x):
    k = x @ x.T
    np.fill_diagonal(k, 0)
    return k


def hsic1(k, l, places):  # noqa: E741 - the paper's letters
    """Song et al. 2012, eq. 5, of k and l with the samples of l in the order `places`."""
    n = len(k)
    moved = l[places][:, places]
    total = (k * moved).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * (k.sum(0) @ moved.sum(0))) / (n * (n - 3))


def wide(draw, n):
    return draw.normal(size=(n, 40)), draw.normal(size=(n, 300))


def alike(draw, n):
    x = draw.normal(size=(n, 60))
    return x, x[:, :40] + 0.3 * draw.normal(size=(n, 40))


def copies(draw, n):
    x = np.maximum(draw.normal(size=(n, 80)) + 1, 0)
    return x, x.copy()


def narrow(draw, n):
    x = draw.normal(size=(n, 6))
    return x, np.tanh(x @ draw.normal(size=(6, 200))) + 5


CASES = {
    "one batch, unrelated": (wide, [16], "pairs", PAIRS),
    "one batch, alike": (alike, [48], "pairs", PAIRS),
    "uneven batches, alike": (alike, [32, 20, 17], "pairs", PAIRS),
    "uneven batches, copies": (copies, [9, 24], "equal", EQUAL),
    "uneven batches, narrow": (narrow, [12, 7, 30], "samples", SAMPLES),
}


@pytest.mark.parametrize("case", CASES)
def test_the_floor_is_the_deviation_over_permutations(case):
    make, sizes, weighting, weight = CASES[case]
    draw = np.random.default_rng(3)
    data = [make(draw, n) for n in sizes]
    metric = CKA(["x", "y"], weighting=weighting)
    for x, y in data:
        metric.update({"x": torch.from_numpy(x), "y": torch.from_numpy(y)})
    drawn, own = np.zeros(DRAWS), np.zeros(2)
    for x, y in data:
        k, l = zero_diagonal(x), zero_diagonal(y)  # noqa: E741
        same, w = np.arange(len(k)), weight(len(k))
        own += w * hsic1(k, k, same), w * hsic1(l, l, same)
        drawn += [w * hsic1(k, l, draw.permutation(len(k))) for _ in range(DRAWS)]
    want = drawn.std() / np.sqrt(own.prod())
    assert metric.significance().floor[0, 1].item() == pytest.approx(want, rel=0.03)
    assert abs(drawn.mean()) < 4 * drawn.std() / DRAWS**0.5
    if len(sizes) == 1:
        assert metric.significance().floor[0, 1].item() == pytest.approx(
            (2 / (sizes[0] * (sizes[0] - 3))) ** 0.5
        )


def layers_of(width, depth, inputs, draw):
    """Outputs of each layer of a small random network."""
    outputs, hidden = {}, inputs
    for i in range(depth):
        weight = torch.randn(hidden.shape[1], width, generator=draw) / hidden.shape[1] ** 0.5
        hidden = torch.tanh(hidden @ weight)
        outputs[str(i)] = hidden
    return outputs


def test_of_networks_whose_samples_are_shuffled_five_percent_are_significant():
    """2,007 draws of 3 widths x 3 depths, one cell a draw; and the largest cell of each.

    By chance 2,007 draws are off by 0.5 %; 10,035 gave 4.99 % and, for the largest, 4.91 %.
    """
    draw = torch.Generator().manual_seed(1)
    counts, count = np.zeros(3), 0
    for width in (4, 16, 64):
        for depth in (1, 2, 4):
            names = [str(i) for i in range(depth)]
            metric = CKA(names, permutations=199, seed=1)
            for number in range(223):
                inputs = torch.randn(20, 12, generator=draw)
                first, second = (layers_of(width, depth, inputs, draw) for _ in range(2))
                shuffle = torch.randperm(20, generator=draw)
                metric.reset()
                metric.epoch = count
                metric.update(first, {name: x[shuffle] for name, x in second.items()}, number)
                result = metric.significance()
                cell = number % depth, number // depth % depth
                above_floor = metric.compute() > 2 * result.floor
                largest = (result.familywise_p <= 0.05).any()
                counts += [result.significant[cell], above_floor[cell], largest]
                count += 1
    significant, above_floor, largest = counts / count
    assert count >= 2000
    assert significant == pytest.approx(0.05, abs=0.01)
    assert 0.02 < above_floor < 0.06
    assert largest == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_permuted_grams_are_those_of_permuted_samples(estimator):
    draw = np.random.default_rng(0)
    x, y, few = (
        draw.normal(size=(9, 30)),
        draw.normal(size=(9, 12)) * 1e15,
        draw.normal(size=(9, 2)),
    )
    y[:, :2] += few * 1e15
    left, right = ([gram(torch.from_numpy(v)) for v in side] for side in ((x, few), (y, few)))
    drawn = orders([*left, *right], (1, 2), 3, 5)
    assert all(sorted(one.tolist()) == list(range(9)) for one in drawn)
    got = permuted_hsic(left, right, drawn, estimator)
    for order, matrix in zip(drawn.numpy(), got, strict=True):
        for i, a in enumerate((x, few)):
            for j, b in enumerate((y, few)):
                own = oracles.trace_form(a, a, estimator) * oracles.trace_form(b, b, estimator)
                want = oracles.trace_form(a, b[order], estimator) / own**0.5
                assert matrix[i, j].item() == pytest.approx(want, abs=2e-6)


def test_other_kernels_permute_as_well():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 30, generator=draw), torch.randn(12, 8, generator=draw)
    a, b = gram(x, "rbf"), gram(y, "rbf")
    drawn = orders([a, b], (0, 0), 0, 3)
    got = permuted_hsic([a], [b], drawn, "unbiased")
    own = (pairwise_hsic([a], [a]) * pairwise_hsic([b], [b])).sqrt()
    for order, value in zip(drawn, got, strict=True):
        want = pairwise_hsic([a], [gram(y[order], "rbf")]) / own
        assert value.item() == pytest.approx(want.item(), abs=2e-6)


def measured(ranks):
    """The metrics of so many ranks, batches in turn, added up as torchmetrics does.

    With several, the samples of a batch lie in another order, as the ranks' shares of it would.
    """
    metrics = [CKA(["x", "y"], permutations=99, groups=8, seed=5) for _ in range(ranks)]
    data = [{n: x.double() for n, x in batch.items()} for batch in uneven_batches()] * 2
    for number, batch in enumerate(data):
        ordered = {
            name: torch.cat([x[i::ranks] for i in range(ranks)]) for name, x in batch.items()
        }
        metrics[number % ranks].update(ordered, number=number)
    for other in metrics[1:]:
        metrics[0].merge_state(other)
    return metrics[0]


def test_ranks_draw_the_same():
    """Two real processes are in test_ddp, one, two and four devices in test_devices."""
    alone = measured(1).significance().arrays()
    assert {"floor", "p_values", "lower", "upper", "familywise_p", "threshold"} <= alone.keys()
    for ranks in (2, 4):
        together = measured(ranks).significance().arrays()
        for name, value in alone.items():
            near = 1e-6 if "threshold" in name else 1e-9  # that is one of many sums of float32
            assert together[name] == pytest.approx(value, abs=near, nan_ok=True), (ranks, name)


def test_nothing_is_drawn_from_the_global_random_numbers():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    measured(1).significance()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_a_layer_with_itself_is_not_tested_and_pairs_are_mirrored():
    result = measured(1).significance()
    assert result.itself.tolist() == [[True, False], [False, True]]
    assert result.p_values.isnan().tolist() == result.itself.tolist()
    assert not result.significant.diagonal().any()
    for matrix in (result.p_values, result.threshold, result.lower, result.upper):
        assert torch.equal(matrix[0, 1], matrix[1, 0])
    assert result.p_values[0, 1].item() == 1 / 100
    assert result.significant[0, 1]
    value = measured(1).compute()[0, 1]
    assert result.lower[0, 1] < value < result.upper[0, 1]


def test_intervals_cover_the_value_of_many_batches():
    """200 measurements of 8 batches, of which one metric keeps the sums."""
    draw = torch.Generator().manual_seed(0)
    metric = CKA(["x", "y"], groups=1600)
    for _ in range(1600):
        x = torch.randn(16, 20, generator=draw)
        metric.update({"x": x, "y": x[:, :5] + torch.randn(16, 5, generator=draw)})
    value = metric.compute()[0, 1]
    kept = (metric.group_cross, metric.group_a, metric.group_b, metric.group_batches)
    ends = [
        bootstrap(*parts, (0, 0)) for parts in zip(*(one.split(8) for one in kept), strict=True)
    ]
    covered = [bool(lower[0, 1] <= value <= upper[0, 1]) for lower, upper in ends]
    assert len(covered) == 200
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_what_there_is_without_settings_batches_or_values():
    draw = torch.Generator().manual_seed(0)
    biased = CKA(["x", "y"], estimator="biased", groups=8)
    for n in (8, 8, 8, 8, 8):
        biased.update({"x": torch.randn(n, 9, generator=draw), "y": torch.zeros(n, 3)})
    assert biased.significance().arrays().keys() == {"itself"}, "five batches have no interval"
    both = CKA(["x", "y"], permutations=19, estimator="biased")
    both.update({"x": torch.randn(8, 9, generator=draw), "y": torch.zeros(8, 3)})
    result = both.significance()
    assert result.floor is None
    assert result.p_values.isnan().all(), "the only other layer is constant"
    assert not result.significant.any()
    with pytest.raises(UsageError, match="permutations=5 must be 0, or 19 or more"):
        CKA(["x"], permutations=5)


def test_a_trial_from_before_there_were_errors_goes_on(tmp_path):
    compare = {"drift": COMPARE["drift"], "inside": COMPARE["inside"]}
    fit(tmp_path, CKACallback(compare, tmp_path), Saver(tmp_path), epochs=2)
    saved = torch.load(tmp_path / "1.ckpt", weights_only=True)
    history = saved["callbacks"]["CKACallback"]["history"]["drift"]
    for key in ("floor", "lower", "upper", "significant"):
        assert np.isfinite(history[key]).all() == (key in ("floor", "significant")), key
        del history[key]
    torch.save(saved, tmp_path / "old.ckpt")
    (tmp_path / "cka" / "drift" / "training.png").unlink()
    again = CKACallback(compare, tmp_path, permutations=39)
    _, trainer = fit(tmp_path, again, epochs=3, ckpt_path=tmp_path / "old.ckpt")
    assert again._history["drift"]["epochs"] == [1, 2, 3]
    assert np.isnan(again._history["drift"]["floor"][:2]).all()
    assert np.isfinite(again._history["drift"]["floor"][2]).all()
    assert (tmp_path / "cka" / "drift" / "training.png").stat().st_size > 500
    with np.load(tmp_path / "cka" / "inside" / "epoch-0003.npz") as file:
        tested = ~np.eye(4, dtype=bool)
        share = file["significant"][tested].mean()
        assert file["permutations"] == 39
        assert (file["p_values"][tested] <= 0.05).mean() == share
    assert trainer.callback_metrics["cka/inside/significant"].item() == pytest.approx(share)


def test_layers_that_are_left_out_leave_their_errors_too(tmp_path):
    compare = {"all": {"a": "**", "against": "start"}}
    callback = CKACallback(compare, tmp_path, permutations=19)
    fit(tmp_path, callback, epochs=1)
    with np.load(tmp_path / "cka" / "all" / "epoch-0001.npz") as file:
        for name in ("floor", "significant", "p_values", "threshold", "familywise_p"):
            assert file[name].shape == file["matrix"].shape
