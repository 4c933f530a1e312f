"""CKA of layers whose features are a sample: against all pairs of features, and by simulation."""

from __future__ import annotations

import copy
import warnings
from itertools import permutations

import numpy as np
import pytest
import torch

from mlmodeldev.alignment import CKA, CKACallback, FullSetCKA, results
from mlmodeldev.errors import UsageError
from tests.alignment import oracles, towers

warnings.filterwarnings("ignore", module="pytorch_lightning")


def pairs_of_features(x, y, *, same):
    """Return the mean of HSIC1 over pairs of a feature of x with one of y; `same`: two of x."""
    columns = [np.asarray(v, dtype=np.float64).reshape(len(v), -1).T for v in (x, y)]
    values = [
        oracles.trace_form(a[:, None], b[:, None], "unbiased")
        for i, a in enumerate(columns[0])
        for j, b in enumerate(columns[1])
        if not (same and i == j)
    ]
    return np.mean(values)


def brute(batches, a, b, *, itself):
    """Return the corrected CKA: in each batch, sums over pairs as of so many of both sides."""
    sums = np.zeros(3)
    for seen, other in batches:
        x, y = seen[a], other[b]
        n, wide = len(x), (x[0].numel(), y[0].numel())
        terms = ((x, y, itself, wide), (x, x, True, (wide[0],) * 2), (y, y, True, (wide[1],) * 2))
        for place, (one, two, same, (p, q)) in enumerate(terms):
            sums[place] += n * (n - 3) * p * q * pairs_of_features(one, two, same=same)
    return sums[0] / np.sqrt(sums[1] * sums[2])


def drawn(seed, n, offset=0.0):
    """Three layers that share some of their variation: few features, many, and a map of them."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(n, 4, generator=draw, dtype=torch.float64)
    many = torch.tanh(base @ torch.randn(4, 2, 12, generator=draw, dtype=torch.float64).flatten(1))
    few = base[:, :1] + 0.6 * torch.randn(n, 3, generator=draw, dtype=torch.float64)
    return {"few": few + offset, "many": many - offset, "map": many.view(n, 2, 3, 4)}


BATCHES = [(drawn(0, 14), drawn(5, 14)), (drawn(1, 9), drawn(6, 9))]


@pytest.mark.parametrize("two_models", [False, True])
def test_agrees_with_all_pairs_of_features(two_models):
    """A batch with more samples than features and one with fewer; a map is as flat."""
    metric = CKA(["few", "many", "map"], feature_correction=True)
    for one, other in BATCHES:
        metric.update(one, other if two_models else None)
    got = metric.compute()
    sides = [(one, other if two_models else one) for one, other in BATCHES]
    for i, a in enumerate(metric.layers_a[:2]):
        for j, b in enumerate(metric.layers_b[:2]):
            itself = a == b and not two_models
            want = brute(sides, a, b, itself=itself)
            assert got[i, j].item() == pytest.approx(want, abs=1e-10), (a, b)
    assert torch.allclose(got[0, 1], got[0, 2], atol=1e-12)


@pytest.mark.parametrize("dtype, near", [(torch.float32, 1e-6), (torch.bfloat16, 1e-6)])
@pytest.mark.parametrize("wide", [12, 900])
def test_a_large_mean_and_short_numbers_cost_no_digits(dtype, near, wide):
    draw = torch.Generator().manual_seed(2)
    base = torch.randn(40, 5, generator=draw)
    layers = {
        name: (base @ torch.randn(5, wide, generator=draw) + 3e2).to(dtype) for name in ("x", "y")
    }
    exact = CKA(["x", "y"], feature_correction=True)
    exact.update({name: x.double() for name, x in layers.items()})
    metric = CKA(["x", "y"], feature_correction=True)
    metric.update(layers)
    assert torch.allclose(metric.compute(), exact.compute(), atol=near)


def sampled(seed, draws, features, **options):
    """Return CKA of `features` units drawn of each of two wide layers, and CKA of all units."""
    rng = np.random.default_rng(seed)
    n, wide = 48, 1500
    causes = rng.standard_normal((n, 9))  # three of six are the same for both layers
    layers = [
        some @ rng.standard_normal((6, wide)) + 0.8 * rng.standard_normal((n, wide))
        for some in (causes[:, :6], causes[:, 3:])
    ]
    whole = oracles.cka([tuple(layers)])
    sums, metric = [], CKA(["x", "y"], **options)
    for _ in range(draws):
        part = [one[:, rng.choice(wide, features, replace=False)] for one in layers]
        metric.reset()
        metric.update({n: torch.from_numpy(v) for n, v in zip(("x", "y"), part, strict=True)})
        scale = features**2 / wide**2
        sums.append([float(v) / scale for v in (metric.cross[0, 1], *metric.self_a)])
    means, errors = np.mean(sums, 0), np.std(sums, 0) / np.sqrt(draws)
    weight = n * (n - 3)
    want = [weight * oracles.trace_form(*pair, "unbiased")
            for pair in (layers, layers[:1] * 2, layers[1:] * 2)]  # fmt: skip
    ratio = means[0] / np.sqrt(means[1] * means[2])
    return means, errors, np.array(want), ratio, whole


def test_sampled_units_have_the_hsic_of_all_units_on_average():
    """Of 1,500 units 12: selves within four standard errors; without it they are far too large."""
    means, errors, want, ratio, whole = sampled(0, 500, 12, feature_correction=True)
    # all units: each meets itself there too, 1 of 1,500 times
    assert (np.abs(means - want) < 4 * errors + 2e-3 * want).all()
    assert ratio == pytest.approx(whole, rel=0.05)
    plain, errors, want, ratio, whole = sampled(0, 100, 12)
    assert (plain[1:] > want[1:] + 6 * errors[1:]).all()
    assert ratio < 0.9 * whole


def measured(**options):
    metric = CKA(["few", "many"], permutations=199, groups=8, **options)
    for seed in range(8):
        metric.update(drawn(seed, 20))
    return metric


def test_what_is_above_chance_is_the_same_and_the_floor_is_that_of_permutations():
    """Chance keeps the layers as they are; only what both are divided by is another."""
    plain, corrected = measured(), measured(feature_correction=True)
    before, after = plain.significance(), corrected.significance()
    ratio = corrected.compute()[0, 1] / plain.compute()[0, 1]
    assert ratio > 1.01
    for name in ("floor", "threshold"):
        assert getattr(after, name)[0, 1] / getattr(before, name)[0, 1] == pytest.approx(ratio)
    for name in ("p_values", "familywise_p", "significant"):
        same = torch.allclose(
            getattr(after, name).double(), getattr(before, name).double(), equal_nan=True
        )
        assert same, name
    assert after.lower[0, 1] < corrected.compute()[0, 1] < after.upper[0, 1]
    ends = (after.lower[0, 0].item(), after.upper[0, 0].item())
    assert ends == pytest.approx((1, 1)), "a layer with itself"


def test_the_floor_of_corrected_values_is_exact_over_all_pairings():
    layers = drawn(0, 5)
    metric = CKA(["few"], ["many"], feature_correction=True)
    metric.update(layers)
    floor, values = metric.significance().floor[0, 0].item(), []
    for order in permutations(range(5)):
        metric.reset()
        metric.update({"few": layers["few"]}, {"many": layers["many"][list(order)]})
        values.append(metric.compute()[0, 0].item())
    assert np.sqrt(np.mean(np.square(values))) == pytest.approx(floor, rel=1e-9)
    assert np.mean(values) == pytest.approx(0, abs=1e-9 * floor)


def test_processes_add_up():
    """Batches of two metrics in one, as their sums over processes would be."""
    whole, halves = measured(feature_correction=True), []
    for rank in (0, 1):
        half = CKA(["few", "many"], permutations=199, groups=8, feature_correction=True)
        for seed in range(rank, 8, 2):
            half.update(drawn(seed, 20), number=seed)
        halves.append(half)
    for name, reduction in halves[0]._reductions.items():
        assert reduction is not None
        setattr(halves[0], name, getattr(halves[0], name) + getattr(halves[1], name))
    assert torch.allclose(halves[0].compute(), whole.compute(), atol=1e-12)
    for name, value in whole.significance().arrays().items():
        got = halves[0].significance().arrays()[name]
        assert got == pytest.approx(value, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("sizes", [(60,), (23, 17, 20)])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_the_full_set_in_any_split_is_one_batch(sizes, offset):
    layers = drawn(4, 60, offset)
    layers.pop("map")
    metric = FullSetCKA(["few", "many"], feature_correction=True)
    for i, size in enumerate(sizes):
        start = sum(sizes[:i])
        metric.update({name: x[start : start + size] for name, x in layers.items()})
    whole = CKA(["few", "many"], feature_correction=True)
    whole.update(drawn(4, 60))
    assert torch.allclose(metric.compute(), whole.compute(), atol=1e-9)


def test_the_full_sets_of_two_processes_are_one():
    parts = []
    for seed in (0, 1):
        metric = FullSetCKA(["few", "many"], feature_correction=True)
        metric.update(drawn(seed, 30, offset=seed))
        parts.append(metric)
    both = copy.deepcopy(parts[0])
    for name in ("shift", "moments", "powers"):  # as they are gathered
        setattr(both, name, torch.stack([getattr(one, name) for one in parts]))
    both._update_count = 1
    alone = FullSetCKA(["few", "many"], feature_correction=True)
    for seed in (0, 1):
        alone.update(drawn(seed, 30, offset=seed))
    assert torch.allclose(both.compute(), alone.compute(), atol=1e-9)


def test_layers_with_nothing_left_are_named():
    draw = torch.Generator().manual_seed(1)
    batch = {"one": torch.randn(30, 1, generator=draw), "flat": torch.zeros(30, 3)}
    batch["x"] = torch.randn(30, 4, generator=draw) + batch["one"]
    metric = CKA(["one", "flat", "x"], feature_correction=True)
    metric.update(batch)
    with pytest.warns(UserWarning, match="layer 'one' has features with too little in common"):
        got = metric.compute()
    assert got[0].isnan().all() and got[1].isnan().all() and got[2, 2] == pytest.approx(1)
    assert sum("'flat'" in line for line in metric.report()) == 1
    whole = FullSetCKA(["one", "x"], feature_correction=True)
    whole.update(batch)
    with pytest.warns(UserWarning, match="'one' is constant or not finite, or has features with"):
        assert whole.compute()[0].isnan().all()


@pytest.mark.parametrize("kind", [CKA, FullSetCKA])
def test_it_goes_with_one_estimator_and_kernel(kind):
    line = "feature_correction=True goes with estimator=unbiased, not biased"
    with pytest.raises(UsageError, match=line):
        kind(["x"], estimator="biased", feature_correction=True)
    if kind is CKA:
        with pytest.raises(UsageError, match="goes with kernel=linear, not rbf"):
            kind(["x"], kernel="rbf", feature_correction=True)
        metric = CKA(["x"], feature_correction=True)
        with pytest.raises(UsageError, match="Grams with moments"):
            metric.update({"x": CKA(["x"]).gram(torch.randn(8, 3))})


def no_pictures(monkeypatch):
    monkeypatch.setattr(results, "picture", lambda result: result)
    monkeypatch.setattr(results, "draw_drift", lambda *args, **kwargs: None)
    monkeypatch.setattr(results, "save_figure", lambda figure, path: path.write_bytes(b"picture"))


class Still(towers.Towers):
    """Without randomness in validation, to be run again by hand."""

    def validation_step(self, batch, batch_idx):
        self(batch)


def layers_of(module, a):
    hidden = module.eval().image[0](a)
    return {"image.0": hidden, "image.2": module.image[2](hidden.relu())}


def test_through_the_callback_in_a_resumed_run(tmp_path, monkeypatch):
    no_pictures(monkeypatch)
    compare = {
        "inside": {"a": "re:image.[02]"},
        "drift": {"a": "re:image.[02]", "against": "start"},
    }
    first, point = Still(), tmp_path / "1.ckpt"
    begun = copy.deepcopy(first)
    callback = CKACallback(compare, tmp_path, feature_correction=True)
    _, trainer = towers.fit(tmp_path, callback, epochs=1, module=first)
    trainer.save_checkpoint(point)
    callback = CKACallback(compare, tmp_path, feature_correction=True)
    module, _ = towers.fit(tmp_path, callback, epochs=2, module=Still(), ckpt_path=point)
    for name in compare:
        metric = CKA(["image.0", "image.2"], feature_correction=True)
        with torch.no_grad():
            for a, _ in towers.loaders()[1]:
                metric.update(
                    layers_of(module, a), layers_of(begun, a) if name == "drift" else None
                )
        wanted = metric.compute().numpy()
        with np.load(tmp_path / "cka" / name / "epoch-0002.npz") as saved:
            assert saved["feature_correction"]
            assert saved["matrix"] == pytest.approx(wanted, abs=1e-6), name
        if name == "inside":
            assert np.diagonal(wanted) == pytest.approx(1)
    values = callback.state_dict()["history"]["drift"]["values"]
    assert len(values) == 2
    assert values[1] == pytest.approx(np.diagonal(wanted), abs=1e-6)


def test_the_same_units_on_both_sides_are_above_one(tmp_path, monkeypatch):
    """As docs say: a model that has not changed is HSIC(K, K) over what is left of it."""
    no_pictures(monkeypatch)
    module = Still()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    compare = {"drift": {"a": "image.2", "against": "start"}}
    _, trainer = towers.fit(
        tmp_path, CKACallback(compare, tmp_path, feature_correction=True), module=module, epochs=1
    )
    assert trainer.callback_metrics["cka/drift/image.2"] > 1.05


def test_the_callback_refuses_it_with_rbf(tmp_path):
    with pytest.raises(UsageError, match="goes with kernel=linear"):
        CKACallback({"x": {"a": "*"}}, tmp_path, kernel="rbf", feature_correction=True)
