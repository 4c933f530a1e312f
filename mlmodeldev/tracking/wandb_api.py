"""The W&B server: its address, the key for it, and questions in GraphQL.

The key is read where it is used, from ``WANDB_API_KEY`` or ``.netrc``, and is neither kept nor
shown. Questions go past the client, which answers none while it is not logged in.

Example::

    query_server("query Viewer { viewer { entity } }")["viewer"]["entity"]
"""

from __future__ import annotations

import configparser
import json
import netrc
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from mlmodeldev.errors import UsageError

_PROJECT = re.compile(r"[^/\\#?%:]+")
"""W&B allows all other characters in a project's name, blanks too."""

DEFAULT_HOST = "https://api.wandb.ai"
"""Said explicitly, for the client's own default has changed between versions."""


class Unreachable(Exception):
    """The server did not answer; it may do so later."""


class Refused(Exception):
    """The server answered that it will not: there is no such thing, or no right to it."""


def host() -> str:
    """Return the server's address: the environment's, else what ``wandb login --host`` noted."""
    return (os.environ.get("WANDB_BASE_URL") or _noted_host() or DEFAULT_HOST).rstrip("/")


def _noted_host() -> str | None:
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    reader = configparser.ConfigParser(interpolation=None)
    try:
        reader.read(Path(folder).expanduser() / "settings")
        return reader.get("default", "base_url", fallback=None)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return None


def key_for(address: str) -> str | None:
    """Return the key for a server, if there is one."""
    key = os.environ.get("WANDB_API_KEY")
    if key:
        return key
    try:
        # by host and port, as the client writes and looks it up
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(address).netloc)
    except (OSError, netrc.NetrcParseError):
        return None
    return entry[2] if entry and entry[2] else None


def query_server(
    query: str, variables: Mapping[str, Any] | None = None, seconds: float = 20
) -> Any:
    """Return the answer's data.

    Args:
        query: GraphQL.
        variables: of the query.
        seconds: to wait for the answer.

    Raises:
        UsageError: there is no key, or the server takes it for none.
        Unreachable: no answer, or an error of the server's own (5xx, 429).
        Refused: any other error.
    """
    import requests

    address = host()
    key = key_for(address)
    if not key:
        raise UsageError(f"{address}: there is no key (run 'wandb login', or set WANDB_API_KEY)")
    try:
        answer = requests.post(
            f"{address}/graphql",
            json={"query": query, "variables": dict(variables or {})},
            auth=("api", key),
            timeout=seconds,
        )
    except requests.RequestException as error:
        raise Unreachable(f"{address}: {type(error).__name__}") from None
    if answer.status_code in (401, 403):
        raise UsageError(f"{address}: the key is not accepted; run 'wandb login --relogin'")
    if answer.status_code >= 500 or answer.status_code == 429:
        raise Unreachable(f"{address}: status {answer.status_code}")
    return _data(address, answer)


def _data(address: str, answer: Any) -> Any:
    try:
        content = answer.json()
    except ValueError:
        raise Unreachable(f"{address}: answers no JSON") from None
    if content.get("errors") or "data" not in content:
        messages = [str(error.get("message")) for error in content.get("errors") or []]
        raise Refused("; ".join(messages) or f"status {answer.status_code}")
    return content["data"]


_SWEEP = """
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
        sweep = _read_sweep(entity, project, name)
        if sweep is None:
            raise UsageError(f"{path}: there is no such sweep (or the key has no right to it)")
        return cls(entity, project, name, yaml.safe_load(sweep["config"]) or {})

    @property
    def program(self) -> str:
        """The program that the sweep names."""
        return str(self.config.get("program") or "trainer.py")

    def over(self) -> bool:
        """Return whether the server hands out no more runs of it."""
        sweep = _read_sweep(self.entity, self.project, self.id)
        return sweep is None or str(sweep["state"]).upper() in _OVER

    def register(self) -> str:
        """Return the id of a new agent."""
        names = {"entityName": self.entity or None, "projectName": self.project, "sweep": self.id}
        answer = query_server(_REGISTER, {"host": socket.gethostname(), **names})
        return str(answer["createAgent"]["agent"]["id"])

    def heartbeat(self, agent: str, running: Iterable[str]) -> list[dict[str, Any]]:
        """Say which runs an agent has under way; return what it is told to do."""
        state = json.dumps(dict.fromkeys(running, True))
        answer = query_server(_HEARTBEAT, {"id": agent, "metrics": "{}", "runState": state})
        commands: list[dict[str, Any]] = json.loads(answer["agentHeartbeat"]["commands"] or "[]")
        return commands


def split_path(path: str) -> tuple[str, str, str]:
    """Return entity, project and id; a part that is left out comes from the environment.

    Raises:
        UsageError: it is none, or a part is nowhere.
    """
    parts = path.strip().strip("/").split("/")
    defaults = [os.environ.get("WANDB_ENTITY") or "", os.environ.get("WANDB_PROJECT") or ""]
    entity, project, name = [*defaults[: 3 - len(parts)], *parts, "", "", ""][:3]
    if len(parts) > 3 or not _PROJECT.fullmatch(project) or not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(
            f"{path!r}: is no sweep; 'wandb sweep sweep/config.yaml' prints one: ENTITY/PROJECT/ID"
        )
    return entity, project, name


def _read_sweep(entity: str, project: str, name: str) -> dict[str, Any] | None:
    try:
        answer = query_server(_SWEEP, {"entity": entity or None, "project": project, "sweep": name})
    except Refused:
        return None
    sweep: dict[str, Any] | None = ((answer or {}).get("project") or {}).get("sweep")
    return sweep
