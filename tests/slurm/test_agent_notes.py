"""Whose trial is it: an agent's notes, and what becomes of a trial that was killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev import lease
from mlmodeldev.atomic import TEMPORARY_SUFFIX
from mlmodeldev.slurm.agent_notes import AgentNote, AgentNotes
from mlmodeldev.slurm.agent_source import AgentSource
from mlmodeldev.tracking.sweep_commands import Command
from mlmodeldev.tracking.wandb_api import RemoteSweep
from mlmodeldev.trial.task import TrialResult

NOTE = AgentNote("run1", {"optimizer.lr": 0.1})


def age(sweep: Path, minutes: float, hours_ahead: float = 0) -> None:
    """Make the one note older; its writer's clock was ahead."""
    (file,) = (sweep / ".agents").glob("*.json")
    note, written = json.loads(file.read_text()), time.time() - 60 * minutes
    for name in ("updated", "lease"):
        if note[name] is not None:
            note[name] += written - time.time() + 3600 * hours_ahead
    file.write_text(json.dumps(note))
    os.utime(file, (written, written))


def test_a_job_that_comes_back_takes_its_own_trial_at_once(tmp_path: Path):
    AgentNotes(tmp_path, "4711").write(NOTE, active=False)
    assert AgentNotes(tmp_path, "4712").take_over() is None
    assert AgentNotes(tmp_path, "4711").take_over() == NOTE
    assert AgentNotes(tmp_path, "4711").take_over() == NOTE, "also after it was killed again"


def test_what_a_killed_agent_had_half_written_goes_with_the_run(tmp_path: Path) -> None:
    folder = tmp_path / ".agents"
    folder.mkdir()
    for run in ("run1", "run2"):
        (folder / f".4711.{run}.json.0a1b{TEMPORARY_SUFFIX}").write_bytes(b"{")
    AgentNotes(tmp_path, "4712").remove("run1")
    assert [file.name for file in folder.iterdir()] == [".4711.run2.json.0a1b.tmp"]


@pytest.mark.parametrize(("minutes", "taken"), [(14, None), (16, NOTE)])
def test_others_take_it_after_a_quarter_of_an_hour(tmp_path: Path, minutes, taken):
    AgentNotes(tmp_path, "4711").write(NOTE, active=False)
    age(tmp_path, minutes)
    assert AgentNotes(tmp_path, "4712").take_over() == taken
    if taken:
        assert AgentNotes(tmp_path, "4713").take_over() is None, "one other"


@pytest.mark.parametrize("hours_ahead", [-2, 2])
def test_a_killed_agents_note_is_free_in_time_whatever_its_clock(
    tmp_path: Path, hours_ahead: float
) -> None:
    agent = AgentNotes(tmp_path, "4711")
    agent._owner["host"] = "node17"
    for minutes, taken in ((14, None), (16, NOTE)):
        agent.write(NOTE)
        age(tmp_path, minutes, hours_ahead)
        assert AgentNotes(tmp_path, "4712").take_over() == taken


def test_without_a_job_nobody_comes_back(tmp_path: Path):
    AgentNotes(tmp_path, None).write(NOTE, active=False)
    assert AgentNotes(tmp_path, "4712").take_over() == NOTE


class Sweep(RemoteSweep):
    """A sweep of one run, without a server."""

    def register(self) -> str:
        return "agent1"

    def heartbeat(self, agent: str, running: Any) -> list[Command]:
        return [Command(type="run", run_id="run1", args={"optimizer.lr": {"value": 0.1}})]


def test_a_killed_trial_goes_on_twice_and_then_has_failed(tmp_path: Path):
    source = AgentSource(Sweep("e", "p", "s", {}), tmp_path, print_line=lambda line: None)
    for attempt in range(3):
        work = source.take()
        assert work and work.id == "run1"
        killed = TrialResult(-signal.SIGKILL, "failed", "killed", 1.0)
        assert source.report(work, killed) == ("pending" if attempt < 2 else None)
    assert (source.failed, source.done) == (1, 0)


def test_a_living_agents_note_is_not_taken_whatever_its_clock(tmp_path: Path, monkeypatch):
    """Seen from another machine: its note goes on changing, only by a clock that is behind."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
    agent, other = AgentNotes(tmp_path, None), AgentNotes(tmp_path, None)
    agent._owner["host"] = "node17"
    for minutes in (5, 4.9, 4.8):
        agent.write(NOTE)
        (file,) = (tmp_path / ".agents").glob("*.json")
        note = json.loads(file.read_text())
        file.write_text(json.dumps({**note, "lease": note["lease"] - 60 * minutes}))
        assert other.take_over() is None
        assert not other.claim(NOTE.run)
    deadline = time.monotonic() + 30
    while (taken := other.take_over()) is None:  # it is watched
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert taken == NOTE, "silent for the whole lease"
