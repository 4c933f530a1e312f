"""The W&B server: its address, the key for it, and questions in GraphQL.

The key is read where it is used, from ``WANDB_API_KEY`` or ``.netrc``, and is neither kept nor
shown. Questions go past the client, which answers none while it is not logged in.
What a server may answer is bounded: in time, size, status and shape.

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

import yaml

from mlmodeldev.errors import UsageError, shown_line
from mlmodeldev.fetch.address import split_address
from mlmodeldev.secrets import masked
from mlmodeldev.tracking.bounded import Unreachable, post_json
from mlmodeldev.tracking.sweep_commands import Command, read_commands

_PROJECT = re.compile(r"[^/\\#?%:]+")
"""W&B allows all other characters in a project's name, blanks too."""

DEFAULT_HOST = "https://api.wandb.ai"
"""Said explicitly, for the client's own default has changed between versions."""


ANSWER_SECONDS = 20.0
"""How long a whole answer may take."""


class Refused(Exception):
    """The server answered that it will not: there is no such thing, or no right to it."""


NO_ANSWER = (Unreachable, Refused, UsageError)
"""What a question raises that got no answer; the last: there is no key, or it is not accepted."""


def host() -> str:
    """Return the server's address: the environment's, else what ``wandb login --host`` noted."""
    return (os.environ.get("WANDB_BASE_URL") or _noted_host() or DEFAULT_HOST).rstrip("/")


def _noted_host() -> str | None:
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    reader = configparser.ConfigParser(interpolation=None)
    try:
        reader.read(Path(folder).expanduser() / "settings")
        return reader.get("default", "base_url", fallback=None)
    except (configparser.Error, OSError, UnicodeDecodeError, RuntimeError):  # the last: no home
        return None


def key_for(address: str) -> str | None:
    """Return the key for a server, if there is one."""
    key = os.environ.get("WANDB_API_KEY")
    if key:
        return key
    place = split_address(address, "WANDB_BASE_URL").netloc
    try:
        # by host and port, as the client writes and looks it up
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(place)
    except (OSError, ValueError, netrc.NetrcParseError):  # no text, no .netrc
        return None
    return entry[2] if entry and entry[2] else None


def query_server(
    query: str, variables: Mapping[str, Any] | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Return the answer's data.

    Args:
        query: GraphQL.
        variables: of the query.
        seconds: to wait for the whole answer; None: `ANSWER_SECONDS`.

    Raises:
        UsageError: there is no key, or the server takes it for none.
        Unreachable: no answer, none that can be read, or an error of the server's own (5xx, 429).
        Refused: any other error.
    """
    address = host()
    key = key_for(address)
    if not key:
        raise UsageError(f"{address}: there is no key (run 'wandb login', or set WANDB_API_KEY)")
    content = {"query": query, "variables": dict(variables or {})}
    try:
        most = ANSWER_SECONDS if seconds is None else seconds
        status, body = post_json(f"{address}/graphql", content, ("api", key), most)
    except Unreachable as error:
        raise Unreachable(f"{address}: {error}") from None
    if status in (401, 403):
        raise UsageError(f"{address}: the key is not accepted; run 'wandb login --relogin'")
    if status >= 500 or status in (408, 429) or status < 200 or 300 <= status < 400:
        raise Unreachable(f"{address}: status {status}")
    return _data(address, status, body)


def _data(address: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreachable(f"{address}: answers no JSON") from None
    errors = content.get("errors") if isinstance(content, dict) else None
    if errors or status >= 400:
        raise Refused(_messages(errors) or f"{address}: status {status}")
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict):
        raise Unreachable(f"{address}: answers without data")
    return data


def _messages(errors: Any) -> str:
    listed = errors if isinstance(errors, list) else [errors]
    messages = [each.get("message") if isinstance(each, dict) else each for each in listed]
    texts = [" ".join(masked(str(message), 300).split()) for message in messages[:3] if message]
    return shown_line("; ".join(text for text in texts if text))


def answers(seconds: float = 5.0) -> bool:
    """Return whether the server answers, and takes the key."""
    try:
        query_server("query Viewer { viewer { entity } }", seconds=seconds)
    except NO_ANSWER:
        return False
    return True


def part(answer: Any, *names: str) -> Any:
    """Return a part of an answer by the names that lead to it; None where one is not there."""
    for name in names:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


_LAST_ROW = """
query RunLastRow($entity: String, $project: String, $run: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $run, missingOk: true) { historyTail } }
}
"""


def last_row(entity: str, project: str, run: str) -> dict[str, Any]:
    """Return the last row of a run's history; an empty one where the server does not say."""
    names = {"entity": entity, "project": project, "run": run}
    try:
        tail = part(query_server(_LAST_ROW, names, seconds=5), "model", "bucket", "historyTail")
        row = json.loads(json.loads(tail)[-1])
    except (*NO_ANSWER, ValueError, TypeError, LookupError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


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
        try:
            sweep = _read_sweep(entity, project, name)
        except Refused:
            sweep = None
        if sweep is None:
            raise UsageError(f"{path}: there is no such sweep (or the key has no right to it)")
        return cls(entity, project, name, _configuration(sweep))

    @property
    def program(self) -> str:
        """The program that the sweep names."""
        return str(self.config.get("program") or "trainer.py")

    @property
    def parameters(self) -> dict[str, Any]:
        """What the sweep varies or sets, by name."""
        parameters = self.config.get("parameters")
        return parameters if isinstance(parameters, dict) else {}

    def over(self) -> bool:
        """Return whether the server hands out no more runs of it.

        Raises:
            Refused: there is no such sweep any more.
        """
        sweep = _read_sweep(self.entity, self.project, self.id)
        if sweep is None:
            raise Refused("there is no such sweep any more (or the key has no right to it)")
        return str(sweep.get("state")).upper() in _OVER

    def register(self) -> str:
        """Return the id of a new agent."""
        names = {"entityName": self.entity or None, "projectName": self.project, "sweep": self.id}
        answer = query_server(_REGISTER, {"host": socket.gethostname(), **names})
        agent = part(answer, "createAgent", "agent", "id")
        if not agent or not isinstance(agent, str):
            raise Unreachable(f"{host()}: gives an agent no id")
        return agent

    def heartbeat(self, agent: str, running: Iterable[str]) -> list[Command]:
        """Say which runs an agent has under way; return what it is told to do.

        Raises:
            Unreachable: also where nothing that is told can be followed.
        """
        state = json.dumps(dict.fromkeys(running, True))
        answer = query_server(_HEARTBEAT, {"id": agent, "metrics": "{}", "runState": state})
        beat = part(answer, "agentHeartbeat")
        if not isinstance(beat, dict):
            raise Unreachable(f"{host()}: answers no heartbeat")
        commands, odd = read_commands(beat.get("commands"))
        if odd and not commands:
            raise Unreachable(f"{host()}: gives {odd}")
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
    """Return what the server says of a sweep; None: it has none."""
    answer = query_server(_SWEEP, {"entity": entity or None, "project": project, "sweep": name})
    sweep = part(answer, "project", "sweep")
    if sweep is not None and not isinstance(sweep, dict):
        raise Unreachable(f"{host()}: answers no sweep")
    return sweep


def _configuration(sweep: dict[str, Any]) -> dict[str, Any]:
    try:
        config = yaml.safe_load(sweep["config"]) or {}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, yaml.YAMLError):
        config = None
    if not isinstance(config, dict):
        raise Unreachable(f"{host()}: answers a sweep without a configuration")
    return config
