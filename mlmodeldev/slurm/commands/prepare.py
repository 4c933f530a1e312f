"""``SlurmTrain.py prefetch``: on the login node, get what sealed compute nodes will need."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlmodeldev.slurm import sweep_state

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.training.prefetch import Got


PREFETCH_HELP = "get data, tokenizers and Hub models of all trials now, for nodes without a network"

_ROOTS = ("data", "model", "experiment", "callbacks")
"""Groups whose settings decide what is needed; `artefacts.data_dir` is the same for all."""


def add_prefetch_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)


def run_prefetch(asked: argparse.Namespace) -> int:
    """Fetch, then print what lies where."""
    import contextlib

    from mlmodeldev.training.prefetch import fetch_all

    known = sweep_state.read(asked, lint=False)  # each kind is composed, and checked so, below
    got: dict[tuple[str, str], Got] = {}
    with contextlib.redirect_stdout(sys.stderr):
        for settings in kinds(known):
            got.update({(each.kind, each.path): each for each in fetch_all(settings)})
    found = list(got.values())
    if asked.json:
        print(json.dumps([each.as_dict() for each in found], indent=1))
    else:
        _show(found)
    return 0


def kinds(known: SweepState) -> Iterator[Settings]:
    """Yield settings of each kind of trial: those that differ in what they need."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.settings.overrides import to_overrides

    seen: set[str] = set()
    for point in _points(known):
        own = {key: value for key, value in point.items() if _decides(key, value)}
        if (text := _canonical(own)) in seen:
            continue
        seen.add(text)
        # A compute node's own disk is not here.
        yield compose_settings([*known.overrides, *to_overrides(own), "processing.stage=never"])


def _points(known: SweepState) -> Iterator[dict[str, Any]]:
    """Yield the declared trials' values; of a search, each combination of listed values."""
    if known.entries:
        yield from (entry.trial.overrides for entry in known.entries)
        return
    listed = {
        parameter.name: parameter.fields.get("values", [parameter.fields.get("value")])
        for parameter in known.sweep.definition.parameters
        if parameter.distribution in ("categorical", "constant")
    }
    # Only what decides is combined: nobody waits for all rates times all seeds.
    values = {
        name: [value for value in some if _decides(name, value)] for name, some in listed.items()
    }
    deciding = {name: some for name, some in values.items() if some}
    for combination in itertools.product(*deciding.values()):
        yield dict(zip(deciding, combination, strict=True))


def _decides(key: str, value: Any) -> bool:
    """Whether a value changes what must be there: a model's width does not, its encoder does."""
    root = key.partition(".")[0]
    return root in _ROOTS and (root == "data" or not isinstance(value, int | float))


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _show(found: list[Got]) -> None:
    from mlmodeldev.fetch.files import human

    width = max((len(each.name) for each in found), default=4)
    for each in found:
        print(f"{each.kind:8}  {human(each.bytes):>8}  {each.name:{width}}  {each.path}")
    print(f"{'in all':8}  {human(sum(each.bytes for each in found)):>8}")
    print("sealed nodes: export HF_HUB_OFFLINE=1; the same command then checks what is here")


DOCTOR_HELP = "look at Python, disk, Slurm, profile and tracker; a fix for what is wrong"


def add_doctor_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)


def run_doctor(asked: argparse.Namespace) -> int:
    """Say what was found; 1 if something is wrong."""
    from mlmodeldev.doctor.checks import run_checks
    from mlmodeldev.settings.composition import compose_settings

    findings = list(run_checks(compose_settings(sweep_state.fixed_overrides(asked))))
    if asked.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    for finding in [] if asked.json else findings:
        print(f"{'ok   ' if finding.ok else 'WRONG'} {finding.what}")
        if finding.fix:
            print(f"      {finding.fix}")
    return 0 if all(finding.ok for finding in findings) else 1
