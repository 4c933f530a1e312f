"""Files and answers that once ended in a traceback, or in a wrong result: each is answered now."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from tests.fuzz.test_kept import LONG, refusal

pytestmark = pytest.mark.project


def test_a_zip_of_several_disks_is_refused_as_weights(tmp_path: Path) -> None:
    from mlmodeldev.trial.checkpoint_values import check_weights

    file = tmp_path / "x.ckpt"
    locator = b"PK\x06\x07" + (0).to_bytes(4, "little") + (0).to_bytes(8, "little") + b"\2\0\0\0"
    file.write_bytes(bytes(64) + locator + b"PK\x05\x06" + bytes(18))
    refusal(check_weights, file)


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    from mlmodeldev.fetch.unpacking import unpack

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("x", b"content")
    file = tmp_path / "a.zip"
    # the name's length is 0 in both headers, and the letter is taken for an extra field of none
    data = bytearray(out.getvalue().replace(b"x", b""))
    at = data.index(b"PK\1\2")
    data[26:28], data[at + 28 : at + 30] = b"\0\0", b"\0\0"
    end = data.index(b"PK\5\6")
    data[end + 12 : end + 20] = (end - at).to_bytes(4, "little") + at.to_bytes(4, "little")
    file.write_bytes(bytes(data))
    refusal(unpack, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"\x80\x02]q\x00.", b"\x93NUMPY\x01\x00\x10\x00{'descr': (\n"])
@pytest.mark.parametrize("suffix", [".pt", ".npy"])
def test_a_damaged_example_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    from mlmodeldev.training.predict_example import read_example

    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    refusal(read_example, str(file))


@pytest.mark.parametrize("urls", [["http://[::1"], None, 3, [None]])
def test_an_address_that_is_none_is_refused(urls) -> None:
    from mlmodeldev.fetch.source import Source

    refusal(lambda: Source(urls))


@pytest.mark.parametrize(
    "line",
    ["layout: 3", "layout: {a: b}", "files: [{urls: null}]", "files: [{urls: 3}]"]
    + [f"files: [{{urls: ['http://h/x'], {more}}}]" for more in ("headers: 3", "max_bytes: x")],
)
def test_a_manifest_of_other_types_is_refused(tmp_path: Path, line: str) -> None:
    from mlmodeldev.fetch.manifest import load

    file = tmp_path / "odd.yaml"
    file.write_text(
        line if line.startswith("files") else f"files: [{{urls: 'http://h/x'}}]\n{line}"
    )
    refusal(load, file)


def test_a_zip_whose_index_was_lost_is_no_empty_archive(tmp_path: Path) -> None:
    from mlmodeldev.fetch.unpacking import unpack

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("x", b"content")
    data = bytearray(out.getvalue())
    data[-10:-6] = bytes(4)  # the index's size
    (tmp_path / "a.zip").write_bytes(bytes(data))
    refusal(unpack, tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("place", ["http://[::1", "\xb2"])
def test_a_redirect_to_no_address_is_refused(tmp_path: Path, place: str) -> None:
    from mlmodeldev.fetch.download import fetch
    from mlmodeldev.fetch.source import Source
    from tests.fuzz.answers import served

    answer = f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
    with served([answer.encode("latin-1")]):
        options = {"retries": 0, "progress": False, "offline": False}
        refusal(lambda: fetch(Source(["http://data.test/a"]), tmp_path, **options))


@pytest.mark.parametrize("message", [" ", "a\nb", "\u2028"])
def test_what_a_server_says_of_an_error_is_one_line(monkeypatch, message: str) -> None:
    from mlmodeldev.tracking import wandb_api

    body = json.dumps({"errors": [{"message": message}]}).encode()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(wandb_api, "post_json", lambda *given: (200, body))
    with pytest.raises(wandb_api.Refused) as caught:
        wandb_api.query_server("query")
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    import numpy as np

    from mlmodeldev.training.predict_example import read_example

    out = io.BytesIO()
    np.save(out, np.zeros(3))
    file = tmp_path / "x.npy"
    file.write_bytes(out.getvalue().replace(b"(3,)", b"(9" + b"9" * 14 + b",)", 1))
    refusal(read_example, str(file))


@pytest.mark.parametrize("text", [f"files: {LONG}", "[" * 5000])
def test_a_manifest_that_can_not_be_read_is_refused(tmp_path: Path, text: str) -> None:
    from mlmodeldev.fetch.manifest import load

    (tmp_path / "odd.yaml").write_text(text)
    refusal(load, tmp_path / "odd.yaml")


def test_a_zip_whose_index_is_cut_short_is_not_unpacked_in_part(tmp_path: Path) -> None:
    from mlmodeldev.fetch.unpacking import unpack

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("x", b"content")
        made.writestr("y", b"more")
    data = bytearray(out.getvalue())
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 1)
    del data[second : data.index(b"PK\5\6")]
    data[-10:-6] = (second - first).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(bytes(data))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["x"], "as Python's zipfile has it"
    refusal(unpack, tmp_path / "a.zip", tmp_path / "out")


def test_a_length_in_an_image_that_is_damaged_takes_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    from PIL import Image

    from mlmodeldev.data.images import read_image

    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "PNG")
    data = bytearray(out.getvalue())
    at = data.index(b"IDAT")
    data[at - 4 : at] = (0x60000000).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(bytes(data))
    tracemalloc.start()
    try:
        with contextlib.suppress(UsageError):
            read_image(tmp_path / "x.png", 8, 1, 0.0, 1.0)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
