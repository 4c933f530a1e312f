"""A first sweep of a repository's own model and data: a few values around each number.

Example::

    parameters({"model": {"lr": 0.001}, "data": {"batch_size": 32}}, own_optimizer=True)
    # {"model.lr": [0.0003, 0.001, 0.003], "data.batch_size": [16, 32, 64]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

MOST = 4
"""So many parameters: more make a search of a few trials blind."""
TRIALS = 8
_RATE = re.compile(r"(^|_)(lr|learning_rate|base_lr|max_lr)$")
_DECAY = re.compile(r"(^|_)(weight_decay|wd)$")
_DROP = re.compile(r"drop(out|_?path|_?rate|_?prob)?(_|$)|^p_drop")
_SIZE = re.compile(
    r"hidden|width|depth|units|embed|latent|num_layers|n_layers|num_filters|lin\d*_size|d_model"
)
_BATCH = re.compile(r"^(train_)?batch_size$")
_GIVEN_BY_DATA = re.compile(r"^(in|out)(put)?_|num_classes|n_classes|image|img|vocab")


class _OneLine(list[Any]):
    """A list that is written on one line."""


class _Dumper(yaml.SafeDumper):
    """Writes a `_OneLine` as what it is."""


_Dumper.add_representer(
    _OneLine,
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)


def parameters(
    settings: Mapping[str, Mapping[str, Any]], own_optimizer: bool
) -> dict[str, list[Any]]:
    """Return values to try, by their dotted keys: rates first, the default among them.

    Args:
        settings: of ``model`` and ``data``, nested objects included.
        own_optimizer: whether the model makes its own; else there is ``optimizer.lr``.
    """
    tried_by_rank: list[tuple[int, str, list[Any]]] = []
    if not own_optimizer:
        tried_by_rank.append((0, "optimizer.lr", [0.0006, 0.002, 0.006]))
    for group, values in settings.items():
        for key, value in _numbers(group, values):
            rank, tried = _values(group, key.rpartition(".")[2], value)
            if tried:
                tried_by_rank.append((rank, key, tried))
    tried_by_rank.sort(key=lambda item: item[0])
    return {key: values for _, key, values in tried_by_rank[:MOST]}


def _numbers(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(f"{prefix}.{name}", value)
        elif type(value) in (int, float):
            yield f"{prefix}.{name}", value


def _values(group: str, name: str, value: float) -> tuple[int, list[Any]]:
    """Return the rank of an argument, by its name, and values around its default."""
    if _RATE.search(name) and value > 0:
        return 0, [_round(value / 3), value, _round(value * 3)]
    if group == "data":
        whole = _BATCH.search(name) and type(value) is int and value >= 2
        return (1, [int(value) // 2, value, int(value) * 2]) if whole else (9, [])
    if _DROP.search(name) and type(value) is float and 0 <= value < 1:
        return 3, sorted({0.0, value, _round(min(0.5, value + 0.1))})
    if _DECAY.search(name):
        return 4, [_round(value / 10), value, _round(value * 10)] if value else [0.0, 0.01]
    size = _SIZE.search(name) and not _GIVEN_BY_DATA.search(name)
    if size and type(value) is int and value >= 2:
        return 2, [value // 2, value, value * 2]
    return 9, []


def _round(value: float) -> float:
    return float(f"{value:.1g}")


def sweep_text(
    name: str, values: Mapping[str, list[Any]], monitor: str, mode: str, epochs: int
) -> str:
    """Return the content of sweep/config.yaml: few values all, of many some drawn at random."""
    size = 1
    for tried in values.values():
        size *= len(tried)
    search = {"method": "random", "run_cap": TRIALS} if size > TRIALS else {"method": "grid"}
    trials = min(size, TRIALS) if values else 3
    content: dict[str, Any] = {
        "name": name,
        "program": "trainer.py",
        **search,
        "metric": {"name": monitor, "goal": "minimize" if mode == "min" else "maximize"},
        "parameters": {},
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
    }
    entries = {
        **{key: {"values": _OneLine(tried)} for key, tried in values.items()},
        "training.max_epochs": {"value": epochs},
    }
    if not values:
        entries["training.seed"] = {"values": _OneLine([0, 1, 2])}
    content["parameters"] = entries
    head = (
        f"# A first sweep of {name}: a few values around each default.\n#\n"
        "# Command:              python slurm/SlurmTrain.py\n"
        f"# Expected best value:  {monitor}, not measured yet\n"
        f"# Cost:                 {trials} trials of {epochs} epochs\n#\n"
        "# python -m mlmodeldev.sweep check sweep/config.yaml checks it.\n"
    )
    return head + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
