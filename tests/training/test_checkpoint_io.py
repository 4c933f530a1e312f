"""Checkpoints are written whole or not at all, and read without running code from them."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal

import pytest
import torch

from mlmodeldev.errors import UsageError
from mlmodeldev.training.checkpoint_io import AtomicCheckpointIO

IO = AtomicCheckpointIO()


def checkpoint(number: int, size: int = 10) -> dict:
    return {"state_dict": {"w": torch.full((size,), float(number))}, "global_step": number}


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "folder" / "step.ckpt"
    IO.save_checkpoint(checkpoint(7), path)
    loaded = IO.load_checkpoint(path)
    assert loaded["global_step"] == 7
    assert loaded["state_dict"]["w"].equal(checkpoint(7)["state_dict"]["w"])
    assert [file.name for file in path.parent.iterdir()] == ["step.ckpt"]
    IO.save_checkpoint(checkpoint(8), str(path))
    assert IO.load_checkpoint(str(path))["global_step"] == 8


def test_a_checkpoint_is_removed_once_and_twice(tmp_path):
    IO.save_checkpoint(checkpoint(1), tmp_path / "a.ckpt")
    IO.remove_checkpoint(tmp_path / "a.ckpt")
    IO.remove_checkpoint(tmp_path / "a.ckpt")
    assert [*tmp_path.iterdir()] == []


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    mark = tmp_path / "mark"
    torch.save({"x": Evil(f"touch {mark}")}, tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        IO.load_checkpoint(tmp_path / "evil.ckpt", weights_only=False)
    assert not mark.exists()
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert mark.exists()  # it would have


class DiesWhenPickled:
    """Kills its process in the middle of the saving."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def save_and_die(path: str) -> None:
    IO.save_checkpoint({**checkpoint(2, 100_000), "callbacks": DiesWhenPickled()}, path)


def save_until_killed(path: str, ready) -> None:
    number = 2
    while True:
        IO.save_checkpoint(checkpoint(number, 300_000), path)
        ready.set()
        number += 1


def fork(target, *arguments):
    process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
    process.start()
    return process


def test_a_writer_that_dies_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "step.ckpt"
    IO.save_checkpoint(checkpoint(1), path)
    process = fork(save_and_die, str(path))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert IO.load_checkpoint(path)["global_step"] == 1


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "step.ckpt"
    context = multiprocessing.get_context("forkserver")
    for _ in range(5):
        ready = context.Event()
        process = fork(save_until_killed, str(path), ready)
        assert ready.wait(60)
        process.kill()
        process.join(60)
        loaded = IO.load_checkpoint(path)
        wanted = checkpoint(loaded["global_step"], 300_000)
        assert loaded["state_dict"]["w"].equal(wanted["state_dict"]["w"])


@pytest.fixture
def little_room():
    """A limit of 64 kB on any file, which torch meets as it meets a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [20_000, 2_000_000])
def test_where_there_is_no_room_it_is_reported_and_the_checkpoint_before_stays(
    tmp_path, little_room, size
):
    path = tmp_path / "step.ckpt"
    IO.save_checkpoint(checkpoint(1), path)
    with pytest.raises(UsageError, match=r"step\.ckpt: the file-size limit is reached"):
        IO.save_checkpoint(checkpoint(2, size), path)
    assert IO.load_checkpoint(path)["global_step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["step.ckpt"]


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    real = torch.save

    def onto_a_full_disk(obj, file):
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        real(obj, file)

    monkeypatch.setattr(torch, "save", onto_a_full_disk)
    with pytest.raises(UsageError, match="no space left on the device"):
        IO.save_checkpoint(checkpoint(2, 100_000), tmp_path / "step.ckpt")
    assert [*tmp_path.iterdir()] == []


def test_an_object_that_cannot_be_saved_is_no_bad_input(tmp_path):
    with pytest.raises(Exception, match="pickle") as error:
        IO.save_checkpoint({"callbacks": lambda: None}, tmp_path / "step.ckpt")
    assert not isinstance(error.value, UsageError)
    assert [*tmp_path.iterdir()] == []


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        IO.save_checkpoint(checkpoint(1), tmp_path / "checkpoints" / "step.ckpt")
