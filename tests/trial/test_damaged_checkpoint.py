"""Torn and bit-flipped checkpoints: never loaded, never in the way, always told."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest
import torch

from mlmodeldev.trial.checkpoint import (
    LOGGED,
    Logged,
    logged_at,
    newest_whole,
    prune,
    step_path,
)


def state(step: int) -> dict:
    return {"w": torch.arange(6.0) + step, "step": step}


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 10 and 20."""
    for step in (10, 20):
        torch.save(state(step), step_path(tmp_path, step))
    return tmp_path


def test_names_sort_as_numbers_do(tmp_path):
    steps = [3, 20, 100, 9_999_999_999]
    paths = [step_path(tmp_path, step) for step in steps]
    assert sorted(paths) == paths
    assert [int(path.stem.removeprefix("step-")) for path in paths] == steps


def test_the_newest_is_taken_and_nothing_is_reported(folder, caplog):
    assert newest_whole(folder) == step_path(folder, 20)
    assert caplog.text == ""


def test_an_empty_folder_or_none_means_the_start(tmp_path, caplog):
    assert newest_whole(tmp_path) is None
    assert newest_whole(tmp_path / "none") is None
    assert caplog.text == ""


def test_other_files_are_no_recovery_checkpoints(folder):
    torch.save(state(99), folder / "best.ckpt")
    torch.save(state(99), folder / ".step-0000000099.ckpt.host-1.tmp")
    assert newest_whole(folder) == step_path(folder, 20)


def test_what_only_looks_like_a_checkpoint_is_left_alone(folder):
    """A pipe (to open it would wait for ever), a folder, a link to nothing, names of no step."""
    os.mkfifo(step_path(folder, 30))
    step_path(folder, 40).mkdir()
    step_path(folder, 50).symlink_to(folder / "nowhere")
    for name in ("step-x.ckpt", "step-.ckpt", "step-12-13.ckpt", "step-\u0663.ckpt"):
        torch.save(state(99), folder / name)
    before = sorted(folder.iterdir())
    assert newest_whole(folder) == step_path(folder, 20)
    prune(folder, keep=1)
    assert sorted({*before} - {*folder.iterdir()}) == [step_path(folder, 10)]


def test_a_file_torn_at_any_place_is_passed_over(folder):
    newest = step_path(folder, 20)
    whole = newest.read_bytes()
    for size in range(0, len(whole), 7):
        newest.write_bytes(whole[:size])
        assert newest_whole(folder) == step_path(folder, 10), size


def test_it_is_reported_which_one_is_passed_over(folder, caplog):
    newest, older = step_path(folder, 20), step_path(folder, 10)
    newest.write_bytes(newest.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert newest_whole(folder) == older
    assert caplog.messages == [f"{newest} is damaged; trying {older}"]
    older.write_bytes(b"")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert newest_whole(folder) is None
    assert caplog.messages[1] == f"{older} is damaged; trying from the beginning"


def test_any_flipped_bit_is_seen_or_does_no_harm(folder):
    """Every third byte of the file: what is taken loads, and is what was saved."""
    newest = step_path(folder, 20)
    whole = bytearray(newest.read_bytes())
    seen = 0
    places = range(0, len(whole), 3)
    for place in places:
        bit = 1 << (place % 8)
        whole[place] ^= bit
        newest.write_bytes(whole)
        whole[place] ^= bit
        taken = newest_whole(folder)
        assert taken is not None
        loaded = torch.load(taken, weights_only=True)
        wanted = state(20 if taken == newest else 10)
        assert loaded["w"].dtype == torch.float32, place
        assert loaded["w"].equal(wanted["w"]), place
        assert loaded["step"] == wanted["step"], place
        seen += taken != newest
    # all that is stored and most of what says where; the rest are fields that nobody reads
    assert seen > len(places) / 3


def test_the_bit_that_makes_torch_read_uninitialised_memory(folder):
    """The mark "this is a folder" in the zip directory, which no checksum covers."""
    newest = step_path(folder, 20)
    data = bytearray(newest.read_bytes())
    entry = data.rindex(b"/data/0") - len(newest.stem)  # the name in the directory
    data[entry - 8] |= 0x10  # external attributes: 8 to 4 bytes before it
    newest.write_bytes(data)
    assert newest_whole(folder) == step_path(folder, 10)


def test_zeros_after_a_power_cut_are_no_checkpoint(folder):
    newest = step_path(folder, 20)
    newest.write_bytes(bytes(len(newest.read_bytes())))
    assert newest_whole(folder) == step_path(folder, 10)


def test_a_checkpoint_that_may_not_be_loaded_is_not_taken_for_damaged(folder):
    # It would be trained over, again and again, in silence; loading it says what it holds.
    torch.save({"object": signal.Signals.SIGTERM}, step_path(folder, 30))
    assert newest_whole(folder) == step_path(folder, 30)


def test_only_the_newest_are_kept_and_nothing_else_is_deleted(folder):
    for step in (5, 1000):
        torch.save(state(step), step_path(folder, step))
    (folder / "best.ckpt").write_text("")
    prune(folder)
    kept = {step_path(folder, 20).name, step_path(folder, 1000).name, "best.ckpt"}
    assert {path.name for path in folder.iterdir()} == kept
    prune(folder, keep=1)
    assert newest_whole(folder) == step_path(folder, 1000)
    assert not step_path(folder, 20).exists()


def test_a_trial_goes_on_from_the_one_before_and_ends_the_same(trials):
    small = (
        "logger=csv",
        "callbacks=none",
        "training.max_epochs=2",
        "training.limit_train_batches=4",
        "training.limit_val_batches=1",
        "training.test=false",
        "training.checkpoint_every_n_steps=1",
        "processing.batch_size=8",
        "model.hidden_size=8",
        "model.num_layers=1",
        "model.dropout=0.1",
    )
    whole = trials.run(*small, name="whole")
    killed = trials.run(*small, kill_at=7, name="torn")
    assert killed.checkpoint.name == "step-0000000006.ckpt"
    killed.checkpoint.write_bytes(killed.checkpoint.read_bytes()[:-100])
    resumed = trials.run(*small, name="torn")
    assert (resumed.code, resumed.record["state"]) == (0, "done")
    ours, theirs = (torch.load(t.checkpoint, weights_only=True) for t in (resumed, whole))
    for name, weight in theirs["state_dict"].items():
        assert ours["state_dict"][name].equal(weight), name
    assert resumed.rows == whole.rows


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({LOGGED: {"rows": 7, "validation_due": True}}, Logged(7, True)),
        ({LOGGED: {"rows": 0, "validation_due": False}}, Logged(0)),
        ({}, Logged()),
        ({LOGGED: {"rows": -1, "validation_due": "yes"}}, Logged()),
        ({LOGGED: {"rows": "7"}}, Logged()),
        ({LOGGED: [7]}, Logged()),
        (None, Logged()),
    ],
)
def test_how_far_the_loggers_were(content: object, expected: Logged, tmp_path: Path) -> None:
    """An earlier version's checkpoint, and an odd one, do not say: its step alone decides."""
    path = step_path(tmp_path, 7)
    torch.save(content, path)
    assert logged_at(path) == expected
    path.write_bytes(path.read_bytes()[:100])
    assert logged_at(path) == Logged()
