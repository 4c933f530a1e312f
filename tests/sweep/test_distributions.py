"""Distributions: against scipy's, against W&B's own engine, and the same on every machine."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep.distributions import quantile
from mlmodeldev.sweep.parameters import FIELDS, Parameter
from mlmodeldev.sweep.space import uniform

WANDB = json.loads((Path(__file__).parent / "wandb_answers.json").read_text())
U = st.floats(1e-9, 1 - 1e-9)
MU, SIGMA = st.floats(-20, 20), st.floats(0.01, 20)
SHAPE = st.floats(0.2, 20)


def bounds(low, high, least=1e-3):
    """Two numbers in order, apart by at least so much of their size."""
    pair = st.tuples(st.floats(low, high), st.floats(low, high)).map(sorted)
    return pair.filter(lambda b: b[1] - b[0] > least * max(abs(b[0]), abs(b[1]), 1e-3))


def scipy_cdf(distribution, fields):
    """Return scipy's distribution function of a continuous W&B distribution."""
    low, high = fields.get("min"), fields.get("max")
    if distribution == "inv_log_uniform":
        return lambda x: stats.loguniform(math.exp(low), math.exp(high)).sf(1 / x)
    if distribution in ("normal", "log_normal"):
        mu, sigma = fields["mu"], fields["sigma"]
        normal = distribution == "normal"
        return (stats.norm(mu, sigma) if normal else stats.lognorm(sigma, scale=math.exp(mu))).cdf
    return {
        "uniform": lambda: stats.uniform(low, high - low),
        "log_uniform": lambda: stats.loguniform(math.exp(low), math.exp(high)),
        "log_uniform_values": lambda: stats.loguniform(low, high),
        "inv_log_uniform_values": lambda: stats.loguniform(low, high),
        "beta": lambda: stats.beta(fields["a"], fields["b"]),
    }[distribution]().cdf


CONTINUOUS = {
    "uniform": bounds(-1e6, 1e6).map(lambda b: {"min": b[0], "max": b[1]}),
    "log_uniform_values": bounds(1e-9, 1e6).map(lambda b: {"min": b[0], "max": b[1]}),
    "inv_log_uniform_values": bounds(1e-9, 1e6).map(lambda b: {"min": b[0], "max": b[1]}),
    "log_uniform": bounds(-30, 30).map(lambda b: {"min": b[0], "max": b[1]}),
    "inv_log_uniform": bounds(-30, 30).map(lambda b: {"min": b[0], "max": b[1]}),
    "normal": st.tuples(MU, SIGMA).map(lambda f: {"mu": f[0], "sigma": f[1]}),
    "log_normal": st.tuples(MU, SIGMA).map(lambda f: {"mu": f[0], "sigma": f[1]}),
    "beta": st.tuples(SHAPE, SHAPE).map(lambda f: {"a": f[0], "b": f[1]}),
}


@pytest.mark.parametrize("distribution", CONTINUOUS)
def test_continuous_quantiles_invert_scipys_distribution_function(distribution):
    @settings(max_examples=80, deadline=None)
    @given(CONTINUOUS[distribution], U)
    def inverts(fields, u):
        value = quantile(Parameter("p", distribution, fields), u)
        if not 0 < value < 1 and distribution == "beta":
            return  # beyond the ends of what a float can tell from 0 and 1
        # What scipy can tell: its logarithms and differences carry some 15 digits.
        digits = 1e-9 if distribution == "beta" else 1e-14
        slack = 1e-12 + digits * steepness(fields, distribution, value)
        assert scipy_cdf(distribution, fields)(value) == pytest.approx(u, abs=slack, rel=1e-6)

    inverts()


def steepness(fields, distribution, value):
    """Return how much the function changes with a relative change of the value, at most."""
    if distribution == "uniform":
        return max(abs(fields["min"]), abs(fields["max"])) / (fields["max"] - fields["min"])
    if distribution == "normal":
        return (abs(value) + abs(fields["mu"])) / fields["sigma"]
    if distribution == "log_normal":
        return (1 + abs(fields["mu"])) / fields["sigma"]
    if distribution == "beta":
        return value * stats.beta(fields["a"], fields["b"]).pdf(value)
    low, high = fields["min"], fields["max"]
    if distribution.endswith("_values"):
        low, high = math.log(low), math.log(high)
    return 50 / (high - low)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CONTINUOUS)), st.data(), U, st.sampled_from([1, 2.0, 0.25, 7]))
def test_quantised_values_are_the_nearest_multiples(distribution, data, u, q):
    if f"q_{distribution}" not in FIELDS:
        return
    fields = data.draw(CONTINUOUS[distribution])
    smooth = quantile(Parameter("p", distribution, fields), u)
    stepped = quantile(Parameter("p", f"q_{distribution}", {**fields, "q": q}), u)
    assert abs(stepped - smooth) <= q / 2 * (1 + 1e-9) + abs(smooth) * 1e-9
    assert abs(stepped) > 2**52 or stepped % q == 0
    assert isinstance(stepped, int) == float(q).is_integer() or abs(smooth / q) > 2**53


@settings(max_examples=200, deadline=None)
@given(st.integers(-50, 50), st.integers(1, 60), st.integers(0, 2**20 - 1))
def test_integers_are_equally_likely(low, size, k):
    u = (k + 0.5) / 2**20
    value = quantile(Parameter("p", "int_uniform", {"min": low, "max": low + size - 1}), u)
    expected = stats.randint(low, low + size).ppf(u)
    assert value == expected or abs(u * size - round(u * size)) < 1e-5
    assert type(value) is int


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), st.integers(0, 999))
def test_chances_are_kept_and_zero_chance_is_never(weights, k):
    chances = [weight / sum(weights) for weight in weights]
    fields = {"values": list(range(len(weights))), "probabilities": chances}
    value = quantile(Parameter("p", "categorical", fields), (k + 0.5) / 1000)
    assert weights[value] > 0
    below, upto = sum(chances[:value]), sum(chances[: value + 1])
    assert below - 1e-9 <= (k + 0.5) / 1000 <= upto + 1e-9


def test_ends_of_a_range_hold():
    for u in (2.0**-53, 0.5, 1 - 2.0**-53):
        for low, high in ((1e-300, 1e300), (0.1, 0.3), (1e-5, 1.0)):
            fields = {"min": low, "max": high}
            for distribution in ("uniform", "log_uniform_values", "inv_log_uniform_values"):
                assert low <= quantile(Parameter("p", distribution, fields), u) <= high
        huge = {"min": 0, "max": 10**30}
        assert 0 <= quantile(Parameter("p", "int_uniform", huge), u) <= 10**30


def test_a_value_beyond_all_floats_is_refused():
    fields = {"mu": 0.0, "sigma": 1000.0}
    with pytest.raises(UsageError, match="p: log_normal gives values beyond"):
        quantile(Parameter("p", "log_normal", fields), 0.999)


@pytest.mark.parametrize("answer", WANDB["distributions"], ids=lambda a: json.dumps(a["spec"]))
def test_wandbs_engine_agrees(answer, sweep):
    config = {"method": "random", "run_cap": 1, "parameters": {"p": answer["spec"]}}
    (parameter,) = sweep(yaml.safe_dump(config)).definition.parameters
    ours = [quantile(parameter, u) for u in WANDB["quantiles"]]
    if isinstance(answer["values"][0], str):
        assert ours == answer["values"]
    else:
        assert ours == pytest.approx(answer["values"], rel=1e-9, abs=1e-12)


def test_draws_are_the_same_on_every_machine():
    # Recorded once; another platform, Python or libm must come to the same bits.
    draws = [uniform(7, i, 0, "optimizer.lr") for i in range(3)]
    assert draws == [0.08920946567141075, 0.7802757274038742, 0.7125425400455424]
    normal = Parameter("p", "normal", {"mu": 0.0, "sigma": 1.0})
    assert [quantile(normal, u) for u in draws] == [
        -1.3456391126627356,
        0.7731247663782703,
        0.5608278195066919,
    ]
    log = Parameter("p", "log_uniform_values", {"min": 1e-5, "max": 0.1})
    assert [quantile(log, u) for u in draws] == [
        2.274248215887471e-05,
        0.013216087630488735,
        0.007082232177644215,
    ]


def test_uniform_numbers_are_uniform_and_unrelated():
    many = [uniform(0, i, 0, "a") for i in range(4000)]
    assert stats.kstest(many, "uniform").pvalue > 0.01
    for other in (
        [uniform(1, i, 0, "a") for i in range(4000)],
        [uniform(0, i, 1, "a") for i in range(4000)],
        [uniform(0, i, 0, "b") for i in range(4000)],
        many[1:] + many[:1],
    ):
        assert abs(stats.pearsonr(many, other).statistic) < 0.05
