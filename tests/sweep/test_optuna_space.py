"""What Optuna searches is what W&B draws: values to and fro, marginals, bounds."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mlmodeldev.sweep import loads
from mlmodeldev.sweep.distributions import quantile
from mlmodeldev.sweep.sampler import (
    EDGE,
    distribution,
    from_quantile,
    is_native,
    to_param,
    to_value,
    tpe_sample,
)

KINDS = """
  a: {values: [x, null, {y: 1}, 0.5, 1]}
  b: {values: [x, y, z], probabilities: [0.5, 0.25, 0.25]}
  c: {min: -3, max: 40}
  d: {min: -1.5, max: 2.5}
  e: {distribution: log_uniform_values, min: 0.00001, max: 0.1}
  f: {distribution: log_uniform, min: -9.0, max: -2.0}
  g: {distribution: inv_log_uniform_values, min: 0.0001, max: 0.5}
  h: {distribution: q_uniform, min: 0.0, max: 1.0, q: 0.05}
  i: {distribution: q_log_uniform_values, min: 1, max: 1000, q: 8}
  j: {distribution: normal, mu: 2.0, sigma: 0.5}
  k: {distribution: q_normal, mu: 10, sigma: 4, q: 2}
  l: {distribution: log_normal, mu: -3.0, sigma: 1.0}
  m: {distribution: beta, a: 2.0, b: 5.0}
  n: {distribution: q_beta, a: 0.8, b: 1.9, q: 0.05}
  o: {values: [64, 16, 0.5, 256]}
"""
SWEEP = loads(f"method: bayes\nmetric: {{name: m}}\nparameters:{KINDS}")
PARAMETERS = {parameter.name: parameter for parameter in SWEEP.space.searched}


@pytest.mark.parametrize("name", PARAMETERS)
@given(u=st.floats(EDGE, 1 - EDGE))
def test_a_value_finds_back_to_its_place(name, u):
    parameter = PARAMETERS[name]
    param = from_quantile(parameter, u)
    value = to_value(parameter, param)
    assert distribution(parameter)._contains(distribution(parameter).to_internal_repr(param))
    if is_native(parameter) or "values" in parameter.fields:
        assert value == quantile(parameter, u)
    back = to_param(parameter, value)
    assert back is not None
    again = to_value(parameter, back)
    assert again == (
        value
        if "q" in parameter.fields or parameter.name in "abco"
        else pytest.approx(value, rel=2e-4, abs=2e-4)
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("a", "w"), ("b", 0.25), ("c", 41), ("c", 0.5), ("d", 2.6), ("e", 0.2), ("h", 0.03),
     ("g", 0.9), ("m", 1.5), ("j", "x"), ("j", True)],
)  # fmt: skip
def test_a_value_that_is_never_drawn_has_no_place(name, value):
    assert to_param(PARAMETERS[name], value) is None


def test_the_private_method_of_optunas_sampler_is_still_there():
    """`tpe_sample` calls it: without it a bayes search could suggest nothing."""
    study = optuna.create_study()
    study.add_trial(
        optuna.create_trial(
            value=1.0, params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}
        )
    )
    sampler = optuna.samplers.TPESampler(n_startup_trials=0, multivariate=True, seed=0)
    params = tpe_sample(sampler, study, {"x": FloatDistribution(0, 1)})
    assert params.keys() == {"x"}
    assert 0 <= params["x"] <= 1
    assert len(study.trials) == 1, "nothing is written to the study"


def test_optuna_has_the_plain_ones_itself():
    assert {n for n, p in PARAMETERS.items() if is_native(p)} == {"a", "c", "d", "e", "o"}
    assert distribution(PARAMETERS["o"]) == IntDistribution(0, 3)
    assert [to_value(PARAMETERS["o"], place) for place in range(4)] == [0.5, 16, 64, 256]
    assert isinstance(distribution(PARAMETERS["a"]), CategoricalDistribution)
    assert distribution(PARAMETERS["e"]) == FloatDistribution(0.00001, 0.1, log=True)
