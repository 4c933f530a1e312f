"""Signals set a flag and do nothing else; a second Ctrl-C ends at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mlmodeldev.trial import signals


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
