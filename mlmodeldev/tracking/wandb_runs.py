"""The trials that a W&B project holds, by their identity: what ran elsewhere need not run again.

Example::

    found = trial_runs("team", "digits")
    found["gtsqtqg3"][0].state          # done, pruned, running or failed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.tracking.wandb_api import Refused, Unreachable, ask, host, key_for

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
class FoundRun:
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


def trial_runs(entity: str | None, project: str) -> dict[str, list[FoundRun]]:
    """Return the trials' runs in a project, by identity.

    Args:
        entity: team or user; None: the account's default.
        project: its name.

    Raises:
        UsageError: no key, no answer, or no such project.
    """
    place = f"{entity}/{project}" if entity else project
    try:
        ask(_VIEWER, seconds=SECONDS)  # the client would try again for minutes, and ask for a key
    except (Unreachable, Refused) as error:
        raise UsageError(f"--wandb {place}: {error}") from None
    found: dict[str, list[FoundRun]] = {}
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
) -> FoundRun | None:
    """Return a run as a trial; None if it is none of ours."""
    trial = config.get("trial")
    identity = trial.get("identity") if isinstance(trial, Mapping) else None
    if not isinstance(identity, str):
        return None
    ours = _STATES.get(state, "running")
    if ours == "done" and summary.get("state") == "pruned":
        ours = "pruned"
    # a point that a sweep draws twice may have a folder of its own: IDENTITY-RUN
    return FoundRun(name, identity.partition("-")[0], ours, _settings(config))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups, with swept values, which stand under their dotted names, in place."""
    groups = {key: dict(value) for key, value in config.items() if isinstance(value, Mapping)}
    for key, value in config.items():
        group, _, name = key.partition(".")
        if name and "." not in name:
            groups.setdefault(group, {})[name] = value
    return groups
