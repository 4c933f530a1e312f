"""The metric against textbook values, and its behaviour where CKA has no value."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmodeldev.alignment import CKA
from mlmodeldev.errors import UsageError
from tests.alignment import oracles


def features(seed, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def related(seed, n, d=40, dtype=torch.float32):
    """Three layers that share some of their variation."""
    base = features(seed, n, d, dtype=dtype)
    return {
        "one": base,
        "two": torch.tanh(base @ features(seed + 1, d, 90, dtype=dtype)),
        "three": (base[:, :7] + features(seed + 2, n, 7, dtype=dtype)).relu(),
    }


def measure(*batches, layers=("one", "two", "three"), **options):
    metric = CKA(layers, **options)
    for batch in batches:
        metric.update(batch)
    return metric.compute()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("weighting", ["pairs", "samples", "equal"])
def test_agrees_with_the_trace_form(dtype, tolerance, estimator, weighting):
    batches = [related(s, n, dtype=dtype) for s, n in ((0, 64), (10, 64), (20, 17), (30, 150))]
    got = measure(*batches, estimator=estimator, weighting=weighting)
    assert got.dtype == torch.float64
    for i, a in enumerate(batches[0]):
        for j, b in enumerate(batches[0]):
            want = oracles.cka([(x[a], x[b]) for x in batches], estimator, weighting)
            assert got[i, j].item() == pytest.approx(want, abs=tolerance)


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 7), st.integers(1, 6), st.integers(0, 10**6))
def test_agrees_with_all_four_tuples_in_rationals(n, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-9, 10, (n, d)), rng.integers(-9, 10, (n, d + 3))
    try:
        want = oracles.exact_cka(x, y)
    except ZeroDivisionError:
        return
    got = measure({"x": torch.tensor(x), "y": torch.tensor(y)}, layers=["x", "y"])
    assert got[0, 1].item() == pytest.approx(want, abs=1e-10)


def test_a_broadcast_diagonal_would_be_noticed():
    x, y = (features(s, 8, 5, dtype=torch.float64).numpy() for s in (0, 1))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    wrong_k, wrong_l = k - np.diag(k), l - np.diag(l)
    wrong = oracles.four_tuples(wrong_k, wrong_l) / np.sqrt(
        oracles.four_tuples(wrong_k, wrong_k) * oracles.four_tuples(wrong_l, wrong_l)
    )
    got = measure({"x": torch.tensor(x), "y": torch.tensor(y)}, layers=["x", "y"])
    assert abs(got[0, 1].item() - wrong) > 1e-3


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_copies_rotations_and_scales_score_one(kernel, estimator):
    x = features(0, 50, 30)
    rotation = torch.linalg.qr(features(1, 30, 30, dtype=torch.float64))[0].float()
    batch = {"x": x, "same": x.clone(), "turned": 3 * x @ rotation, "moved": x + 2}
    got = measure(batch, layers=list(batch), kernel=kernel, estimator=estimator)
    assert torch.allclose(got, torch.ones_like(got), atol=1e-6)


def test_independent_wide_layers_average_to_zero():
    values = [
        measure(
            {"x": features(2 * s, 16, 2048), "y": features(2 * s + 1, 16, 2048)}, layers=["x", "y"]
        )[0, 1].item()
        for s in range(200)
    ]
    assert abs(np.mean(values)) < 4 * 0.1 / np.sqrt(200)
    biased = measure(
        {"x": features(0, 16, 2048), "y": features(1, 16, 2048)},
        layers=["x", "y"],
        estimator="biased",
    )
    assert biased[0, 1] > 0.95


@pytest.mark.parametrize("wide", [6, 300])
def test_a_large_mean_costs_no_digits(wide):
    # Offsets that keep every feature exact in float32, so that only our arithmetic can lose.
    x = torch.round(features(0, 64, wide) * 64) / 64
    y = torch.round((x[:, :5] + features(1, 64, 5)) * 64) / 64
    want = oracles.cka([(x.double().numpy(), y.double().numpy())])
    got = measure({"x": x + 1e4, "y": y - 1e4}, layers=["x", "y"])
    assert got[0, 1].item() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("mean", [0.5, 2.0, 30.0])
@pytest.mark.parametrize("ends", ["like the rest", "far from the rest", "alike"])
def test_no_mean_costs_digits_whatever_the_first_and_last_sample_are(mean, ends):
    x = features(0, 48, 3000) + mean
    if ends == "far from the rest":
        x[0], x[-1] = -mean, 2 * mean
    if ends == "alike":
        x[-1] = x[0]
    y = torch.cat([x[:, :200] + features(1, 48, 200), features(2, 48, 100)], dim=1) + 1e3
    want = oracles.cka([(x.double().numpy(), y.double().numpy())])
    got = measure({"x": x, "y": y}, layers=["x", "y"])
    assert got[0, 1].item() == pytest.approx(want, abs=2e-7)


def test_one_batch_of_everything_is_the_full_set():
    x, y = features(0, 1000, 20), features(1, 1000, 5)
    y = y + x[:, :5]
    got = measure({"x": x, "y": y}, layers=["x", "y"])
    assert got[0, 1].item() == pytest.approx(oracles.cka([(x.numpy(), y.numpy())]), abs=1e-6)


@pytest.mark.parametrize("n", [64, 65])
def test_rbf_agrees_with_its_definition(n):
    x = features(0, n, 20, dtype=torch.float64)
    y = x[:, :3] + features(1, n, 3, dtype=torch.float64)
    grams = []
    for z in (x.numpy(), y.numpy()):
        squared = ((z[:, None] - z[None]) ** 2).sum(2)
        grams.append(np.exp(-squared / (2 * 0.6**2 * np.median(squared))))
    h = np.eye(n) - 1 / n
    inner = [[np.sum((h @ k @ h) * (h @ l @ h)) for k in grams] for l in grams]  # noqa: E741
    want = inner[0][1] / np.sqrt(inner[0][0] * inner[1][1])
    options = {"kernel": "rbf", "estimator": "biased", "rbf_threshold": 0.6}
    got = measure({"x": x, "y": y}, layers=["x", "y"], **options)
    assert got[0, 1].item() == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_raised_first(dtype):
    x = (features(0, 64, 50 * 768) * 8 + 2).to(dtype)
    y = features(1, 64, 900).to(dtype)
    got = measure({"x": x, "y": y}, layers=["x", "y"])
    want = oracles.cka([(x.double().numpy(), y.double().numpy())])
    assert got[0, 1].item() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_autocast_and_fast_matmul_settings_do_not_reach_the_grams(precision):
    x, y = features(0, 64, 3000), features(1, 64, 700)
    plain = measure({"x": x, "y": y}, layers=["x", "y"])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = measure({"x": x, "y": y}, layers=["x", "y"])
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(got, plain)


def test_shapes_of_two_models_towers_and_maps():
    model_a = {"x": features(0, 20, 3, 8, 8), "y": features(1, 20, 12, 16)}
    model_b = {"z": features(2, 20, 7)}
    metric = CKA(["x", "y"], ["z"])
    metric.update(model_a, model_b)
    two_models = metric.compute()
    metric.reset()
    metric.update({**model_a, **model_b})
    assert two_models.shape == (2, 1)
    assert torch.equal(two_models, metric.compute())
    metric = CKA(["x", "y"])
    metric.update(model_a, {"x": model_a["y"], "y": model_a["x"]})
    assert metric.compute()[0, 1].item() == pytest.approx(1)


def test_memory_formats_do_not_matter():
    x = features(0, 20, 6, 8, 8)
    batch = {"x": x, "last": x.to(memory_format=torch.channels_last), "view": x.transpose(1, 3)}
    assert torch.allclose(measure(batch, layers=list(batch)), torch.ones(3, 3).double(), atol=1e-7)


def test_nothing_of_the_features_is_changed():
    batch = related(0, 32)
    copies = {name: x.clone() for name, x in batch.items()}
    measure(batch)
    assert all(torch.equal(batch[name], copies[name]) for name in batch)


def test_reset_starts_over():
    metric = CKA(["one", "two"])
    metric.update(related(0, 32))
    first = metric.compute()
    metric.update(related(50, 32))
    metric.reset()
    metric.update(related(0, 32))
    assert torch.equal(metric.compute(), first)


@pytest.mark.parametrize("width", [3, 500])
@pytest.mark.parametrize("value", [0.0, 1.1, 12345.678])
def test_constant_layers_have_no_cka_and_are_reported(width, value):
    batch = {"x": features(0, 48, 20), "dead": torch.full((48, width), value)}
    with pytest.warns(UserWarning, match="layer 'dead' is constant.* in 2 of 2 batches"):
        got = measure(batch, batch, layers=["x", "dead"])
    assert got[0, 0] == pytest.approx(1)
    assert got[0, 1].isnan() and got[1, 0].isnan() and got[1, 1].isnan()


def test_equal_distances_have_no_unbiased_cka():
    batch = {"x": torch.eye(16) * 3, "y": features(0, 16, 200)}
    with pytest.warns(UserWarning, match="layer 'x' is constant, or without dependence"):
        got = measure(batch, layers=["x", "y"])
    assert got[0, 1].isnan() and got[1, 1] == pytest.approx(1)


@pytest.mark.parametrize("width", [3, 500])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_layers_that_are_not_finite_spoil_only_themselves(bad, width):
    batch = {"x": features(0, 32, 20), "bad": features(1, 32, width), "y": features(2, 32, 300)}
    batch["bad"][3, 2] = bad
    with pytest.warns(UserWarning, match="layer 'bad' is not finite .* in 1 of 1"):
        got = measure(batch, layers=list(batch))
    assert got.isfinite().tolist() == [[True, False, True], [False] * 3, [True, False, True]]


def test_batches_under_four_samples_are_left_out_and_counted():
    whole, rest = related(0, 32), related(5, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        want = measure(whole)
    with pytest.warns(UserWarning, match="1 of 2 batches have under 4 samples"):
        assert torch.equal(measure(whole, rest), want)
    with pytest.warns(UserWarning, match="every entry is NaN"):
        assert measure(rest).isnan().all()


def test_an_empty_compute_warns_and_gives_nan():
    with pytest.warns(UserWarning):
        got = CKA(["a", "b"], ["c"]).compute()
    assert got.shape == (2, 1) and got.isnan().all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layers_a": []}, "at least one layer"),
        ({"layers_a": "conv"}, "at least one layer"),
        ({"layers_a": ["a", "a"]}, "'a' more than once"),
        ({"layers_a": ["a"], "kernel": "rbv"}, "did you mean 'rbf'"),
        ({"layers_a": ["a"], "estimator": "unbiassed"}, "did you mean 'unbiased'"),
        ({"layers_a": ["a"], "weighting": "pair"}, "did you mean 'pairs'"),
        ({"layers_a": ["a"], "rbf_threshold": 0}, "greater than 0"),
        ({"layers_a": ["a"], "kernel": "rbf", "rbf_sigma": -1}, "greater than 0"),
        ({"layers_a": ["a"], "rbf_sigma": 2.0}, "goes with kernel=rbf, not kernel=linear"),
        (
            {"layers_a": ["a"], "kernel": "rbf", "rbf_sigma": 2.0, "rbf_threshold": 0.5},
            "give one of them",
        ),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        CKA(**options)


@pytest.mark.parametrize(
    "batch, message",
    [
        ({"x": torch.zeros(8, 2)}, "no features for layer 'y'"),
        ({"x": torch.zeros(8, 2), "y": torch.zeros(9, 2)}, "'y' has 9 samples where 'x' has 8"),
        ({"x": torch.zeros(8, 2), "y": torch.zeros(())}, "shape"),
        ({"x": torch.zeros(8, 2), "y": torch.zeros(8, 2).cfloat()}, "must be real"),
    ],
)
def test_bad_batches_are_named(batch, message):
    with pytest.raises(UsageError, match=message):
        CKA(["x", "y"]).update(batch)


def test_one_layer_by_one_is_still_a_matrix() -> None:
    metric = CKA(["x"])
    metric.update({"x": torch.randn(8, 3, generator=torch.Generator().manual_seed(0))})
    assert metric.compute().shape == (1, 1)
    assert torch.allclose(metric.compute(), torch.ones(1, 1, dtype=torch.float64))
