"""The nearest right spelling, as every message of bad input uses it."""

from __future__ import annotations

import pytest

from mlmodeldev.errors import nearest

NAMES = ["lr", "weight_decay", "warmup_fraction", "DualEncoder", "adam", "adamw"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lrr", "lr"),
        ("l", "lr"),
        ("weightdecay", "weight_decay"),
        ("decay_weight", "weight_decay"),
        ("warmup", "warmup_fraction"),
        ("dualencoder", "DualEncoder"),
        ("adamW", "adamw"),
        ("ADAM", "adam"),
    ],
)
def test_the_nearest_name_is_suggested_as_it_is_spelt(word, meant):
    assert nearest(word, NAMES) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize("word", ["quite_other", "", "12"])
def test_nothing_is_suggested_where_nothing_is_near(word):
    assert nearest(word, NAMES) == ""


def test_any_iterable_of_names_will_do():
    assert nearest("lrr", (name for name in NAMES)) == "; did you mean 'lr'?"
    assert nearest("lr", []) == ""
