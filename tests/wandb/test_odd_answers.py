"""No answer of a server ends an agent, or keeps a trial from hearing of Slurm's warning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.wandb.conftest import ROOT
from tests.wandb.server import Server
from tests.wandb.store import ENTITY
from tests.wandb.sweeps import Sweep

pytestmark = [pytest.mark.slow, pytest.mark.project]

HEARTBEAT = [
    *("status 401", "status 403", "status 500", "status 429", "404 page", "html", "nothing"),
    *("list", "null", "number", "text", "empty", "data null", "data list", "errors text"),
    *("errors odd", "truncated", "deep", "long number", "no gzip", "no utf-8", "too short"),
    *("redirect", "redirect circle", "beat null", "beat text", "commands no JSON"),
    *("commands number", "commands list", "commands odd", "commands unknown"),
    *("endless body", "headers without end", "body without end", "no HTTP", "hangs up"),
]
"""Answers to the heartbeats of a trial that is under way."""
OTHERS = [
    *(("SweepWithRuns", odd) for odd in ("status 500", "list", "config number", "config no YAML")),
    *(("SweepWithRuns", odd) for odd in ("sweep text", "headers without end", "html")),
    *(("CreateAgent", odd) for odd in ("status 401", "agent null", "agent number", "null")),
    *(("Heartbeat", odd) for odd in ("status 403", "null", "commands odd", "run odd id", "list")),
    *(("Heartbeat", odd) for odd in ("endless body", "errors text", "commands number", "hangs up")),
]
"""Answers to an agent that looks for its sweep, registers, or asks for a run."""

PROGRAM = """
marks=$(dirname "$WANDB_SWEEP_PARAM_PATH")/marks
trap 'echo warned >> "$marks"; exit 75' TERM
echo begun >> "$marks"
[ "$(grep -c begun "$marks")" = "$1" ] && { echo done >> "$marks"; exit 0; }
while :; do sleep 0.1; done
"""


@dataclass
class Case:
    """An agent of its own sweep, of one run."""

    name: str
    sweep: Sweep
    folder: Path
    log: Path
    job: str

    @property
    def marks(self) -> list[str]:
        """What the trial has written down."""
        files = list((self.folder / self.sweep.name).glob("*/marks"))
        return files[0].read_text().split() if files else []

    @property
    def records(self) -> list[dict]:
        files = (self.folder / self.sweep.name).glob("*/trial.json")
        return [json.loads(file.read_text()) for file in files]

    @property
    def status(self) -> int | None:
        file = Path(f"{self.log}.status")
        return json.loads(file.read_text())["status"] if file.exists() else None

    def seconds_since(self, moment: float) -> float:
        """How long after a moment the agent has ended."""
        return json.loads(Path(f"{self.log}.status").read_text())["time"] - moment

    def send(self, number: int) -> None:
        """Signal the agent."""
        os.kill(int(Path(f"{self.log}.pid").read_text()), number)


class Agents:
    """Cases on one server, and the process that the agents are forks of."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder, self.cases = server, folder, list[Case]()
        self.forks: subprocess.Popen[bytes] | None = None
        stub = folder / "bin" / "scontrol"
        stub.parent.mkdir()
        stub.write_text('#!/bin/sh\necho "$@" >> "$REQUEUE_LOG"\necho no >&2\nexit 1\n')
        stub.chmod(0o755)
        (folder / "quick.sh").write_text(PROGRAM)

    def add(self, name: str, attempts: int) -> Case:
        """A sweep of one run, whose trial ends in this attempt."""
        config = {
            "program": str(self.folder / "quick.sh"),
            "method": "grid",
            "metric": {"name": "score", "goal": "maximize"},
            "parameters": {"x": {"value": 1}},
            "command": ["/bin/sh", "${program}", str(attempts)],
        }
        sweep = Sweep(self.server.store, ENTITY, "odd", yaml.safe_dump(config))
        self.server.store.sweeps[sweep.name] = sweep
        number = len(self.cases)
        log = self.folder / f"agent-{number}.log"
        self.cases.append(Case(name, sweep, self.folder / "runs", log, f"90{number:02}"))
        return self.cases[-1]

    def start(self) -> subprocess.Popen[bytes]:
        """Start an agent for each case."""
        listed = []
        for case in self.cases:
            Path(f"{case.log}.status").unlink(missing_ok=True)
            variables = {
                **self.server.environment(),
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "SLURM_JOB_ID": case.job,
                "REQUEUE_LOG": f"{case.log}.scontrol",
            }
            path = f"{ENTITY}/odd/{case.sweep.name}"
            words = [path, f"artefacts.runs_dir={case.folder}"]
            listed.append({"arguments": words, "environment": variables, "log": str(case.log)})
        file = self.folder / "agents.json"
        file.write_text(json.dumps(listed))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
        with (self.folder / "forks.log").open("ab") as log:
            self.forks = subprocess.Popen(
                [sys.executable, "-m", "tests.wandb.forked_agents", str(file)],
                cwd=ROOT, env={**clean, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log,
            )  # fmt: skip
            return self.forks

    def end(self) -> None:
        """End what a test has left running: agents, and by them their trials."""
        if self.forks is None or self.forks.poll() is not None:
            return
        for case in self.cases:
            if case.status is None and Path(f"{case.log}.pid").exists():
                case.send(signal.SIGTERM)
        self.forks.wait(30)


@pytest.fixture
def agents(server: Server, tmp_path: Path):
    before = len(server.store.unknown)
    made = Agents(server, tmp_path)
    yield made
    made.end()
    server.faults.clear()
    assert server.store.unknown[before:] == []


def until(condition, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


def test_no_answer_to_a_heartbeat_keeps_a_trial_from_its_warning(agents: Agents):
    faults = agents.server.faults
    for name in HEARTBEAT:
        case = agents.add(name, attempts=2)
        faults.odd(name, f"Heartbeat {case.sweep.name} busy", 10**6)
    forks = agents.start()
    for case in agents.cases:
        answered = f"graphql Heartbeat {case.sweep.name} busy"
        beats = 1 if "end" in case.name else 2  # the first of those is not over yet
        until(lambda a=answered, n=beats: faults.refused.count(a) >= n, f"heartbeats: {case.name}")
    seconds = {}
    for case in agents.cases:
        assert case.status is None, f"{case.name}: {case.log.read_text()}"
        moment = time.time()
        case.send(signal.SIGUSR1)  # what Slurm does before the time limit
        until(lambda c=case: c.status is not None, f"the end: {case.name}", 20)
        seconds[case.name] = case.seconds_since(moment)
    assert forks.wait(20) == 0
    assert max(seconds.values()) <= 5.0, seconds
    for case in agents.cases:
        output = case.log.read_text()
        assert case.status == 75, f"{case.name}: {output}"
        assert case.marks == ["begun", "warned"], case.name
        assert f"requeue {case.job}" in Path(f"{case.log}.scontrol").read_text(), case.name
        assert "Traceback" not in output, f"{case.name}: {output}"
        assert output.count("heartbeat: ") <= 1, f"{case.name}, once: {output}"
    faults.clear()  # and the jobs are there again
    assert agents.start().wait(60) == 0
    for case in agents.cases:
        assert case.status == 0, f"{case.name}: {case.log.read_text()}"
        assert case.marks == ["begun", "warned", "begun", "done"], case.name
        assert [record["state"] for record in case.records] == ["done"]
        assert len(case.sweep.given) == 1, "no other run"


def test_no_answer_to_another_question_ends_an_agent(agents: Agents):
    faults = agents.server.faults
    for operation, odd in OTHERS:
        case = agents.add(f"{operation}, {odd}", attempts=1)
        kind = " free" if operation == "Heartbeat" else ""
        faults.odd(odd, f"{operation} {case.sweep.name}{kind}", 2)
    assert agents.start().wait(100) == 0
    for case in agents.cases:
        assert case.status == 0, f"{case.name}: {case.log.read_text()}"
        assert case.marks == ["begun", "done"], case.name
        assert [record["state"] for record in case.records] == ["done"]
        assert len(case.sweep.given) == 1, "no other run"
        assert faults.refused.count, case.name
