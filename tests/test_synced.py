"""Folders that are new stay after a power cut, with what is in them."""

from __future__ import annotations

import os

import pytest

from mlmodeldev.synced import make_synced


def test_a_new_folder_is_synced_into_the_one_above_it(tmp_path, monkeypatch):
    """Else a power cut takes the folder, and with it all that was synced in it."""
    synced = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    made = make_synced(tmp_path / "runs" / "digits" / "trial")
    assert made.is_dir()
    for folder in (tmp_path, tmp_path / "runs", tmp_path / "runs" / "digits"):
        assert folder.stat().st_ino in synced
    synced.clear()
    assert make_synced(made) == made
    assert synced == []


def test_a_new_folder_where_a_file_is(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(NotADirectoryError):
        make_synced(tmp_path / "file" / "deep")
    with pytest.raises(NotADirectoryError):
        make_synced(tmp_path / "file")
    with pytest.raises(FileExistsError):
        make_synced(tmp_path / "broken")
