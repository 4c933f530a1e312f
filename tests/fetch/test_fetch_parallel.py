"""Several connections by pySmartDL: quicker, and never trusted."""

import hashlib
import random
import resource

import pytest

from mlmodeldev.data import FetchError
from mlmodeldev.fetch import attempts
from mlmodeldev.fetch.parallel import segments
from tests.fetch.fault_server import Answer

SIZE = 9_000_001
CHUNK = 2_250_001  # what pySmartDL 1.3.4 asks for with four parts: see its calc_chunk_size


@pytest.fixture(scope="module")
def body():
    return random.Random(1).randbytes(SIZE)


@pytest.fixture(autouse=True)
def _split_early(monkeypatch):
    monkeypatch.setattr(attempts, "PARALLEL_BYTES", 1_000_000)
    monkeypatch.setattr(attempts, "_TRIAL_SECONDS", 0.03)
    monkeypatch.setattr(attempts, "_WORTH_SECONDS", 0.1)


SLOW = Answer(rate=9e6)


def requested_parts(server):
    return [value for value in server.ranges() if value not in (None, "bytes=0-3")]


def test_a_slow_line_is_split_and_the_result_is_whole(server, body, get, tmp_path):
    server.add("a", body, then=SLOW)
    path = get("a")
    assert path.read_bytes() == body
    assert sorted(requested_parts(server)) == sorted(
        f"bytes={CHUNK * i + i * (i > 0)}-{min(CHUNK * (i + 1) + i, SIZE - 1)}" for i in range(4)
    )
    assert sorted(p.name for p in path.parent.iterdir()) == [".fetch", "f.bin"]
    assert [p.name for p in (path.parent / ".fetch").iterdir()] == ["f.bin.json"]


def test_a_fast_line_is_not_split(server, body, get):
    server.add("a", body)
    get("a")
    assert server.ranges() == [None]


@pytest.mark.parametrize(
    "broken",
    [
        Answer(reset_after=300_000),
        Answer(cut_after=300_000),
        Answer(stall_after=300_000),
        Answer(status=503),
        Answer(wrong_range=True, cut_after=300_000),
    ],
    ids=["reset", "cut", "stall", "503", "wrong range"],
)
def test_one_broken_part_leaves_only_its_gap_to_fetch(server, body, get, broken):
    # trial, size probe, range probe, start; then the parts
    server.add("a", body, [SLOW] * 4 + [broken], SLOW)
    assert get("a", timeout=1).read_bytes() == body
    assert 5 <= len(requested_parts(server)) <= 7
    assert server.sent < SIZE * 1.6


@pytest.mark.parametrize("at", [1, 2, 3])
def test_failing_before_the_parts_goes_on_with_one_stream(server, body, get, at):
    server.add("a", body, [SLOW] * at + [Answer(status=503)] * 3, SLOW)
    assert get("a").read_bytes() == body


def test_wrong_content_by_parts_is_detected(server, body, get):
    server.add("a", body, [SLOW] * 4 + [Answer(body=bytes(SIZE))] * 4)
    assert get("a").read_bytes() == body
    assert len(requested_parts(server)) == 4
    assert server.ranges()[-1] is None  # from the first byte, by one connection


def test_credentials_keep_to_one_stream(server, body, get):
    server.add("a", body, then=SLOW)
    get("a", fields={"headers": {"X-Key": "k"}})
    assert server.ranges() == [None]


def test_parts_can_be_switched_off(server, body, get):
    server.add("a", body, then=SLOW)
    get("a", parts=1)
    assert server.ranges() == [None]


def test_segments_know_where_parts_start(tmp_path):
    (tmp_path / "parts.count").write_text("4")
    (tmp_path / "parts.001").write_bytes(b"xyz")
    (tmp_path / "parts.003").write_bytes(bytes(CHUNK + 5))  # a server that ignored the range
    present = segments(tmp_path, SIZE)
    assert [(s.start, s.size) for s in present] == [(CHUNK + 1, 3)]
    assert segments(tmp_path, None) == []


def test_digest_is_that_of_an_independent_tool(server, body, get):
    import subprocess

    server.add("a", body, then=SLOW)
    path = get("a")
    output = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    assert output.split()[0] == hashlib.sha256(body).hexdigest()


def test_disk_full_while_joining_the_parts(server, body, get, tmp_path, capfd):
    """The parts fit, the joined file doesn't; pySmartDL's thread fails, and says nothing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK + 1_000_000, before[1]))
    try:
        server.add("a", body, then=SLOW)
        with pytest.raises(FetchError, match="no space left"):
            get("a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "data").iterdir()) == []
    assert "Traceback" not in capfd.readouterr().err
