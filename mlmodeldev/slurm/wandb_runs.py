"""Trials that W&B holds: what is done elsewhere is not run again here.

Example::

    sweep_state = with_wandb(sweep_state, "team/digits")     # None: the project of the settings
    sweep_state.entries[0].state                    # "done", though runs/ has nothing of it

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
from mlmodeldev.settings.renamed import current_configuration
from mlmodeldev.tracking.bounded import Unreachable
from mlmodeldev.tracking.wandb_api import Refused, host, key_for, query_server
from mlmodeldev.trial.configuration import MAY_CHANGE_IN_SWEEPS, first_difference

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry

GROUPS = ("model", "data", "optimizer", "processing", "training")
"""Settings that must be the same where a run counts for a trial."""
_MAY_DIFFER = tuple(
    key for key in MAY_CHANGE_IN_SWEEPS if key not in ("training.max_epochs", "training.max_steps")
)
_RANK = ("done", "pruned", "running", "failed")
"""The state that counts, where several runs are of one trial."""


def add_wandb_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--wandb``."""
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="",
        metavar="ENTITY/PROJECT",
        help="count what this W&B project holds as well (default: logger.wandb's project)",
    )


def with_wandb(sweep_state: SweepState, place: str | None) -> SweepState:
    """Return the sweep with what W&B holds of its trials.

    Args:
        sweep_state: the sweep.
        place: ``ENTITY/PROJECT`` or ``PROJECT``; empty: as ``logger.wandb`` says; None: unasked.

    Raises:
        UsageError: a search, which declares no trials; no such place; no answer.
    """
    if place is None:
        return sweep_state
    if sweep_state.is_search:
        raise UsageError("--wandb: a search declares no trials that W&B might hold; leave it out")
    runs = trial_runs(*_project(sweep_state, place))
    states = {
        e.trial.id: state
        for e in sweep_state.entries
        if (state := _state(sweep_state, e, runs.get(e.trial.id, ())))
    }
    counts = ", ".join(f"{n} {name}" for name, n in Counter(states.values()).most_common())
    print(f"W&B holds {len(states)} of {len(sweep_state.entries)} trials: {counts or 'none'}",
          file=sys.stderr)  # fmt: skip
    return with_wandb_states(sweep_state, states)


def with_wandb_states(sweep_state: SweepState, states: dict[str, str]) -> SweepState:
    """Return the sweep with its trials' states in W&B, by identity."""
    entries = [replace(e, wandb_state=states.get(e.trial.id)) for e in sweep_state.entries]
    return replace(sweep_state, entries=entries, wandb_states=states)


def _project(sweep_state: SweepState, place: str) -> tuple[str | None, str]:
    if place:
        entity, _, project = place.strip("/").rpartition("/")
        if not project or "/" in entity:
            raise UsageError(f"--wandb {place}: must be ENTITY/PROJECT, or PROJECT")
        return entity or None, project
    settings = sweep_state.base.logger.wandb
    if settings is None:
        raise UsageError("--wandb: name the project, ENTITY/PROJECT; the settings have no W&B")
    return settings.entity, settings.project


def _state(sweep_state: SweepState, entry: TrialEntry, runs: Sequence[WandbRun]) -> str | None:
    """Return a trial's state in W&B; None if it holds none of it, or only this folder's own."""
    own = entry.record.get("wandb_id")
    others = [run for run in runs if run.id != own or run.state in ("done", "pruned")]
    if not others:
        return None
    settings = _settings_of_trial(sweep_state, entry)
    states = {run.state for run in others if not _difference(run.settings, settings)}
    return next((state for state in _RANK if state in states), None)


def _settings_of_trial(sweep_state: SweepState, entry: TrialEntry) -> dict[str, Any]:
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.settings.overrides import to_overrides

    overrides = [*sweep_state.overrides, *to_overrides(entry.trial.overrides)]
    return compose_settings(overrides).model_dump(include=set(GROUPS))


def _difference(run: dict[str, Any], trial: dict[str, Any]) -> str:
    """Return the first setting that differs; one that the run has not written down does not."""
    run = current_configuration(run, trial["model"])
    for group in GROUPS:
        written, wanted = run.get(group, {}), trial[group]
        common = [key for key in wanted if key in written]
        old, new = ({key: values[key] for key in common} for values in (written, wanted))
        if difference := first_difference(old, new, group, _MAY_DIFFER):
            return difference
    return ""


# --- what W&B has

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
        settings: its own, by group, as far as they were written down.
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
    try:  # before the client, which would try again for minutes, and ask for a key
        query_server(_VIEWER, seconds=SECONDS)
    except (Unreachable, Refused) as error:
        raise UsageError(f"--wandb {place}: {error}") from None
    by_identity: dict[str, list[WandbRun]] = {}
    for each in _client_runs(place):
        if run := _trial_run(each.id, each.state, each.config, each.summary_metrics):
            by_identity.setdefault(run.identity, []).append(run)
    return by_identity


def _client_runs(place: str) -> list[Any]:
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


def _trial_run(
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
    return WandbRun(name, identity.partition("-")[0], ours, _settings_of_run(config))


def _settings_of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups, with swept values, which stand under their dotted names, in place."""
    groups = {key: dict(value) for key, value in config.items() if isinstance(value, Mapping)}
    for key, value in config.items():
        group, _, name = key.partition(".")
        if name and "." not in name:
            groups.setdefault(group, {})[name] = value
    return groups
