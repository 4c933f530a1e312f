"""Where training stands: calm lines in a log, a bar in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading

import pytest

from tests.callbacks import patches

SMALL = (
    "logger=csv",
    "callbacks=none",
    "callbacks.progress.enabled=true",
    "training.max_epochs=2",
    "training.limit_train_batches=6",
    "training.limit_val_batches=2",
    "training.test=false",
    "model.hidden_size=16",
    "model.num_layers=1",
)


def test_a_log_has_one_line_an_epoch_and_nothing_else(trials) -> None:
    ended = trials.run(*SMALL)
    assert "\r" not in ended.output
    assert "\x1b" not in ended.output
    lines = ended.output.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        entry = ended.log[number - 1]
        assert line.startswith(f"epoch {number}/2  val/accuracy ")
        assert "  train/loss " in line
        shown = dict(re.findall(r"(\S+) ([\d.e-]+)(?:  |$)", line.partition("  ")[2]))
        assert float(shown["val/loss"]) == pytest.approx(entry["val/loss"], rel=1e-3)
        assert float(shown["val/accuracy"]) == pytest.approx(entry["val/accuracy"], rel=1e-3)
        assert float(shown["lr"]) == pytest.approx(entry["lr"], rel=1e-2, abs=1e-9)


def test_a_line_now_and_then_within_an_epoch(trials) -> None:
    """The time between lines set to nothing: then each batch has one, of its phase."""
    ended = trials.run(*SMALL, "callbacks.progress.every_seconds=1e-9")
    for phase, count in (("TRAIN", 6), ("VALID", 2)):
        lines = [line for line in ended.output.splitlines() if f"  {phase}  " in line]
        places = [re.search(r"epoch (\d)/2  \w+  (\d)/(\d)  ", line).groups() for line in lines]
        wanted = [(str(e), str(b), str(count)) for e in (1, 2) for b in range(1, count + 1)]
        assert places == wanted
        assert all(re.search(r"  lr [\d.e-]+$", line) for line in lines)
        assert all(("  loss " in line) == (phase == "TRAIN") for line in lines)


def test_nothing_where_it_is_switched_off(trials) -> None:
    assert trials.run(*SMALL, "callbacks.progress.enabled=false").output == ""


def test_a_bar_in_a_terminal(trials) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the last who held the terminal has closed it
                return
            shown.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    ended = trials.run(*SMALL, terminal=os.ttyname(theirs), patch=patches.slower_than_the_bar)
    os.close(theirs)
    reader.join(20)
    assert not reader.is_alive()
    os.close(ours)
    text = shown.decode()
    assert ended.code == 0, text
    for epoch in (1, 2):
        assert f"epoch {epoch}/2 TRAIN" in text
        assert f"epoch {epoch}/2 VALID" in text
        for done in range(1, 7):
            assert re.search(rf"epoch {epoch}/2 TRAIN: +\d+%\|[^|]*\| {done}/6 ", text)
    assert re.search(r"loss=[\d.]+, lr=[\d.e-]+", text)
    assert "\r" in text
    assert screen(text) == ""  # the bars leave nothing behind


def screen(text: str) -> str:
    """Return what a terminal shows after these characters: a carriage return overwrites."""
    shown = []
    for line in text.split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        shown.append("".join(cells).strip())
    return "\n".join(shown).strip()
