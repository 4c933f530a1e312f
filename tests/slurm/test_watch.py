"""``status --watch``: what is drawn as records change, how it ends, what a terminal is left as."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mlmodeldev.slurm import rates, sweep_watch, trial_entries
from mlmodeldev.slurm.command_line import main
from mlmodeldev.slurm.commands import watch
from mlmodeldev.slurm.commands.watch_table import draw
from mlmodeldev.slurm.query import Queued
from mlmodeldev.slurm.submission import Submission
from mlmodeldev.slurm.sweep_state import SweepState
from mlmodeldev.slurm.time_left import sweep_seconds_left
from mlmodeldev.slurm.waiting import queue_reason
from mlmodeldev.sweep import Sweep, Trial, load
from tests.slurm.stubs import Stubs
from tests.slurm.terminal import Terminal
from tests.slurm.written_trials import job

RATES = (
    "epoch,step,time/samples_per_second,time/step_seconds,loss\n"
    "0,1,5,1,\n0,2,4321.5,0.25,\n0,3,,,1\n"
)


class Written:
    """A sweep of a few trials, whose folders a test writes."""

    def __init__(self, folder: Path, text: dict[str, Any]) -> None:
        self.file = folder / "sweep.yaml"
        metric = {"name": "val/accuracy", "goal": "maximize"}
        self.file.write_text(json.dumps({"name": "watched", "metric": metric, **text}))
        self.sweep: Sweep = load(self.file)
        self.runs = folder / "runs"
        self.folder = self.runs / self.sweep.folder

    def write(self, trial: Trial, state: str, epoch: int, **more: Any) -> Path:
        """Write a trial's record as its owner would, whole."""
        folder = self.folder / trial.id
        folder.mkdir(parents=True, exist_ok=True)
        metric = {"name": "val/accuracy", "mode": "max", "value": epoch / 16, "epoch": epoch}
        record = {"id": trial.id, "overrides": trial.overrides, "epoch": epoch, "epochs": 8,
                  "metric": metric, "attempts": 1, "seconds": 60.0 * epoch}  # fmt: skip
        record |= {**(job() if state == "running" else {}), **more, "state": state}
        (folder / "new.json").write_text(json.dumps(record))
        (folder / "new.json").replace(folder / "trial.json")
        return folder

    @property
    def words(self) -> list[str]:
        return ["--sweep", str(self.file), "cluster=local", f"artefacts.runs_dir={self.runs}"]

    def state(self) -> SweepState:
        import argparse

        from mlmodeldev.slurm.sweep_state import add_sweep_options, read_sweep_state

        parser = argparse.ArgumentParser()
        add_sweep_options(parser)
        return read_sweep_state(parser.parse_args(self.words), lint=False)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    values = {"optimizer.lr": {"values": [0.001, 0.01, 0.1]}}
    return Written(tmp_path, {"program": "trainer.py", "method": "grid", "parameters": values})


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """What is done in place of each pause; after the last one the user presses Ctrl-C."""
    todo: list[Callable[[], Any]] = []

    def pause(_: float) -> None:
        if not todo:
            raise KeyboardInterrupt
        todo.pop(0)()

    clock = SimpleNamespace(sleep=pause, time=time.time, strftime=time.strftime)
    monkeypatch.setattr(watch, "time", clock)  # of this module alone: subprocess sleeps, too
    return todo


def rows_of(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def shown(look: sweep_watch.Look, columns: int, lines: int | None = None) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=columns, markup=False, emoji=False).print(draw(look, columns, lines))
    return out.getvalue().splitlines()


# --- a pipe, JSON


def test_a_line_of_json_for_each_change_until_all_has_ended(written, steps, capsys) -> None:
    first, second, third = written.sweep.trials()
    for trial in (first, second):
        written.write(trial, "done", 8)
    written.write(third, "running", 2, begun=time.time(), seconds=60.0)
    steps += [
        lambda: None,
        lambda: written.write(third, "running", 4, begun=time.time(), seconds=120.0),
        lambda: written.write(third, "running", 4, begun=time.time(), lease=time.time() + 99),
        lambda: written.write(third, "failed", 4, reason="NonFiniteLoss: at step 7"),
    ]
    assert main(["status", "--watch", "--json", *written.words]) == 0, "as status, failed or not"
    assert not steps
    begin, middle, end = rows_of(capsys.readouterr().out)
    assert begin["states"] == {"done": 2, "running": 1}
    assert {row["id"] for row in begin["trials"]} == {first.id, second.id, third.id}
    (row,) = middle["trials"]
    assert (row["id"], row["epoch"], row["epochs"]) == (third.id, 4, 8)
    assert row["seconds_left"] == pytest.approx(120, abs=5), "half of it took 120 seconds"
    assert row["epochs_an_hour"] == pytest.approx(120, rel=0.05)
    assert middle["seconds_left"] == pytest.approx(120, abs=5)
    assert end["trials"][0]["cause"] == "NonFiniteLoss: at step 7"
    assert end["seconds_left"] is None


def test_a_pipe_gets_plain_tables_when_something_changed(written, steps, capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    trials = list(written.sweep.trials())
    folder = written.write(trials[0], "running", 1)
    (folder / "metrics.csv").write_text(RATES)
    steps += [lambda: None, lambda: written.write(trials[1], "done", 8), lambda: None]
    assert main(["status", "--watch", "2", *written.words]) == 130, "Ctrl-C"
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("samples/s") == 2, "the first look and the change"
    assert f"{trials[0].id} running 1/8   0.0625   4,322" in out
    assert "waiting: 2 for its turn, or submit" in out
    assert "waiting: 1 for its turn, or submit" in out


@pytest.mark.parametrize(("name", "is_coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_colours_in_a_pipe_only_by_force_and_nothing_is_drawn_over(
    name, is_coloured, written, steps, capsys, monkeypatch
) -> None:
    for each in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TERM", "xterm")
    written.write(next(iter(written.sweep.trials())), "running", 1)
    assert main(["status", "--watch", *written.words]) == 130
    out = capsys.readouterr().out
    assert ("\x1b[36mrunning" in out) == is_coloured
    assert not re.search(r"\x1b\[\d*[A-K]", out)


@pytest.mark.parametrize("given", ["0", "0.5", "soon", "nan", "inf"])
def test_a_wrong_time_is_one_line(given, written, capsys) -> None:
    assert main(["status", *written.words, "--watch", given]) == 2
    assert f"--watch {given}: must be a number, at least 1" in capsys.readouterr().err


def test_a_setting_behind_the_option_is_no_time(written, steps, capsys) -> None:
    assert main(["status", "--watch", f"artefacts.runs_dir={written.runs}", "--json",
                 *written.words[:3]]) == 130  # fmt: skip
    assert rows_of(capsys.readouterr().out)[0]["states"] == {"missing": 3}


# --- a terminal


@pytest.fixture
def terminals() -> Iterator[Callable[[list[str]], Terminal]]:
    with contextlib.ExitStack() as stack:

        def start(words: list[str]) -> Terminal:
            made = Terminal(words)
            stack.callback(made.close)
            return made

        yield start


def test_it_draws_over_itself_and_ends_when_all_has_ended(written, terminals) -> None:
    first, second, third = written.sweep.trials()
    for trial in (first, second):
        written.write(trial, "done", 8)
    written.write(third, "running", 2)
    terminal = terminals(written.words)
    terminal.read_until("1 running")
    assert f"{third.id} running 2/8" in terminal.plain
    written.write(third, "done", 8)
    terminal.read_until("3 done")
    assert terminal.end() == 0
    assert f"{third.id} done  8/8" in terminal.plain
    assert "\x1b[36mrunning" in terminal.text, "colours"
    assert re.search(r"\x1b\[\d*A", terminal.text), "over the table that was there"
    terminal.assert_untouched()


def test_it_leaves_the_terminal_as_it_was_however_it_is_ended(written, terminals) -> None:
    written.write(next(iter(written.sweep.trials())), "running", 2)
    signals = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    made = {number: terminals(written.words) for number in signals}
    for number, status in signals.items():
        made[number].read_until("1 running")
        made[number].process.send_signal(number)
        assert made[number].end() == status
        made[number].assert_untouched()
        assert "Traceback" not in made[number].text


# --- what is drawn


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_identities_are_whole_and_lines_fit(columns, tmp_path) -> None:
    values = {"optimizer.lr": {"values": [i / 1000 for i in range(1, 31)]}}
    many = Written(tmp_path, {"program": "trainer.py", "method": "grid", "parameters": values})
    trials = list(many.sweep.trials())
    for number, trial in enumerate(trials[:20]):
        state = ("running", "done", "interrupted", "failed")[number % 4]
        many.write(trial, state, 3, reason="a cause that is longer than any terminal " * 4)
    look = sweep_watch.SweepWatch(many.state()).look()
    lines = shown(look, columns)
    for trial in trials:
        assert any(line.startswith(f"{trial.id} ") for line in lines)
    assert max(map(len, lines)) <= columns
    low = shown(look, columns, lines=20)
    assert len(low) <= 19
    assert all("running" in line for line in low[2:7]), "first what runs"
    assert any("more; status --json has all" in line for line in low)


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("PENDING", "Resources", "free nodes (Resources)"),
        ("PENDING", "Priority", "jobs ahead of it (Priority)"),
        ("PENDING", "QOSMaxJobsPerUserLimit", "your limit in the QOS (QOSMaxJobsPerUserLimit)"),
        ("PENDING", "QOSMaxWallDurationPerJobLimit", "nothing: a longer time than the QOS allows"
         " (QOSMaxWallDurationPerJobLimit)"),
        ("PENDING", "Dependency", "another job's end (Dependency)"),
        ("PENDING", "ReqNodeNotAvail, UnavailableNodes:n[1-4]",
         "nodes that are down or reserved (ReqNodeNotAvail)"),
        ("PENDING", "None", "the scheduler"),
        ("PENDING", "SomethingNew", "SomethingNew"),
        ("CONFIGURING", "None", "its node to boot"),
        ("RUNNING", "None", "its turn: the job has begun"),
    ],
)  # fmt: skip
def test_slurms_reasons_are_words(state, reason, words) -> None:
    assert queue_reason(Queued(state, reason, "", "")) == words


def test_the_queue_is_read_and_not_at_every_look(written, steps, capsys, tmp_path, monkeypatch):
    trials = list(written.sweep.trials())
    stubs = Stubs(tmp_path, monkeypatch)
    rows = ("12_0|RUNNING|None|1:00:00|node7", "12_1|PENDING|Resources||")
    stubs.add("squeue", 'echo >> "$HERE/calls"', *(f"echo '{row}'" for row in rows))
    submission = Submission.new(written.folder, tmp_path)
    submission.add("12", [[trials[0].id], [trials[1].id]])
    written.write(trials[0], "running", 2)
    steps += [lambda: None] * 4
    assert main(["status", "--watch", "--json", *written.words]) == 130
    (line,) = rows_of(capsys.readouterr().out)
    assert stubs.read("calls").count("\n") == 1
    by_id = {row["id"]: row for row in line["trials"]}
    assert by_id[trials[0].id]["node"] == "node7"
    assert by_id[trials[1].id]["state"] == "queued"
    assert line["waits"] == {"free nodes (Resources)": 1, "submit": 1}


def test_a_silent_slurm_is_one_line_below_the_rest(written, tmp_path, monkeypatch):
    (trial, *_) = written.sweep.trials()
    Stubs(tmp_path, monkeypatch).add("squeue", "echo down >&2; exit 1")
    Submission.new(written.folder, tmp_path).add("12", [[trial.id]])
    look = sweep_watch.SweepWatch(written.state()).look()
    assert "Slurm does not answer (down)" in look.complaint
    assert any("Slurm does not answer" in line for line in shown(look, 200))


# --- what is read


def test_only_records_that_were_written_are_read(written, monkeypatch) -> None:
    trials = list(written.sweep.trials())
    for trial in trials[:2]:
        written.write(trial, "running", 1)
    read: list[str] = []
    real = trial_entries.read_record

    def reading(folder: Path) -> dict[str, Any]:
        read.append(folder.name)
        return real(folder)

    looking = sweep_watch.SweepWatch(written.state())
    monkeypatch.setattr(trial_entries, "read_record", reading)
    looking.look()
    assert sorted(read) == sorted(trial.id for trial in trials[:2])
    read.clear()
    looking.look()
    assert read == []
    written.write(trials[1], "done", 8)
    written.write(trials[2], "running", 1)
    assert looking.look().states == {"running": 2, "done": 1}
    assert sorted(read) == sorted(trial.id for trial in trials[1:])


def test_a_search_says_how_many_are_to_be_drawn(tmp_path) -> None:
    values = {"optimizer.lr": {"values": [0.001, 0.01, 0.1, 1.0]}}
    text = {"program": "trainer.py", "method": "bayes", "run_cap": 3, "parameters": values}
    search = Written(tmp_path, text)
    looking = sweep_watch.SweepWatch(search.state())
    assert (looking.look().undrawn, looking.look().is_over) == (3, False)
    for number, lr in enumerate((0.01, 0.1, 1.0), 1):
        search.write(Trial({"optimizer.lr": lr}, search.sweep.naming), "done", 8)
        look = looking.look()
        assert (len(look.rows), look.undrawn, look.is_over) == (number, 3 - number, number == 3)
    assert "search: 0 trials are still to be drawn" in shown(look, 80)


def test_rates_are_the_last_that_were_logged(tmp_path) -> None:
    file = tmp_path / "metrics.csv"
    assert rates.last_rates(file) == rates.Rates()
    file.write_text(RATES + "1,4,99,0.")
    assert rates.last_rates(file) == rates.Rates(4321.5, 4.0), "a torn row is left out"
    file.write_text(RATES + "0,3,,,1.25\n" * 20_000 + "2,5,7.0,0.5,\n")
    assert rates.last_rates(file) == rates.Rates(7.0, 2.0)
    file.write_text("epoch,step,loss\n0,1,2\n")
    assert rates.last_rates(file) == rates.Rates()


def test_the_time_left_of_a_sweep() -> None:
    done, half = ("done", {"seconds": 60}), ("running", {"seconds": 30, "epoch": 5, "epochs": 10})
    assert sweep_seconds_left([done, half]) == 30
    assert sweep_seconds_left([done, half, half, ("missing", {}), ("queued", {})]) == 90
    assert sweep_seconds_left([half, ("missing", {})]) == 90, "as long as the running one takes"
    assert sweep_seconds_left([done, half], undrawn=2) == 150
    assert sweep_seconds_left([done, ("missing", {})]) is None, "nothing runs"
    assert sweep_seconds_left([("running", {"seconds": 5})]) is None
