"""Typed settings: no silent change of type, ranges, literals, unions, and what the line says."""

from __future__ import annotations

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings import Settings, validate

BASE = {"model": {"_target_": "another.Model"}, "data": {"_target_": "another.Data"}}


def with_value(key: str, value: object) -> dict:
    tree: dict = {**BASE}
    node = tree
    *groups, leaf = key.split(".")
    for group in groups:
        node = node.setdefault(group, {})
    node[leaf] = value
    return tree


def line(key: str, value: object) -> str:
    with pytest.raises(UsageError) as error:
        validate(with_value(key, value))
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"{key}={value!r}: ")
    return text.partition(": ")[2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # a bool is no number, a number no bool, text neither
        ("training.max_epochs", True),
        ("training.max_epochs", "3"),
        ("training.max_epochs", 3.0),
        ("training.max_epochs", None),
        ("training.deterministic", 1),
        ("training.deterministic", "true"),
        ("optimizer.lr", True),
        ("optimizer.lr", "1e-5"),
        ("optimizer.lr", [0.1]),
        ("artefacts.runs_dir", 5),
        ("artefacts.trial", 2024),
        ("callbacks.cka.enabled", "no"),
        # ranges, at their edges
        ("training.max_epochs", 0),
        ("training.max_steps", -2),
        ("training.seed", -1),
        ("training.seed", 2**32),
        ("training.gradient_clip_val", 0.0),
        ("training.overfit_batches", -1),
        ("optimizer.lr", 0.0),
        ("optimizer.lr", float("nan")),
        ("optimizer.lr", float("inf")),
        ("optimizer.weight_decay", -0.1),
        ("optimizer.warmup_fraction", 1.1),
        ("processing.batch_size", 0),
        ("callbacks.progress.every_seconds", 0.0),
        ("logger.wandb.project", ""),
        # unions
        ("processing.num_workers", -1),
        ("processing.num_workers", "many"),
        ("processing.num_workers", False),
        ("processing.pin_memory", 1),
        ("training.devices", 0),
        ("training.devices", "all"),
        ("training.limit_train_batches", 0),
        ("training.limit_train_batches", 1.5),
        ("training.limit_train_batches", True),
        # names of folders stay inside of runs_dir
        ("artefacts.trial", ".."),
        ("artefacts.trial", "a/b"),
        ("artefacts.trial", ""),
        ("artefacts.trial", "a\nb"),
        ("artefacts.sweep", "/tmp"),
        ("artefacts.sweep", ".hidden"),
    ],
)
def test_refused(key, value):
    assert line(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.max_steps", -1),
        ("training.seed", 2**32 - 1),
        ("training.gradient_clip_val", None),
        ("training.devices", "auto"),
        ("training.devices", 8),
        ("training.limit_train_batches", 1),
        ("training.limit_train_batches", 0.25),
        ("training.limit_train_batches", None),
        ("optimizer.lr", 1),
        ("optimizer.warmup_fraction", 0),
        ("processing.num_workers", 0),
        ("processing.pin_memory", False),
        ("artefacts.trial", "lr-0.1_seed.3"),
        ("callbacks.cka.compare", {"x": {"a": ["*.layer.*"], "against": "start"}}),
    ],
)
def test_accepted_as_it_is(key, value):
    node: object = validate(with_value(key, value)).model_dump()
    for part in key.split("."):
        node = node[part]  # type: ignore[index]
    if isinstance(value, dict):
        assert node == {"x": {"a": ["*.layer.*"], "b": None, "against": "start", "inputs": None}}
    else:
        assert node == value


def test_the_line_says_what_is_allowed():
    assert line("training.max_epochs", 0) == "must be greater than or equal to 1"
    assert line("optimizer.name", "adamW") == (
        "must be one of 'adamw', 'adam', 'sgd'; did you mean 'adamw'?"
    )
    precision = line("training.precision", "bf16")
    assert "did you mean 'bf16-" in precision
    assert "'16-mixed'" in precision
    assert (
        line("processing.num_workers", "many") == "must be a valid integer or must be one of 'auto'"
    )
    assert "0" in line("optimizer.lr", -1.0)


def test_a_missing_group_and_an_unknown_key_deep_inside_are_named():
    with pytest.raises(UsageError, match=r"^data: is missing$"):
        validate({"model": BASE["model"]})
    with pytest.raises(UsageError, match=r"callbacks\.cka\.compare\.x\.aginst.*'against'"):
        validate(with_value("callbacks.cka.compare", {"x": {"a": "*", "aginst": "start"}}))
    with pytest.raises(UsageError, match=r"callbacks\.cka\.compare\.x\.a: is missing"):
        validate(with_value("callbacks.cka.compare", {"x": {}}))
    with pytest.raises(UsageError, match="optimizer=3: must be"):
        validate({**BASE, "optimizer": 3})


def test_betas_are_two_fractions():
    for betas in ([0.9], [0.9, 0.99, 0.999], [0.9, 1.5], 0.9):
        with pytest.raises(UsageError, match=r"^optimizer\.betas"):
            validate(with_value("optimizer.betas", betas))


def test_a_warmup_leaves_room_for_the_decay():
    with pytest.raises(UsageError, match="warmup_fraction must be below 1"):
        validate({**BASE, "optimizer": {"warmup_fraction": 1.0}})
    constant = {"warmup_fraction": 1.0, "schedule": "constant"}
    assert validate({**BASE, "optimizer": constant}).optimizer.warmup_fraction == 1.0


def test_the_place_is_looked_up_by_key():
    keys = []

    def origin(key: str) -> str:
        keys.append(key)
        return "conf/here.yaml"

    with pytest.raises(UsageError, match=r" \[conf/here\.yaml\]$"):
        validate(with_value("training.max_epochs", 0), origin=origin)
    assert keys == ["training.max_epochs"]


def test_validation_gives_settings():
    assert isinstance(validate(BASE), Settings)
