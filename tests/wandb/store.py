"""What the loopback server knows: runs, sweeps, agents, artifacts, and what it was sent.

Final states follow W&B's documentation: exit code 0 is ``finished``, another is ``failed``, and
``preempted`` when the client had announced it; a preempted run of a sweep is handed out again.

Example::

    store = Store()
    run = store.runs["team/project/abc"]
    run.steps            # the `_step` of every row of its history
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

ENTITY = "loopback"
"""The one account that there is."""


@dataclass
class Run:
    """One run, as a server would keep it."""

    path: str
    sweep: str | None = None
    state: str = "pending"
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    streams: dict[str, dict[int, str]] = field(default_factory=dict)
    rewritten: list[tuple[str, int]] = field(default_factory=list)
    ends: list[tuple[str, int]] = field(default_factory=list)
    starts: int = 0
    preempting: bool = False
    stop: bool = False
    given_up: bool = False
    created: float = field(default_factory=time.time)
    seen: float = field(default_factory=time.time)
    times: list[tuple[str, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run's id."""
        return self.path.rpartition("/")[2]

    def lines(self, stream: str) -> list[str]:
        """Return a stream's lines, in their order."""
        numbered = self.streams.get(stream, {})
        return [numbered[number] for number in sorted(numbered)]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of the history."""
        return [json.loads(line) for line in self.lines("wandb-history.jsonl")]

    @property
    def steps(self) -> list[int]:
        """The ``_step`` of each row."""
        return [row["_step"] for row in self.history]

    def values(self, metric: str) -> list[Any]:
        """Return a metric's values in the rows that have it."""
        return [row[metric] for row in self.history if metric in row]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration without the client's wrapping."""
        return {k: v.get("value") if isinstance(v, dict) else v for k, v in self.config.items()}


@dataclass
class Agent:
    """One agent of a sweep."""

    id: str
    sweep: str
    host: str
    running: set[str] = field(default_factory=set)
    beats: int = 0


@dataclass
class Artifact:
    """One version of an artifact."""

    id: str
    run: str
    collection: str
    kind: str
    digest: str
    aliases: list[str]
    version: int
    place: tuple[str, str] = (ENTITY, "uncategorized")
    metadata: str = "{}"
    state: str = "PENDING"
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Link:
    """A version of a collection that links to artifacts, as a registry has them."""

    number: int
    artifact: Artifact
    aliases: list[str]


class Store:
    """All of the server's state, behind one lock.

    Attributes:
        runs: by ``entity/project/id``.
        links: of each collection that links to artifacts, by ``entity/project/name``.
        requests: ``(operation or path, variables)`` of every request.
        resuming: paths of runs whose client has asked what there is, and will begin.
        unknown: requests that the server has no answer to; a test with one fails.
        resume_seconds: how long a preempted run may take to come back, an hour with W&B.
        refuses_given_up: whether one that comes later is refused.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Any] = {}
        self.agents: dict[str, Agent] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.links: dict[str, list[Link]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.unknown: list[str] = []
        self.resuming: set[str] = set()
        self.resume_seconds, self.refuses_given_up = 3600.0, False
        self.url = ""

    def give_up_preempted(self) -> None:
        """Count preempted runs as crashed that have not come back within ``resume_seconds``."""
        for run in self.runs.values():
            if run.state == "preempted" and time.time() - run.seen > self.resume_seconds:
                run.state, run.given_up = "crashed", True
                sweep = self.sweeps.get(run.sweep or "")
                if sweep and run.name in sweep.preempted:
                    sweep.preempted.remove(run.name)

    def run(self, entity: str | None, project: str | None, name: str) -> Run:
        """Return the run, made where there is none."""
        path = f"{entity or ENTITY}/{project or 'uncategorized'}/{name}"
        return self.runs.setdefault(path, Run(path))

    def find(self, entity: str | None, project: str | None, name: str) -> Run | None:
        """Return the run, if there is one that a client has begun."""
        run = self.runs.get(f"{entity or ENTITY}/{project or 'uncategorized'}/{name}")
        return run if run and run.starts else None

    def of_project(self, project: str) -> list[Run]:
        """Return a project's runs that were begun."""
        return [r for r in self.runs.values() if r.path.split("/")[1] == project and r.starts]

    def requests_of(self, operation: str) -> list[dict[str, Any]]:
        """Return the variables of each request for an operation."""
        return [variables for name, variables in self.requests if name == operation]


def new_id(length: int = 8) -> str:
    """Return a random id of lower-case letters and digits."""
    return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(length))
