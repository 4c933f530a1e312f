"""A trial whose output goes nowhere trains on; a closed terminal lets it save; a caller goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.errors import TrialInterrupted
from mlmodeldev.output import output_may_be_lost
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.schema import Settings
from mlmodeldev.trial import signals
from tests.conftest import ROOT, Trials, in_fork

TINY = (
    *("logger=csv", "callbacks.cka.enabled=false", "training.test=false"),
    *("model.hidden_size=16", "model.num_layers=1", "training.max_epochs=2"),
    *("training.limit_train_batches=4", "training.limit_val_batches=1", "processing.batch_size=16"),
)


def print_to_closed_pipe() -> None:
    """Let the reader of what is printed be gone after the trial has begun."""
    import model

    reader, writer = os.pipe()
    step = model.DualEncoder.training_step

    def stepping(self: Any, *arguments: Any) -> Any:
        os.dup2(writer, 1), os.dup2(writer, 2)
        print("x" * 100_000, flush=True)
        print("y" * 100_000, file=sys.stderr, flush=True)
        return step(self, *arguments)

    os.close(reader)
    model.DualEncoder.training_step = stepping  # type: ignore[method-assign]


def print_to_full_disk() -> None:
    """Let the disk of what is printed be full."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1), os.dup2(full, 2)


@pytest.mark.parametrize("patch", [print_to_closed_pipe, print_to_full_disk])
def test_training_goes_on_without_its_output(trials: Trials, patch: Any) -> None:
    ended = trials.run(*TINY, patch=patch)
    assert ended.record["state"] == "done"
    assert ended.record["epoch"] == 2


def test_the_trainer_ends_well_though_nobody_reads_it(tmp_path: Path, data_dir: Path) -> None:
    """As with ``trainer.py | head -1`` and no standard error; the whole program."""
    places = [f"artefacts.runs_dir={tmp_path}/runs", f"artefacts.data_dir={data_dir}"]
    rehearsal = "artefacts.rehearsal=false"
    words = [sys.executable, "trainer.py", "artefacts.trial=t", rehearsal, *TINY, *places]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *words],
        cwd=ROOT,
        stdout=writer,
        timeout=240,
        check=False,
    )
    os.close(writer)
    assert ended.returncode == 0
    record = json.loads((tmp_path / "runs" / "single" / "t" / "trial.json").read_text())
    assert record["state"] == "done"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU])
def test_a_closed_terminal_and_a_used_up_limit_let_the_trial_save(trials: Trials, number) -> None:
    ended = trials.run(*TINY, signal_at=(number, 6), patch=_as_in_a_terminal)
    assert (ended.code, ended.record["state"]) == (75, "interrupted")
    assert signal.Signals(number).name in ended.record["reason"]
    assert ended.checkpoint.name == "step-0000000006.ckpt"


def _as_in_a_terminal() -> None:
    """The tests themselves may be run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_under_nohup_a_closed_terminal_is_nothing(tmp_path: Path) -> None:
    assert in_fork(tmp_path / "printed", _under_nohup) == 0, (tmp_path / "printed").read_text()


def _under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signals.requested() is None


def test_writing_fails_again_once_the_trial_is_over(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"), Path("/dev/full").open("w") as full:
        before, sys.stdout = sys.stdout, full
        try:
            with output_may_be_lost():
                print("lost", flush=True)
            print("noticed", flush=True)
        finally:
            sys.stdout = before


def test_a_script_that_goes_on_has_its_own_handlers_again(tmp_path: Path, data_dir: Path) -> None:
    places = [f"artefacts.runs_dir={tmp_path}/runs", f"artefacts.data_dir={data_dir}"]
    settings = compose_settings([*TINY, *places, "artefacts.rehearsal=false"])
    printed = tmp_path / "printed"
    assert in_fork(printed, _a_script, settings) == 0, printed.read_text()


def _a_script(settings: Settings) -> None:
    import multiprocessing

    import trainer
    from mlmodeldev.training import ranks

    multiprocessing.parent_process = lambda: None  # type: ignore[assignment]  # a fork otherwise
    taken: list[int] = []
    own: Any = lambda number, frame: taken.append(number)  # noqa: E731
    for number in signals.SIGNALS:
        signal.signal(number, own)

    def are_restored() -> bool:
        return all(signal.getsignal(number) is own for number in signals.SIGNALS)

    joined = ranks._join

    def interrupted(_: Settings) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        signals.raise_if_requested()

    ranks._join = interrupted
    with pytest.raises(TrialInterrupted):
        trainer.train(settings)
    assert signals.requested() is None, "the next trial is not ended by it"
    assert are_restored()
    ranks._join = joined
    assert trainer.train(settings).state == "done"
    assert are_restored()
    os.kill(os.getpid(), signal.SIGTERM)
    assert taken == [signal.SIGTERM]
