"""An answer that does not come: the agent looks again later, and is never kept from its signals."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mlmodeldev.slurm import agent_channel
from mlmodeldev.slurm.agent_channel import AgentChannel
from mlmodeldev.tracking.sweep_commands import Command
from mlmodeldev.tracking.wandb_api import RemoteSweep

RUN = Command(type="run", run_id="r2", args={})
STOP = Command(type="stop", run_id="r1")
AT_MOST = 5.0
"""Seconds that Slurm's signal may wait; a server's answer has 20."""


class Silent(RemoteSweep):
    """A server that answers once it is let."""

    let: threading.Event
    questions: list[list[str]]

    @classmethod
    def made(cls) -> Silent:
        sweep = cls("e", "p", "s", {})
        object.__setattr__(sweep, "let", threading.Event())
        object.__setattr__(sweep, "questions", [])
        return sweep

    def register(self) -> str:
        return "agent"

    def over(self) -> bool:
        return False

    def heartbeat(self, agent: str, running: Any) -> list[Command]:
        self.questions.append(list(running))
        self.let.wait(4 * AT_MOST)
        return [STOP] if running else [RUN]


@pytest.fixture
def sweep() -> Iterator[Silent]:
    made = Silent.made()
    yield made
    made.let.set()


def test_a_heartbeat_without_an_answer_is_looked_at_again_later(sweep: Silent) -> None:
    channel = AgentChannel(sweep, print)
    channel.bind("r1", "agent1")
    begun = time.monotonic()
    for _ in range(3):
        channel.send_heartbeat("r1")
        assert list(channel.heartbeat_answers()) == []
    assert time.monotonic() - begun < AT_MOST
    assert sweep.questions == [["r1"]], "no second question beside an open one"
    sweep.let.set()
    until = time.monotonic() + AT_MOST
    while not (answers := list(channel.heartbeat_answers())) and time.monotonic() < until:
        pass
    assert answers == [("r1", [STOP])]


def test_a_question_without_an_answer_is_looked_at_again_later(
    sweep: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_channel, "ANSWER_SECONDS", 0.2)
    channel = AgentChannel(sweep, print)
    begun = time.monotonic()
    assert [channel.next_answer() for _ in range(3)] == [None] * 3
    assert time.monotonic() - begun < AT_MOST
    assert sweep.questions == [[]], "the same question"
    sweep.let.set()
    monkeypatch.setattr(agent_channel, "ANSWER_SECONDS", 4 * AT_MOST)
    answer = channel.next_answer()
    assert answer is not None
    assert answer.commands == [RUN]
