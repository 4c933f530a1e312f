"""Which W&B run a trial writes to: its own for good, and no other trial's.

An agent gives a run, or ``WANDB_RUN_ID`` does; else the trial makes one. A run that is given and
belongs to another trial already is left to it: the note beside the runs tells (`trial.agent_run`),
and for runs of another machine the settings that W&B has.

Example::

    run = choose_run(settings, folder, online=True)
    run.id, run.sweep, run.place            # what `wandb.init` is to get
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlmodeldev.tracking.wandb_api import NO_ANSWER, part, query_server
from mlmodeldev.trial.agent_run import give_run, given_run, leave_agent, owner_of, take_run

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

_LONGEST_STEM = 100
_SECONDS = 5.0
_QUERY = """
query RunSettings($entity: String, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) { config } }
}
"""


@dataclass(frozen=True)
class RunChoice:
    """A trial's run.

    Attributes:
        id: the run's.
        sweep: W&B's id of the sweep that it is part of; None: of none.
        place: entity and project; empty where an agent has said so in the environment.
    """

    id: str
    sweep: str | None
    place: dict[str, Any] = field(default_factory=dict)


def choose_run(settings: Settings, folder: TrialFolder, online: bool) -> RunChoice:
    """Return the trial's run, which is in ``trial.json`` from then on.

    Args:
        settings: of the trial.
        folder: the trial's.
        online: whether W&B may be asked whose a run is that was given.
    """
    record = folder.read()
    given = os.environ.get("WANDB_RUN_ID")
    place: dict[str, Any] = {}
    if given and (given_run() or not record.get("wandb_id")):
        owner = _other_owner(settings, folder, given, online)
        if owner:
            print(f"Weights & Biases: run {given} is that of trial {owner}; this one gets its own")
            place = _place(settings, record)
            if record.get("wandb_id") == given:
                record = {**record, "wandb_id": None, "wandb_sweep": None}
            leave_agent()
            given = None
    agents = given_run()
    sweep = agents.sweep if agents else record.get("wandb_sweep")
    own = record.get("wandb_id") or given or new_run_id(folder)
    identifier = agents.id if agents else own
    folder.update(wandb_id=identifier, wandb_sweep=sweep)
    if agents:
        return RunChoice(identifier, sweep)
    return RunChoice(identifier, sweep, place or _recorded_place(settings, record))


def begin_again(folder: TrialFolder) -> Callable[[], None]:
    """Give the trial a new run, for the server takes its former one no more.

    Returns:
        What puts the former one back, where the server does not take the new one either.
    """
    record = folder.read()
    former = record.get("wandb_id")
    given = os.environ.get("WANDB_RUN_ID")
    new = new_run_id(folder)
    folder.update(wandb_id=new)
    if given:
        os.environ["WANDB_RUN_ID"] = new

    def put_back() -> None:
        folder.update(wandb_id=former)
        if given:
            os.environ["WANDB_RUN_ID"] = given

    return put_back


def new_run_id(folder: TrialFolder) -> str:
    """Return the id of a run that there is none of yet."""
    return f"{folder.id[:_LONGEST_STEM]}-{secrets.token_hex(3)}"


def _other_owner(settings: Settings, folder: TrialFolder, run: str, online: bool) -> str | None:
    """Return the trial that has a run already, ``<sweep>/<trial>``; None: this one, or nobody."""
    runs_dir, own = folder.path.parents[1], f"{folder.path.parent.name}/{folder.path.name}"
    if not take_run(folder.path, run):
        return owner_of(runs_dir, run) or "another"
    other = _owner_in_wandb(settings, run) if online else None
    if other in (None, own):
        return None
    give_run(runs_dir, run, str(other))
    return other


def _owner_in_wandb(settings: Settings, run: str) -> str | None:
    """Return the trial whose settings W&B has for a run; None: it has none, or does not say."""
    try:
        answer = query_server(_QUERY, {**_place(settings, {}), "run": run}, _SECONDS)
    except NO_ANSWER:
        return None
    config = _config_of(part(answer, "project", "run", "config"))
    sweep, trial = part(config, "sweep", "value"), part(config, "trial", "value", "identity")
    return f"{sweep}/{trial}" if sweep and trial else None


def _config_of(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None


def _place(settings: Settings, record: dict[str, Any]) -> dict[str, Any]:
    """Return where an agent, or the environment, has runs go; else what the settings say."""
    own = _recorded_place(settings, record)
    agents = {name: os.environ.get(f"WANDB_{name.upper()}") for name in own}
    return {name: agents[name] or value for name, value in own.items()}


def _recorded_place(settings: Settings, record: dict[str, Any]) -> dict[str, Any]:
    chosen = settings.logger.wandb
    assert chosen is not None
    if path := record.get("wandb_path"):
        entity, project, _ = path.split("/")
        return {"entity": entity, "project": project}
    if place := record.get("wandb_place"):  # of the agent whose run was another trial's
        return {"entity": place[0], "project": place[1] or chosen.project}
    return {"entity": chosen.entity, "project": chosen.project}
