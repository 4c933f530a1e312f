"""Which data a trial has: a file's SHA-256, a folder's names and sizes."""

from __future__ import annotations

import os

import pytest

from mlmodeldev.data.versions import fingerprint
from mlmodeldev.errors import UsageError


def test_a_fingerprint_is_the_sha256_of_a_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert fingerprint(file) == digest
    file.write_bytes(b"abd")
    assert fingerprint(file) != digest


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    file = tmp_path / "large"
    file.write_bytes(bytes(16_000_000))
    first = fingerprint(file)
    monkeypatch.setattr("mlmodeldev.data.versions.hash_file", None)
    assert fingerprint(file) == first
    os.utime(file, (1, 1))
    with pytest.raises(TypeError):
        fingerprint(file)


def test_a_folder_differs_by_names_and_sizes(tmp_path):
    def folder(files):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        return fingerprint(place)

    first = folder({"a/x.jpg": b"12", "b.jpg": b""})
    assert folder({"b.jpg": b"", "a/x.jpg": b"34"}) == first
    assert folder({"a/x.jpg": b"123", "b.jpg": b""}) != first
    assert folder({"a/y.jpg": b"12", "b.jpg": b""}) != first
    with pytest.raises(UsageError, match="gone: No such file"):
        fingerprint(tmp_path / "gone")


def test_a_folder_of_many_files_differs_by_names(tmp_path, monkeypatch):
    monkeypatch.setattr("mlmodeldev.data.versions._MOST_SIZES", 2)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("")
    first = fingerprint(tmp_path)
    (tmp_path / "c").write_text("longer")
    assert fingerprint(tmp_path) == first
    (tmp_path / "c").rename(tmp_path / "d")
    assert fingerprint(tmp_path) != first
