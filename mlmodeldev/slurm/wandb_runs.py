"""Declared trials that W&B holds: done elsewhere, they are not run again here.

Example::

    known = with_wandb(known, "team/digits")        # None: the project of the settings
    known.entries[0].state                          # "done", though runs/ has nothing of it

A run counts for a trial if it has the trial's identity and its settings: the same point under
another model, or for fewer epochs, is another trial.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.tracking.wandb_api import Refused, Unreachable, host, key_for, query_server
from mlmodeldev.trial.folder import MAY_CHANGE, first_difference

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState, TrialEntry


GROUPS = ("model", "data", "optimizer", "processing", "training")
_IGNORED = tuple(
    key for key in MAY_CHANGE if key not in ("training.max_epochs", "training.max_steps")
)
_RANK = ("done", "pruned", "running", "failed")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--wandb``."""
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="",
        metavar="ENTITY/PROJECT",
        help="count what this W&B project holds as well (default: logger.wandb's project)",
    )


def with_wandb(known: SweepState, place: str | None) -> SweepState:
    """Return the declared sweep with what W&B holds of its trials.

    Args:
        known: the sweep.
        place: ``ENTITY/PROJECT`` or ``PROJECT``; empty: as ``logger.wandb`` says; None: unasked.

    Raises:
        UsageError: a search, which declares no trials; no such place; no answer.
    """
    if place is None:
        return known

    if known.sweep.method == "bayes":
        raise UsageError("--wandb: a search declares no trials that W&B might hold")
    entity, project = _place(known, place)
    runs = trial_runs(entity, project)
    states = {
        e.trial.id: state
        for e in known.entries
        if (state := _state(known, e, runs.get(e.trial.id, ())))
    }
    counts = ", ".join(f"{n} {name}" for name, n in Counter(states.values()).most_common())
    print(f"W&B holds {len(states)} of {len(known.entries)} trials: {counts or 'none'}",
          file=sys.stderr)  # fmt: skip
    return attached(known, states)


def attached(known: SweepState, states: dict[str, str]) -> SweepState:
    """Return the declared sweep with states that W&B has told of, by identity."""
    entries = [replace(e, wandb_state=states.get(e.trial.id)) for e in known.entries]
    return replace(known, entries=entries, wandb_state=states)


def _place(known: SweepState, place: str) -> tuple[str | None, str]:
    if place:
        entity, _, project = place.strip("/").rpartition("/")
        if not project or "/" in entity:
            raise UsageError(f"--wandb {place}: must be ENTITY/PROJECT, or PROJECT")
        return entity or None, project
    chosen = known.base.logger.wandb
    if chosen is None:
        raise UsageError("--wandb: name the project, ENTITY/PROJECT; the settings have no W&B")
    return chosen.entity, chosen.project


def _state(known: SweepState, entry: TrialEntry, runs: Sequence[WandbRun]) -> str | None:
    """Return what W&B tells of a trial; None if it holds none of it, or only this folder's own."""
    own = entry.record.get("wandb_id")
    others = [run for run in runs if run.id != own or run.state in ("done", "pruned")]
    if not others:
        return None
    wanted = _wanted(known, entry)
    states = {run.state for run in others if not _difference(run.settings, wanted)}
    return next((state for state in _RANK if state in states), None)


def _wanted(known: SweepState, entry: TrialEntry) -> dict[str, Any]:
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.settings.overrides import to_overrides

    overrides = [*known.overrides, *to_overrides(entry.trial.overrides)]
    return compose_settings(overrides).model_dump(include=set(GROUPS))


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Return the first setting that differs; one that the run has not written down does not."""
    for group in GROUPS:
        old, new = found.get(group, {}), wanted[group]
        both = {key: new[key] for key in new if key in old}
        known = {key: old[key] for key in both}
        if difference := first_difference(known, both, group, _IGNORED):
            return difference
    return ""


PAGE = 200
"""Runs asked for at once; each comes with its configuration."""
SECONDS = 30
"""To wait for an answer."""
_VIEWER = "query Viewer { viewer { entity } }"
_STATES = {
    "finished": "done",
    "failed": "failed",
    "crashed": "failed",
    "killed": "failed",
}
"""Ours for W&B's; what is pending, running or preempted will go on where it is."""


@dataclass(frozen=True)
class WandbRun:
    """A trial's run in W&B.

    Attributes:
        id: the run's.
        identity: the trial's.
        state: done, pruned, running or failed.
        settings: what it was told, by group, as far as it was written down.
    """

    id: str
    identity: str
    state: str
    settings: dict[str, Any]


def trial_runs(entity: str | None, project: str) -> dict[str, list[WandbRun]]:
    """Return the trials' runs in a project, by identity.

    Args:
        entity: team or user; None: the account's default.
        project: its name.

    Raises:
        UsageError: no key, no answer, or no such project.
    """
    place = f"{entity}/{project}" if entity else project
    try:
        query_server(
            _VIEWER, seconds=SECONDS
        )  # the client would try again for minutes, and ask for a key
    except (Unreachable, Refused) as error:
        raise UsageError(f"--wandb {place}: {error}") from None
    found: dict[str, list[WandbRun]] = {}
    for run in _runs(place):
        if known := _known(run.id, run.state, run.config, run.summary_metrics):
            found.setdefault(known.identity, []).append(known)
    return found


def _runs(place: str) -> list[Any]:
    """Return the client's objects of all runs in a project."""
    from mlmodeldev.tracking.wandb_init import prepare_environment

    prepare_environment()
    import wandb

    try:
        api = wandb.Api(api_key=key_for(host()), timeout=SECONDS)
        return list(api.runs(place, per_page=PAGE, lazy=False))
    except Exception as error:  # the client's errors have no class in common
        words = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"--wandb {place}: {words}") from None


def _known(
    name: str, state: str, config: Mapping[str, Any], summary: Mapping[str, Any]
) -> WandbRun | None:
    """Return a run as a trial; None if it is none of ours."""
    trial = config.get("trial")
    identity = trial.get("identity") if isinstance(trial, Mapping) else None
    if not isinstance(identity, str):
        return None
    ours = _STATES.get(state, "running")
    if ours == "done" and summary.get("state") == "pruned":
        ours = "pruned"
    # a point that a sweep draws twice may have a folder of its own: IDENTITY-RUN
    return WandbRun(name, identity.partition("-")[0], ours, _settings(config))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups, with swept values, which stand under their dotted names, in place."""
    groups = {key: dict(value) for key, value in config.items() if isinstance(value, Mapping)}
    for key, value in config.items():
        group, _, name = key.partition(".")
        if name and "." not in name:
            groups.setdefault(group, {})[name] = value
    return groups
