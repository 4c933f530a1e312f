"""Signals set a flag and do nothing else; a second Ctrl-C ends at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from mlmodeldev.errors import TrialInterrupted
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.schema import Settings
from mlmodeldev.trial import signals
from tests.conftest import in_fork


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    signals.forget()
    yield
    signals.forget()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_by_name_and_the_process_goes_on(number):
    signals.listen()
    assert signals.requested() is None
    os.kill(os.getpid(), number)
    assert signals.requested() == signal.Signals(number).name


def test_the_first_signal_gives_the_reason():
    signals.listen()
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        os.kill(os.getpid(), number)
    assert signals.requested() == "SIGUSR1"
    signals.forget()
    assert signals.requested() is None


def test_a_second_ctrl_c_ends_at_once():
    signals.listen()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_listening_takes_the_signals_back_from_another_handler():
    signals.listen()
    taken = []
    signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
    signals.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (taken, signals.requested()) == ([], "SIGTERM")


def test_outside_of_the_main_thread_signals_keep_their_handlers():
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    errors = []

    def listen():
        try:
            signals.listen()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert errors == []
    assert {number: signal.getsignal(number) for number in signals.SIGNALS} == before


def test_what_ended_one_trial_does_not_end_the_next():
    signals.listen()
    with pytest.raises(TrialInterrupted), signals.answered():
        os.kill(os.getpid(), signal.SIGINT)
        signals.ask_to_stop("W&B")
        signals.raise_if_requested()
    assert (signals.requested(), signals.stopped_by()) == (None, None)


def test_a_signal_that_came_too_late_is_for_the_next_trial():
    signals.listen()
    with signals.answered():
        os.kill(os.getpid(), signal.SIGTERM)
        signals.ask_to_stop("W&B")
    assert (signals.requested(), signals.stopped_by()) == ("SIGTERM", None)


def test_the_worker_of_a_launcher_keeps_its_signal(monkeypatch):
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    signals.listen()
    with pytest.raises(TrialInterrupted), signals.answered():
        os.kill(os.getpid(), signal.SIGTERM)
        signals.raise_if_requested()
    assert signals.requested() == "SIGTERM"


def _interrupted_then_again(settings: Settings) -> None:
    import trainer

    multiprocessing.parent_process = lambda: None  # type: ignore[assignment]  # as in a notebook
    signals.listen()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(TrialInterrupted):
        trainer.train(settings)
    assert trainer.train(settings).state == "done"


def test_after_an_interruption_the_same_process_trains_on(tmp_path, data_dir):
    settings = compose_settings(
        [
            *("debug=fast", "logger=csv", "callbacks=none", "artefacts.trial=mine"),
            f"artefacts.runs_dir={tmp_path / 'runs'}",
            f"artefacts.data_dir={data_dir}",
        ]
    )
    printed = tmp_path / "printed"
    assert in_fork(printed, _interrupted_then_again, settings) == 0, printed.read_text()
    record = json.loads((tmp_path / "runs" / "single" / "mine" / "trial.json").read_text())
    assert (record["state"], record["attempts"]) == ("done", 2)


def test_what_stopped_one_trial_stops_no_later_one_of_the_process(tmp_path, data_dir):
    """As in a notebook: `sync` or `bridge` left its note in the first trial's folder."""
    printed = tmp_path / "printed"
    assert in_fork(printed, _train_two, str(tmp_path / "runs"), str(data_dir)) == 0, (
        printed.read_text()
    )
    first, second = (
        json.loads((tmp_path / "runs" / "single" / name / "trial.json").read_text())
        for name in ("first", "second")
    )
    assert (first["state"], first["reason"]) == ("pruned", "ended early by W&B")
    assert (second["state"], second["reason"]) == ("done", None)


def _train_two(runs: str, data: str) -> None:
    import torch

    import trainer
    from mlmodeldev.tracking import wandb_stop

    torch.set_num_threads(1)
    wandb_stop.LOOK_SECONDS = 0.0
    places = (f"artefacts.runs_dir={runs}", f"artefacts.data_dir={data}")
    for name in ("first", "second"):
        settings = compose_settings([
            *(*places, f"artefacts.trial={name}", "artefacts.rehearsal=false"),
            *( "logger.wandb.mode=offline", "callbacks=none"),
            *("training.max_epochs=2", "training.limit_train_batches=2", "training.test=false"),
        ])  # fmt: skip
        if name == "first":
            _touch_in_validation(Path(runs, "single", name, wandb_stop.STOP_NOTE))
        trainer.train(settings)


def _touch_in_validation(note: Path) -> None:
    from model import DualEncoder

    former = DualEncoder.on_validation_epoch_start

    def touch(self: DualEncoder) -> None:
        note.touch()
        former(self)

    DualEncoder.on_validation_epoch_start = touch
