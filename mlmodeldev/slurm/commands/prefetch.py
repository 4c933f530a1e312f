"""``SlurmTrain.py prefetch``: on the login node, get what sealed compute nodes will need."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm.sweep_state import add_sweep_options, read_sweep_state

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.training.prefetch import Got


PREFETCH_HELP = "get data, tokenizers and Hub models of all trials now, for nodes without a network"

_ROOTS = ("data", "model", "experiment", "callbacks")
"""Groups whose settings decide what is needed; `artefacts.data_dir` is the same for all."""


def add_prefetch_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_sweep_options(parser)


def run_prefetch(args: argparse.Namespace) -> int:
    """Fetch, then print what lies where."""
    from mlmodeldev.training.prefetch import fetch_all

    sweep_state = read_sweep_state(args, lint=False)  # each kind is composed, and so checked
    by_path: dict[tuple[str, str], Got] = {}
    with contextlib.redirect_stdout(sys.stderr):
        for settings in kinds(sweep_state):
            by_path.update({(each.kind, each.path): each for each in fetch_all(settings)})
    fetched = list(by_path.values())
    if args.json:
        print(json.dumps([each.as_dict() for each in fetched], indent=1))
    else:
        _print_fetched(fetched)
    return 0


def kinds(sweep_state: SweepState) -> Iterator[Settings]:
    """Yield settings of each kind of trial: those that differ in what they need."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.settings.overrides import to_overrides

    seen: set[str] = set()
    for point in _points(sweep_state):
        own = {key: value for key, value in point.items() if _decides(key, value)}
        text = json.dumps(own, sort_keys=True, default=str)
        if text in seen:
            continue
        seen.add(text)
        # A compute node's own disk is not here.
        yield compose_settings(
            [*sweep_state.overrides, *to_overrides(own), "processing.stage=never"]
        )


def _points(sweep_state: SweepState) -> Iterator[dict[str, Any]]:
    """Yield the declared trials' values; of a search, each combination of listed values."""
    if sweep_state.entries:
        yield from (entry.trial.overrides for entry in sweep_state.entries)
        return
    deciding: dict[str, list[Any]] = {}
    for parameter in sweep_state.sweep.definition.parameters:
        if parameter.distribution in ("categorical", "constant"):
            values = parameter.fields.get("values", [parameter.fields.get("value")])
            # Only what decides is combined: nobody waits for all rates times all seeds.
            if chosen := [value for value in values if _decides(parameter.name, value)]:
                deciding[parameter.name] = chosen
    for combination in itertools.product(*deciding.values()):
        yield dict(zip(deciding, combination, strict=True))


def _decides(key: str, value: Any) -> bool:
    """Return whether a value changes what is needed: a model's width does not, its encoder does."""
    root = key.partition(".")[0]
    return root in _ROOTS and (root == "data" or not isinstance(value, int | float))


def _print_fetched(fetched: list[Got]) -> None:
    from mlmodeldev.fetch.files import human

    width = max((len(each.name) for each in fetched), default=4)
    for each in fetched:
        print(f"{each.kind:8}  {human(each.bytes):>8}  {each.name:{width}}  {each.path}")
    print(f"{'in all':8}  {human(sum(each.bytes for each in fetched)):>8}")
    print("sealed nodes: export HF_HUB_OFFLINE=1; the same command then checks what is here")
