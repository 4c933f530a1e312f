"""One loopback server for all tests; a project of its own for each."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.wandb.server import Server
from tests.wandb.store import Run

ROOT = Path(__file__).resolve().parents[2]

TINY = {
    "model.hidden_size": 16,
    "model.num_layers": 1,
    "training.max_epochs": 2,
    "training.log_every_n_steps": 5,
    "callbacks.cka.enabled": False,
}
"""A trial of two seconds."""


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


class Client:
    """The real client, and trials, led to the loopback server."""

    def __init__(self, server: Server, project: str, folder: Path, data: Path) -> None:
        self.server, self.project, self.folder, self.data = server, project, folder, data
        self.started: list[subprocess.Popen[bytes]] = []
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
        self.env = {
            **clean,
            **{k: v for k, v in server.environment().items() if k != "WANDB_ENTITY"},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "WANDB_DIR": str(folder),
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",  # whole seconds; 15 otherwise
            "WANDB__DISABLE_STATS": "true",
            "OMP_NUM_THREADS": "1",
        }

    @property
    def runs(self) -> list[Run]:
        """The runs of this test's project."""
        return self.server.store.of_project(self.project)

    @property
    def runs_dir(self) -> Path:
        return self.folder / "runs"

    def folder_of(self, run: Run) -> Path:
        """The folder of the trial that a run is of."""
        names = [run.settings["trial"]["folder"], run.settings["trial"]["identity"]]
        result = [self.runs_dir / str(run.sweep or "single") / str(n) for n in names if n]
        return next(path for path in result if path.is_dir())

    def sh(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            command, cwd=ROOT, env={**self.env, **env}, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done

    def sweep(self, parameters: dict[str, Any], **keys: Any) -> str:
        """Create a sweep by `wandb sweep`; return its path."""
        places = {"artefacts.runs_dir": str(self.runs_dir), "artefacts.data_dir": str(self.data)}
        values = {name: {"value": value} for name, value in {**TINY, **places}.items()}
        config = {
            "program": "trainer.py",
            "method": "grid",
            "metric": {"name": "val/accuracy", "goal": "maximize"},
            "parameters": {**values, **parameters},
            "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
            **keys,
        }
        file = self.folder / "sweep.yaml"
        file.write_text(yaml.safe_dump(config))
        done = self.sh("wandb", "sweep", "--project", self.project, str(file))
        result = re.search(r"wandb agent (\S+)", done.stderr)
        assert result, done.stderr
        return result[1]

    def start(self, *command: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own; its output goes to a file."""
        number = len(self.started)
        with (self.folder / f"process-{number}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**self.env, **env}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def agent(self, path: str, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        """Start our agent."""
        return self.start(sys.executable, "-m", "mlmodeldev.slurm.agent", path, *arguments, **env)

    def output(self) -> str:
        """What all started processes have printed."""
        logs = [*self.folder.glob("process-*.log"), *self.runs_dir.glob("*/*/log.txt")]
        return "\n".join(f"--- {log}\n{log.read_text()}" for log in logs)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        """Wait for a condition, and return what it says."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < deadline, f"waited for {what}\n{self.output()}"
            time.sleep(0.1)
        return result

    def end(self, process: subprocess.Popen[bytes], seconds: float = 150) -> int:
        """Wait for a process's end."""
        self.until(lambda: process.poll() is not None, "the end of a process", seconds)
        return int(process.returncode)

    def trial(self, *overrides: str, **env: str) -> Any:
        """Start a trial as a fork, as our agent does."""
        from mlmodeldev.trial.worker import launch

        given = [f"artefacts.runs_dir={self.runs_dir}", f"artefacts.data_dir={self.data}"]
        tiny = [f"{name}={str(value).lower()}" for name, value in TINY.items()]
        log = self.folder / "process-trial.log"
        variables = {"WANDB_MODE": "online", "OMP_NUM_THREADS": "1"}
        variables |= {name: value for name, value in self.env.items() if "WANDB" in name}
        return launch("trainer", [*given, *tiny, *overrides], log, {**variables, **env})

    def kill_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def nothing_unknown(server: Server, before: int) -> None:
    """The server had an answer to every request since it knew of so many that it had none to."""
    assert server.store.unknown[before:] == []


def steps_are_whole(run: Run, rows: int | None = None) -> None:
    """Each row is there once, none was sent twice with another content."""
    assert run.steps == list(range(len(run.steps)))
    assert [r for r in run.rewritten if r[0] == "wandb-history.jsonl"] == []
    assert rows is None or len(run.steps) == rows


@pytest.fixture
def client(
    server: Server, request: pytest.FixtureRequest, tmp_path: Path, data_dir: Path
) -> Iterator[Client]:
    project = re.sub(r"\W+", "-", request.node.name)[-60:].strip("-")
    before = len(server.store.unknown)
    made = Client(server, project, tmp_path, data_dir)
    yield made
    made.kill_all()
    server.faults.clear()
    server.store.resume_seconds, server.store.refuses_given_up = 3600.0, False
    nothing_unknown(server, before)
