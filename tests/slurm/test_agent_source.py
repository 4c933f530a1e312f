"""An agent and its server: a bad run fails alone, a key that is gone ends nothing under way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.slurm import agent_source
from mlmodeldev.slurm.agent_notes import AgentNote, AgentNotes
from mlmodeldev.slurm.agent_source import AgentSource
from mlmodeldev.slurm.bridge import BridgeSource
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.sweep.starter import starter
from mlmodeldev.tracking.bounded import Unreachable
from mlmodeldev.tracking.sweep_commands import Command, read_commands, values_of
from mlmodeldev.tracking.upload import Status
from mlmodeldev.tracking.wandb_api import Refused, RemoteSweep
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.task import WAIT, TrialResult, TrialTask

PARAMETERS = {"optimizer.lr": {"values": [0.1, 0.2]}, "model.hidden_size": {"value": 8}}
GOOD = {"optimizer.lr": {"value": 0.1}, "model.hidden_size": {"value": 8}}
WHOLE = {
    **GOOD,
    "_wandb": {"value": {"t": [1]}},
    "optimizer": {"desc": None, "value": {"lr": 0.1, "weight_decay": 0.01}},
    "model": {"value": {"_target_": "model.DualEncoder", "hidden_size": 8}},
    "trial": {"value": {"identity": "abcdefgh"}},
}
"""What W&B's server sends of a run that is resumed: all that its client has said of itself."""


class Sweep(RemoteSweep):
    """A sweep whose answers are these, one after the other, and then nothing more."""

    answers: list[Any]

    @classmethod
    def of(cls, *answers: Any, parameters: Any = None, **config: Any) -> Sweep:
        declared = PARAMETERS if parameters is None else parameters
        sweep = cls("e", "p", "s", {"parameters": declared, **config})
        object.__setattr__(sweep, "answers", list(answers))
        return sweep

    def register(self) -> str:
        return "agent1"

    def over(self) -> bool:
        return not self.answers

    def heartbeat(self, agent: str, running: Any) -> list[Command]:
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        commands, _ = read_commands(json.dumps(answer))
        return commands


def run(name: str, args: Any, kind: str = "run") -> list[dict[str, Any]]:
    return [{"type": kind, "run_id": name, "args": args}]


class NoSyncer:
    """Stands in for the bridge's uploads."""

    def visit(self) -> list[Status]:
        return []

    def visit_one(self, folder: Path) -> Status:
        return Status(str(folder))


@pytest.fixture(params=["agent"])
def source_of(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., AgentSource]:
    def make(sweep: Sweep, **options: Any) -> AgentSource:
        options = {"print_line": lambda line: None, **options}
        if request.param == "bridge":
            syncer: Any = NoSyncer()
            return BridgeSource(sweep, tmp_path, syncer, reattach=False, **options)
        return AgentSource(sweep, tmp_path, **options)

    return make


both = pytest.mark.parametrize("source_of", ["agent", "bridge"], indirect=True)
"""The bridge is an agent, too."""


def take(source: AgentSource) -> TrialTask | None:
    """Ask until there is a trial, or no more."""
    for _ in range(50):
        work = source.take()
        if work is not WAIT:
            assert work is None or isinstance(work, TrialTask)
            return work
        source._not_before = 0.0
    raise AssertionError("it waits for ever")


def notes(source: AgentSource) -> list[Path]:
    return list((source.folder / ".agents").glob("*.json"))


@both
def test_a_full_disk_puts_a_run_off(source_of, tmp_path, monkeypatch):
    monkeypatch.setattr(agent_source, "DISK_SECONDS", 0.0)
    printed: list[str] = []
    source = source_of(Sweep.of(run("r1", GOOD)), print_line=printed.append)
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / ".agents").write_text("a file keeps notes from being written, as a full disk does")
    assert [source.take() for _ in range(20)] == [WAIT] * 20
    assert printed[0].startswith("run r1 can't be begun yet: ")
    (folder / ".agents").unlink()
    work = take(source)
    assert work and work.id == "r1"
    assert [note.name.split(".")[-2] for note in notes(source)] == ["r1"]


@both
def test_a_disk_that_stays_full_ends_the_agent_and_not_the_run(source_of, tmp_path, monkeypatch):
    monkeypatch.setattr(agent_source, "DISK_SECONDS", 0.0)
    monkeypatch.setattr(agent_source, "PATIENCE_SECONDS", -1.0)
    source = source_of(Sweep.of(run("r1", GOOD)))
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / ".agents").write_text("")
    assert take(source) is None
    assert source.lost
    assert source.why.startswith("no run can be begun here: ")
    (folder / ".agents").unlink()
    source.close()
    assert [note.name.split(".")[-2] for note in notes(source)] == ["r1"]


def test_a_failure_that_could_not_be_recorded_is_the_disks_and_tried_again(tmp_path, monkeypatch):
    """A full disk: the trial ends with status 2, and its record is as the agent has begun it."""
    monkeypatch.setattr(agent_source, "DISK_SECONDS", 0.0)
    source = AgentSource(Sweep.of(run("r1", GOOD)), tmp_path, print_line=lambda line: None)
    failed = TrialResult(2, "failed", "no space left on the device", 1.0)
    for attempt, state in enumerate(("pending", "running", "pending")):
        work = take(source)
        assert work and work.id == "r1"
        TrialFolder(work.folder).update(state=state)
        assert source.report(work, failed) == ("pending" if attempt < 2 else None)
    assert (source.failed, source.done) == (1, 0)


@both
def test_of_a_resumed_run_only_the_sweeps_parameters_count(source_of):
    work = take(source_of(Sweep.of(run("r1", WHOLE, "resume"))))
    fresh = take(source_of(Sweep.of(run("r2", GOOD))))
    given = [item for item in work.overrides if not item.startswith(("artefacts.", "logger."))]
    assert sorted(given) == ["model.hidden_size=8", "optimizer.lr=0.1"]
    assert work.folder.name == fresh.folder.name.partition("-")[0], "the same trial"


def test_of_a_nested_parameter_only_what_is_declared_counts():
    nested = {"model": {"parameters": {"hidden_size": {"value": 8}}}}
    command = Command(type="resume", run_id="r1", args=WHOLE)
    assert values_of(command, nested) == {"model": {"hidden_size": 8}}


def test_a_resumed_run_has_the_values_that_an_agent_has_noted(source_of, tmp_path):
    AgentNotes(tmp_path / "s", "4711").write(AgentNote("r1", {"optimizer.lr": 0.5}), active=False)
    (file,) = (tmp_path / "s" / ".agents").glob("*.json")
    os.utime(file, (0, 0))
    source = source_of(Sweep.of(run("r1", {}, "resume")), job="4712")
    assert "optimizer.lr=0.5" in take(source).overrides


NOT_TO_BE_FOLLOWED = [
    *("7", '"run"', "true", "{", "[" * 100_000, 7, ["run"], '{"type": "run", "run_id": "r1"}'),
    *("[[1]]", "[null]", '[{"type": "run"}]', '[{"type": "dance", "run_id": "r1"}]'),
    *('[{"type": "run", "run_id": "../r1"}]', '[{"type": "stop", "run_id": 7}]'),
]


@pytest.mark.parametrize("content", NOT_TO_BE_FOLLOWED, ids=range(len(NOT_TO_BE_FOLLOWED)))
def test_commands_without_their_shape_are_passed_over_with_a_word(content):
    commands, odd = read_commands(content)
    assert commands == []
    assert odd.startswith(("commands that are no", "a command that can't be followed"))
    assert len(odd.splitlines()) == 1


BAD = {
    "no mapping": ([1], "gives no values but a list"),
    "no entry": ({"optimizer.lr": 0.1}, "gives no value of optimizer.lr"),
    "no value": ({"optimizer.lr": {"desc": 1}}, "gives no value of optimizer.lr"),
    "a name for no Hydra": ({"learning rate": {"value": 1}}, "no key that Hydra can set"),
    "set twice": ({"a.b": {"value": 1}, "a": {"value": {"b": 2}}}, "set twice"),
}


@both
@pytest.mark.parametrize(("args", "reason"), BAD.values(), ids=BAD)
def test_a_bad_run_fails_alone_and_leaves_no_note_to_the_next_agent(source_of, args, reason):
    declared = {} if "optimizer.lr" not in args else None
    source = source_of(Sweep.of(run("bad", args), run("good", GOOD), parameters=declared))
    work = take(source)
    assert work.id == "good"
    assert (source.failed, source.why) == (1, "")
    assert [file.name.split(".")[-2] for file in notes(source)] == ["good"]
    records = [json.loads(f.read_text()) for f in source.folder.glob("*/trial.json")]
    (failed,) = (record for record in records if record["wandb_id"] == "bad")
    assert (failed["state"], failed["wandb_sweep"]) == ("failed", "s")
    assert reason in failed["reason"]


def test_a_resumed_run_without_its_values_fails(source_of):
    source = source_of(Sweep.of(run("r1", {"_wandb": {"value": {}}}, "resume")))
    assert take(source) is None
    assert (source.failed, source.why) == (1, "the sweep is over")


@both
def test_a_note_that_ended_agents_before_ends_no_other(source_of):
    """Left behind by an older version, or by hand."""
    source = source_of(Sweep.of(run("good", GOOD)))
    source.notes.write(AgentNote("bad", {"learning rate": 1}), active=False)
    source.notes._active.clear()
    for number, text in enumerate(("[]", "{", '{"run": "../x", "params": {}}', '{"run": 1}')):
        (source.notes.folder / f"odd-{number}.json").write_text(text)
    assert take(source).id == "good"
    assert source.failed == 1
    assert not [file for file in notes(source) if ".bad." in file.name], "nor to the next one"


def test_the_names_of_another_program_need_no_spelling_of_hydras(source_of):
    command = ["${interpreter}", "${program}", "${args_json}"]
    sweep = Sweep.of(run("r1", {"learning rate": {"value": 1}}), parameters={}, command=command,
                     program="other.py")  # fmt: skip
    served = ServedSweep(sweep.config, "s")
    source = source_of(sweep, start=starter(served.invocation, served.call), served=served)
    assert take(source).command[-1] == '{"learning rate": 1}'


@both
@pytest.mark.parametrize("gone", [UsageError("the key is not accepted"), Refused("no such sweep")])
def test_what_is_refused_for_good_ends_the_taking_and_nothing_under_way(
    source_of, gone, monkeypatch
):
    monkeypatch.setattr(agent_source, "BEAT_SECONDS", 0.0)
    source = source_of(Sweep.of(run("r1", GOOD), *[gone] * 60))
    work = take(source)
    for _ in range(3):
        source.tick()
    assert not Path(work.environment["MLMODELDEV_STOP_NOTE"]).exists()
    assert source.why == ""
    source.report(work, TrialResult(0, "done", None, 1.0))
    assert source.take() is WAIT, "it may be the network's fault"
    monkeypatch.setattr(agent_source, "REFUSAL_SECONDS", 0.0)
    assert take(source) is None
    assert (source.done, source.lost) == (1, True)
    assert str(gone) in source.why


def test_trouble_that_passes_is_forgotten(source_of, capsys):
    down = Unreachable("status 503")
    source = source_of(Sweep.of(down, down, UsageError("401"), down, run("r1", GOOD)))
    assert take(source).id == "r1"
    assert capsys.readouterr().err.splitlines() == [
        "status 503", "401", "status 503", "the server answers again",
    ]  # fmt: skip


def test_a_run_that_was_given_and_not_begun_waits_for_the_next_agent(source_of):
    """Its answer came when the agent was leaving already."""
    source = source_of(Sweep.of(run("r1", GOOD)))
    source._channel._question = _answered(source)
    source.close()
    assert take(source_of(Sweep.of([]))).id == "r1"


def _answered(source: AgentSource) -> Any:
    from mlmodeldev.tracking.bounded import in_background

    return in_background(source._channel._ask)
