"""How an agent speaks with a W&B server: its questions wait in threads, never the agent itself.

While trials are under way a signal of Slurm has seconds, and a server may take minutes, or never
end its answer. So heartbeats are sent aside, and a question for the next run that is not answered
at once is looked at again later. What goes wrong is said once, until it goes well again.

Example::

    channel = AgentChannel(sweep, print)
    answer = channel.next_answer()          # None: not yet
    channel.bind("x7", answer.agent)        # the run that it gave
    channel.send_heartbeat("x7")
    for run, commands in channel.heartbeat_answers(): ...
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from mlmodeldev.tracking.bounded import in_background
from mlmodeldev.tracking.sweep_commands import Command
from mlmodeldev.tracking.wandb_api import NO_ANSWER, Refused, RemoteSweep

ANSWER_SECONDS = 2.0
"""How long the agent itself waits for an answer; a server in good order needs a tenth of it."""
BEAT_ANSWER_SECONDS = 0.3
"""The same, for heartbeats of the trials under way."""


@dataclass(frozen=True)
class Answer:
    """What the server answered to the question for a run.

    Attributes:
        agent: the id by which it was asked for; the server knows one run at a time of each.
        commands: what to do.
        over: whether the server hands out no more.
    """

    agent: str
    commands: list[Command] = field(default_factory=list)
    over: bool = False


class AgentChannel:
    """The agents of one process, each with one run at a time, as the server sees them.

    Args:
        sweep: on the server.
        print_trouble: writes a line to the log.
    """

    def __init__(self, sweep: RemoteSweep, print_trouble: Callable[[str], None]) -> None:
        self.sweep, self._print = sweep, print_trouble
        self._free: list[str] = []
        self._agents: dict[str, str] = {}  # of the runs under way
        self._question: Future[Answer] | None = None
        self._beats: dict[str, Future[list[Command]]] = {}
        self._trouble = ""
        self._lock = threading.Lock()

    # --- the next run

    def next_answer(self) -> Answer | None:
        """Ask for a run; return the answer, or None where there is none yet.

        Raises:
            Unreachable, Refused, UsageError: what kept the server from answering.
        """
        if self._question is None:
            self._question = in_background(self._ask)
        wait([self._question], ANSWER_SECONDS)
        if not self._question.done():
            return None
        question, self._question = self._question, None
        return question.result()

    def last_answer(self) -> Answer | None:
        """Return the answer to a question that is still open, or None."""
        try:
            return None if self._question is None else self.next_answer()
        except NO_ANSWER:
            return None

    def _ask(self) -> Answer:
        agent = self._free_agent()
        try:
            commands = self.sweep.heartbeat(agent, [])
        except Refused:  # the server may have forgotten this agent: the next question is another's
            if self.sweep.over():
                return Answer(agent, over=True)
            raise
        except Exception:
            self._free.append(agent)
            raise
        if any(command.begins for command in commands):
            return Answer(agent, commands)
        self._free.append(agent)
        over = not any(command.type == "exit" for command in commands) and self.sweep.over()
        return Answer(agent, commands, over)

    def _free_agent(self) -> str:
        with self._lock:
            if self._free:
                return self._free.pop()
        return self.sweep.register()

    def bind(self, run: str, agent: str = "") -> None:
        """Note that a run is under way; without an agent it gets one by its first heartbeat."""
        if agent:
            self._agents[run] = agent

    def release(self, run: str) -> None:
        """Note that a run is under way no more; an answer that is still to come is of no use."""
        self._beats.pop(run, None)
        agent = self._agents.pop(run, "")
        if agent:
            self._free.append(agent)

    # --- heartbeats

    def send_heartbeat(self, run: str) -> None:
        """Send one, unless the last is still to be answered."""
        if run not in self._beats:
            self._beats[run] = in_background(lambda: self._beat(run))

    def heartbeat_answers(self) -> Iterator[tuple[str, list[Command]]]:
        """Yield what the server says of each run that it has answered for."""
        if not self._beats:
            return
        wait(self._beats.values(), BEAT_ANSWER_SECONDS)
        for run in [run for run, beat in self._beats.items() if beat.done()]:
            beat = self._beats.pop(run)
            if error := beat.exception():
                self.print_trouble(f"heartbeat: {error or type(error).__name__}")
            else:
                self.print_end_of_trouble()
                yield run, beat.result()

    def _beat(self, run: str) -> list[Command]:
        agent = self._agents.get(run)
        if agent is None:  # of a trial that goes on: the server need not be there for it
            agent = self._agents[run] = self._free_agent()
        return self.sweep.heartbeat(agent, [run])

    # --- trouble

    def print_trouble(self, text: str) -> None:
        """Say what goes wrong, once for all that is the same in a row."""
        if text != self._trouble:
            self._trouble = text
            self._print(text)

    def print_end_of_trouble(self) -> None:
        """Say that the server answers again, where it was said that it does not."""
        if self._trouble:
            self._trouble = ""
            self._print("the server answers again")
