"""The quick way to identities gives those of the slow one, for overrides of every kind."""

from __future__ import annotations

import random

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import identity
from mlmodeldev.settings.many_identities import Identities

KEYS = (
    *("optimizer.lr", "training.seed", "model", "model.hidden_size", "model.width", "experiment"),
    *("artefacts.trial", "cluster", "data.x", "+a.b", "model.num_layers", "é.x"),
)
VALUES = (
    *(0.1, 1, 1.0, True, False, None, "a", 'é"x', "${optimizer.lr}", "${other}", [1, 2.0]),
    *({"a": 1}, 1e20, 1e300, -0.0, float("nan"), float("inf"), "dual_encoder", "cola", 10**30),
    *(2**60 + 1, 1e-7, "text_classifier", "my_model", ""),
)


def of(function, *arguments) -> str:
    try:
        return str(function(*arguments))
    except UsageError as error:
        return f"refused: {error}"


@pytest.mark.parametrize("seed", range(4))
def test_any_overrides_have_the_same_identity_both_ways(seed):
    draw, quick = random.Random(seed), Identities()
    for _ in range(5000):
        keys = tuple(draw.sample(KEYS, draw.randint(0, 6)))
        values = tuple(draw.choice(VALUES) for _ in keys)
        expected = of(identity, dict(zip(keys, values, strict=True)))
        assert of(quick, keys, values) == expected, (keys, values)
