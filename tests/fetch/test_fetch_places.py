"""What is already there, offline machines, shared folders, full disks, wrong arguments."""

import hashlib
import os
import resource
import subprocess
import sys
import time

import pytest

from mlmodeldev.data import FetchError, Source, fetch
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch import attempts, files, verify
from tests.fetch.fault_server import Answer


def count_reads(monkeypatch):
    reads = []
    real = verify.hash_file
    monkeypatch.setattr(verify, "hash_file", lambda *a: reads.append(a) or real(*a))
    return reads


def test_second_call_asks_and_hashes_nothing(server, body, get, monkeypatch):
    server.add("a", body)
    get("a")
    reads = count_reads(monkeypatch)
    get("a")
    assert len(server.requests) == 1
    assert reads == []


def test_second_call_imports_no_http_client(server, body, get, tmp_path):
    server.add("a", body)
    path = get("a")
    code = (
        "import sys; from mlmodeldev.data import fetch, Source;"
        f"fetch(Source(urls=['http://x/f.bin'], bytes={len(body)}), {str(path.parent)!r});"
        "print(*sorted({'requests', 'filelock', 'tqdm', 'pySmartDL', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("fields", [{}, {"bytes": None}, {"sha256": None}])
def test_a_file_placed_by_hand_is_verified_once_and_used(server, body, get, tmp_path, fields):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f.bin").write_bytes(body)
    get("a", fields=fields)
    assert server.requests == []
    assert (tmp_path / "data/.fetch/f.bin.json").is_file()


@pytest.mark.parametrize("damage", ["shorter", "same size"])
def test_a_damaged_file_is_fetched_again(server, body, get, tmp_path, damage):
    server.add("a", body)
    path = get("a")
    bad = body[:-1] if damage == "shorter" else body[:-1] + bytes([body[-1] ^ 1])
    path.write_bytes(bad)
    os.utime(path, ns=(1, 1))
    assert get("a").read_bytes() == body
    assert len(server.requests) == 2


def test_another_digest_wanted_than_the_one_verified(server, body, get):
    server.add("a", body)
    get("a")
    other = body[::-1]
    server.add("a", other)
    fields = {"sha256": hashlib.sha256(other).hexdigest()}
    assert get("a", fields=fields).read_bytes() == other


def test_md5_alone_and_digests_in_upper_case(server, body, get):
    server.add("a", body)
    fields = {"sha256": None, "md5": hashlib.md5(body).hexdigest().upper()}
    path = get("a", fields=fields)
    get("a", fields=fields)
    assert verify.recorded_digest(path) == hashlib.sha256(body).hexdigest()
    get("a", fields={"sha256": hashlib.sha256(body).hexdigest().upper()})
    assert len(server.requests) == 1


def test_wrong_md5(server, body, get):
    server.add("a", body)
    with pytest.raises(FetchError, match="md5"):
        get("a", fields={"sha256": None, "md5": "0" * 32})


@pytest.mark.parametrize("by", ["argument", "MLMODELDEV_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_what_to_place_where(server, body, get, tmp_path, monkeypatch, by):
    if by != "argument":
        monkeypatch.setenv(by, "1")
    with pytest.raises(FetchError) as caught:
        get("a?key=hush", offline=True if by == "argument" else None)
    text = str(caught.value)
    for words in (
        "f.bin",
        "/a",
        hashlib.sha256(body).hexdigest(),
        str(tmp_path / "data"),
        "300000",
    ):
        assert words in text
    assert "hush" not in text
    assert server.requests == []
    assert not (tmp_path / "data").exists()


def test_offline_uses_a_right_file_and_names_a_wrong_one(server, body, get, tmp_path):
    path = tmp_path / "data" / "f.bin"
    path.parent.mkdir()
    path.write_bytes(body)
    assert get("a", offline=True) == path
    path.write_bytes(body[:-1])
    with pytest.raises(FetchError, match=r"3000000 bytes instead of 3000001.*place f.bin"):
        get("a", offline=True)
    assert path.exists()


def test_offline_still_takes_a_local_address(body, tmp_path):
    origin = tmp_path / "o.bin"
    origin.write_bytes(body)
    source = Source(urls=["http://127.0.0.1:9/o.bin", origin.as_uri()])
    assert fetch(source, tmp_path / "data", offline=True, progress=False).read_bytes() == body


def test_offline_variable_set_to_0_is_online(server, body, get, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    server.add("a", body)
    get("a")


def test_shared_folder_gives_its_permissions(server, body, get, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    server.add("a", body)
    before = os.umask(0o077)
    try:
        path = get("a", directory=shared / "sub")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o660
    assert path.parent.stat().st_mode & 0o7777 == 0o2770
    assert (path.parent / ".fetch" / "f.bin.json").stat().st_mode & 0o7777 == 0o660


def test_private_folder_stays_private(server, body, get, tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    server.add("a", body)
    assert get("a").stat().st_mode & 0o7777 == 0o600


def test_read_only_cache_is_hashed_once(server, body, get, tmp_path, monkeypatch):
    """As root every folder can be written, so the answer of the system is replaced."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "f.bin").write_bytes(body)
    real = os.mkdir

    def refuse(path, *rest, **more):
        if str(path).startswith(str(folder)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", refuse)
    reads = count_reads(monkeypatch)
    get("a")
    get("a")
    assert len(reads) == 1
    with pytest.raises(FetchError, match="can't be written"):
        get("a", fields={"name": "other.bin"})


def test_touch_renews_the_times_without_a_new_hash(server, body, get, monkeypatch):
    server.add("a", body)
    path = get("a")
    reads = count_reads(monkeypatch)
    before = time.time() - 1
    status = path.stat()
    os.utime(path, (1, status.st_mtime_ns / 1e9))
    get("a", touch=True)
    assert path.stat().st_mtime > before
    get("a", touch=True)
    assert len(reads) <= 1  # utime in seconds may have changed the time stamp once
    assert len(server.requests) == 1


def test_disk_check_comes_before_the_first_byte(server, body, get, tmp_path, monkeypatch):
    from mlmodeldev.fetch import download

    monkeypatch.setattr(download, "free_bytes", lambda path: 1_000_000)
    server.add("a", body)
    with pytest.raises(FetchError, match=r"needs 3 MB .*1 MB are free"):
        get("a")
    assert server.requests == []
    assert list((tmp_path / "data").iterdir()) == []


def test_full_disk_is_final_and_clean(server, body, tmp_path):
    """A limit on the size of a file gives the same kind of error as a full disk, without root."""
    server.add("a", body)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        source = Source(urls=[server.url("a"), server.url("a")])
        with pytest.raises(FetchError, match="no space left"):
            fetch(source, tmp_path / "data", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(server.requests) == 1
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mount needs root")
def test_full_tmpfs(server, body, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        server.add("a", body, then=Answer(length=False))
        with pytest.raises(FetchError, match="No space left on device"):
            fetch(Source(urls=[server.url("a")]), folder, progress=False)
        assert list(folder.iterdir()) == []
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"urls": []}, "at least one"),
        ({"urls": ["htp://x/a"]}, "did you mean 'http'"),
        ({"urls": ["/a/b"]}, "http://, https:// or file://"),
        ({"urls": ["http://x/"]}, "name=''"),
        ({"urls": ["http://x/a"], "name": "../a"}, "plain file name"),
        ({"urls": ["http://x/..%2Fa"]}, "plain file name"),
        ({"urls": ["http://x/a"], "name": ".fetch"}, "leading dot"),
        ({"urls": ["http://x/a"], "bytes": -1}, "bytes=-1"),
        ({"urls": ["http://x/a"], "bytes": 1.5}, "bytes=1.5"),
        ({"urls": ["http://x/a"], "sha256": "abc"}, "64 hexadecimal digits"),
        ({"urls": ["http://x/a"], "md5": "g" * 32}, "32 hexadecimal digits"),
    ],
)
def test_a_wrong_source_is_reported_at_once(wrong, words):
    with pytest.raises(UsageError) as caught:
        Source(**wrong)
    assert words in str(caught.value)


@pytest.mark.parametrize("wrong", [{"parts": 0}, {"retries": -1}, {"timeout": 0}, {"backoff": -1}])
def test_a_wrong_argument_is_reported(get, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        get("a", **wrong)


def test_one_string_is_one_address():
    assert Source(urls="http://x/a%20b.zip?k=1").name == "a b.zip"


def test_progress_function_and_lines(server, body, get, caplog, monkeypatch):
    from mlmodeldev.fetch import progress

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    caplog.set_level("INFO")
    server.add("a", body)
    seen = []
    get("a", progress=lambda have, total: seen.append((have, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(body), len(body))
    get("a", fields={"name": "g.bin"}, progress=None)
    assert "3 MB of 3 MB (100%)" in caplog.text


def test_sizes_are_decimal():
    assert [files.human(n) for n in (0, 999, 1000, 999_950, 13_510_573_713)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1 MB",
        "13.5 GB",
    ]


def test_parallel_needs_a_digest(server, body, get, monkeypatch):
    monkeypatch.setattr(attempts, "PARALLEL_BYTES", 1)
    monkeypatch.setattr(attempts, "_FAST_ENOUGH", 1e12)
    monkeypatch.setattr(attempts, "_WORTH_SECONDS", 0)
    server.add("a", body, then=Answer(rate=3e6))
    get("a", fields={"sha256": None})
    assert server.ranges() == [None]
