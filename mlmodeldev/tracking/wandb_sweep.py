"""What a W&B agent says to the server, and what the server answers.

Example::

    sweep = RemoteSweep.find("entity/project/ab12cd34")
    agent = sweep.register()
    sweep.heartbeat(agent, running=[])     # [{"type": "run", "run_id": ..., "args": ...}]
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from mlmodeldev.errors import UsageError
from mlmodeldev.tracking.wandb_api import Refused, ask

_FIND = """
query SweepWithRuns($entity: String, $project: String, $sweep: String!) {
  project(name: $project, entityName: $entity) {
    sweep(sweepName: $sweep) { id name state method config }
  }
}
"""
_REGISTER = """
mutation CreateAgent(
  $host: String!, $projectName: String, $entityName: String, $sweep: String!
) {
  createAgent(input: {
    host: $host, projectName: $projectName, entityName: $entityName, sweep: $sweep
  }) { agent { id } }
}
"""
_HEARTBEAT = """
mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
  agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) {
    agent { id }
    commands
  }
}
"""
_OVER = ("FINISHED", "CANCELED", "CANCELLED", "STOPPED", "CRASHED", "FAILED")


@dataclass(frozen=True)
class RemoteSweep:
    """A sweep on the W&B server."""

    entity: str
    project: str
    id: str
    config: dict[str, Any]

    @classmethod
    def find(cls, path: str) -> RemoteSweep:
        """Return the sweep that ``ENTITY/PROJECT/ID`` names.

        Raises:
            UsageError: the path is none, or there is no such sweep.
            Unreachable: the server does not answer.
        """
        entity, project, name = split_path(path)
        found = _read(entity, project, name)
        if found is None:
            raise UsageError(f"{path}: there is no such sweep (or the key has no right to it)")
        return cls(entity, project, name, yaml.safe_load(found["config"]) or {})

    @property
    def program(self) -> str:
        """The program that the sweep names."""
        return str(self.config.get("program") or "trainer.py")

    def over(self) -> bool:
        """Return whether the server hands out no more runs of it."""
        found = _read(self.entity, self.project, self.id)
        return found is None or str(found["state"]).upper() in _OVER

    def register(self) -> str:
        """Return the id of a new agent."""
        names = {"entityName": self.entity or None, "projectName": self.project, "sweep": self.id}
        answer = ask(_REGISTER, {"host": socket.gethostname(), **names})
        return str(answer["createAgent"]["agent"]["id"])

    def heartbeat(self, agent: str, running: Iterable[str]) -> list[dict[str, Any]]:
        """Say which runs an agent has under way; return what it is told to do."""
        state = json.dumps(dict.fromkeys(running, True))
        answer = ask(_HEARTBEAT, {"id": agent, "metrics": "{}", "runState": state})
        commands: list[dict[str, Any]] = json.loads(answer["agentHeartbeat"]["commands"] or "[]")
        return commands


def split_path(path: str) -> tuple[str, str, str]:
    """Return entity, project and id; a part that is left out comes from the environment.

    Raises:
        UsageError: it is none, or a part is nowhere.
    """
    parts = path.strip("/").split("/")
    defaults = [os.environ.get("WANDB_ENTITY") or "", os.environ.get("WANDB_PROJECT") or ""]
    entity, project, name = [*defaults[: 3 - len(parts)], *parts, "", "", ""][:3]
    if len(parts) > 3 or not all(re.fullmatch(r"[\w.-]+", each) for each in (project, name)):
        raise UsageError(
            f"{path!r}: is no sweep; 'wandb sweep sweep/config.yaml' prints one: ENTITY/PROJECT/ID"
        )
    return entity, project, name


def _read(entity: str, project: str, name: str) -> dict[str, Any] | None:
    try:
        answer = ask(_FIND, {"entity": entity or None, "project": project, "sweep": name})
    except Refused:
        return None
    found: dict[str, Any] | None = ((answer or {}).get("project") or {}).get("sweep")
    return found
