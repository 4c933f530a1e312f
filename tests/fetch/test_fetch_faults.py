"""Every fault of a server ends in the right bytes or one clear error, nothing left behind."""

import hashlib
import logging
import os

import pytest

from mlmodeldev.data import FetchError, Source, fetch
from mlmodeldev.fetch import attempts, partial
from tests.fetch.fault_server import Answer

WHOLE = [".fetch", ".fetch/f.bin.json", "f.bin"]
MB = 1_000_000


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


RECOVERED = {
    "plain": ([], Answer(), [None]),
    "no length": ([], Answer(length=False), [None]),
    "no range": ([Answer(cut_after=MB)], Answer(ranges=False), [None, "bytes=1000000-"]),
    "chunked": ([], Answer(chunked=True), [None]),
    "cut once": ([Answer(cut_after=MB)], Answer(), [None, "bytes=1000000-"]),
    "chunked, cut": ([Answer(cut_after=MB, chunked=True)], Answer(), [None, "bytes=1000000-"]),
    "no length, cut": ([Answer(cut_after=MB, length=False)], Answer(), [None, "bytes=1000000-"]),
    "503 thrice": ([Answer(status=503)] * 3, Answer(), [None] * 4),
    "408, 425, 500": ([Answer(status=code) for code in (408, 425, 500)], Answer(), [None] * 4),
    "changed midway": (
        [Answer(cut_after=MB, etag='"old"', body=bytes(3_000_001))],
        Answer(),
        [None, "bytes=1000000-"],
    ),
    "wrong range": (
        [Answer(cut_after=MB), Answer(wrong_range=True)],
        Answer(),
        [None, "bytes=1000000-", "bytes=1000000-"],
    ),
    "gzip coding": ([], Answer(gzip_coded=True), [None]),
    "empty answer": ([Answer(cut_after=0)] * 2, Answer(), [None] * 3),
}


@pytest.mark.parametrize("case", RECOVERED)
def test_recovers(server, body, get, tmp_path, case):
    first, then, ranges = RECOVERED[case]
    server.add("a", body, first, then)
    path = get("a")
    assert path == tmp_path / "data" / "f.bin"
    assert path.read_bytes() == body
    assert listing(path.parent) == WHOLE
    assert server.ranges() == ranges


@pytest.mark.parametrize("times", [1, 3, 20])
def test_resets_are_resumed_without_asking_twice_for_a_byte(server, body, get, times, monkeypatch):
    monkeypatch.setattr(attempts, "_progress_worth", lambda source: 1000)
    server.add("a", body, [Answer(reset_after=120_000)] * times)
    assert get("a", retries=4).read_bytes() == body
    starts = [int(value[6:-1]) for value in server.ranges()[1:]]
    assert len(starts) == times
    assert starts == sorted(starts)
    assert all(0 < start <= 120_000 * (at + 1) for at, start in enumerate(starts))


FAILED = {
    "404 everywhere": (Answer(status=404), "HTTP 404", 1),
    "401": (Answer(status=401), "Source.headers", 1),
    "wrong digest": (Answer(body=bytes(3_000_001)), "sha256", 1),
    "another size": (Answer(body=b"short"), "5 bytes there instead of 3000001", 1),
    "too long, no length": (Answer(body=bytes(3_100_000), length=False), "more than 3000001", 1),
    "always cut at once": (Answer(cut_after=100), "ended early", 3),
    "always 503": (Answer(status=503), "HTTP 503", 3),
    "never ready": (Answer(status=429, headers={"Retry-After": "86400"}), "HTTP 429", 1),
}


@pytest.mark.parametrize("case", FAILED)
def test_gives_up_with_one_line(server, body, get, tmp_path, case):
    answer, words, requests = FAILED[case]
    server.add("a", body, then=answer)
    with pytest.raises(FetchError) as caught:
        get("a", retries=2)
    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    assert "f.bin" in text
    assert len(server.requests) == requests
    assert listing(tmp_path / "data") == []


MIRROR = {
    "404": Answer(status=404),
    "503": Answer(status=503),
    "reset": Answer(reset_after=1000),
    "cut": Answer(cut_after=MB),
    "wrong digest": Answer(body=bytes(3_000_001)),
    "another size": Answer(body=b"short"),
    "stall": Answer(stall_after=1000),
    "slow 429": Answer(status=429, headers={"Retry-After": "86400"}),
    "denied": Answer(status=403),
}


@pytest.mark.parametrize("case", MIRROR)
def test_every_failure_moves_on_to_the_mirror(server, body, get, tmp_path, case):
    server.add("bad", body, then=MIRROR[case], etag='"bad"')
    server.add("good", body, etag='"good"')
    path = get("bad", "good", timeout=0.3)
    assert path.read_bytes() == body
    assert [request.path for request in server.requests] == ["/bad", "/good"]
    assert listing(path.parent) == WHOLE


def test_a_mirror_that_is_down_or_unknown_is_passed_over(server, body, tmp_path):
    server.add("good", body)
    urls = ["http://127.0.0.1:9/x", "http://no-such-host.invalid/x", server.url("good")]
    source = Source(urls=urls, sha256=hashlib.sha256(body).hexdigest())
    assert fetch(source, tmp_path, progress=False).read_bytes() == body


def test_a_mirror_takes_over_in_the_middle(server, body, get):
    server.add("bad", body, then=Answer(cut_after=MB), etag='"x"')
    server.add("good", body, etag='"y"')
    get("bad", "good")
    assert server.ranges("good") == ["bytes=1000000-"]
    assert "If-Range" not in server.requests[-1].headers  # the version tag is the other host's


def test_mixed_bytes_are_detected_and_fetched_anew(server, body, get):
    server.add("bad", bytes(3_000_001), [Answer(cut_after=MB)], Answer(status=404))
    server.add("good", body)
    assert get("bad", "good").read_bytes() == body
    assert server.ranges("good") == ["bytes=1000000-", None]


def test_waits_as_long_as_the_server_asks(server, body, get, monkeypatch):
    waits = []
    monkeypatch.setattr(attempts.time, "sleep", waits.append)
    answer = Answer(status=429, headers={"Retry-After": "7"})
    server.add("a", body, [answer])
    monkeypatch.setattr(attempts, "_usable", lambda addresses: addresses)
    get("a")
    assert len(waits) == 1
    assert 6 < waits[0] <= 7


def test_pauses_double_and_stay_below_half_a_minute(server, body, get, monkeypatch):
    waits = []
    monkeypatch.setattr(attempts.time, "sleep", waits.append)
    server.add("a", body, then=Answer(status=503))
    with pytest.raises(FetchError):
        get("a", backoff=4, retries=6)
    tops = [4, 8, 16, 30, 30, 30]
    assert all(top / 2 <= wait <= top for wait, top in zip(waits, tops, strict=True))


def test_stall_without_mirror_is_resumed(server, body, get):
    server.add("a", body, [Answer(stall_after=MB)])
    assert get("a", timeout=0.3).read_bytes() == body
    assert server.ranges() == [None, "bytes=1000000-"]


def test_a_trickle_counts_as_a_stall(server, body, get, monkeypatch):
    monkeypatch.setattr(attempts, "_SLOWEST", 1e6)
    server.add("a", body, [Answer(rate=100_000)])
    assert get("a", timeout=0.3).read_bytes() == body
    assert len(server.requests) == 2


def test_without_digest_another_version_starts_again(server, body, tmp_path, get):
    """If-Range (RFC 9110, 13.1.5): the old bytes must not be joined with the new ones."""
    server.add("a", body, [Answer(cut_after=MB, etag='"old"', body=bytes(3_000_001))])
    path = get("a", fields={"bytes": None, "sha256": None})
    assert path.read_bytes() == body
    assert server.requests[1].headers["If-Range"] == '"old"'


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_digest_and_strong_validator_nothing_is_joined(server, body, get, etag):
    server.add("a", body, [Answer(cut_after=MB)], etag=etag)
    assert get("a", fields={"bytes": None, "sha256": None}).read_bytes() == body
    assert server.ranges() == [None, None]


def test_without_digest_a_short_body_is_an_error(server, body, get, tmp_path):
    server.add("a", body, then=Answer(cut_after=len(body) - 1, ranges=False))
    with pytest.raises(FetchError, match="ended early"):
        get("a", fields={"bytes": None, "sha256": None}, retries=1)
    assert listing(tmp_path / "data") == []


def test_416_with_every_byte_there_is_verified(server, body, get, tmp_path, monkeypatch):
    """The end was reached, but the connection broke before we knew: nothing is left to ask for."""
    monkeypatch.setattr(partial, "KEEP_BYTES", 0)
    server.add("a", body, [Answer(cut_after=len(body), body=body + b"x", etag='"v1"')])
    with pytest.raises(FetchError):
        get("a", fields={"bytes": None, "sha256": None}, retries=0)
    assert get("a", fields={"bytes": None, "sha256": None}).read_bytes() == body
    assert server.ranges() == [None, "bytes=3000001-"]


def test_416_because_the_file_shrank_starts_again(server, body, get):
    longer = body + bytes(1000)
    server.add("a", body, [Answer(cut_after=len(longer) - 1, body=longer)])
    fields = {"bytes": None, "sha256": hashlib.sha256(body).hexdigest()}
    assert get("a", fields=fields).read_bytes() == body
    assert server.ranges() == [None, "bytes=3001000-", None]


def test_gzip_label_on_a_gz_file_keeps_the_file(server, get):
    import gzip

    packed = gzip.compress(b"data" * 1000)
    server.add("a", packed, then=Answer(headers={"Content-Encoding": "gzip"}))
    fields = {"name": "a.csv.gz", "bytes": None, "sha256": None}
    assert get("a", fields=fields).read_bytes() == packed


def test_gzip_coding_without_digest_is_undone(server, body, get):
    server.add("a", body, then=Answer(gzip_coded=True))
    assert get("a", fields={"bytes": None, "sha256": None}).read_bytes() == body


def test_redirect_is_followed_and_keeps_secrets_at_home(server, body, get, monkeypatch):
    monkeypatch.setenv("DATA_TOKEN", "hush")
    server.add("there", body)
    server.add(
        "a", b"", then=Answer(status=302, headers={"Location": server.url("there", "localhost")})
    )
    headers = {"Authorization": "Bearer ${DATA_TOKEN}", "X-Key": "${DATA_TOKEN}"}
    assert get("a", fields={"headers": headers}).read_bytes() == body
    first, second = server.requests
    assert (first.headers["Authorization"], first.headers["X-Key"]) == ("Bearer hush", "hush")
    assert "hush" not in str(second.headers)


def test_redirect_loop_is_one_error(server, body, get):
    server.add("a", b"", then=Answer(status=302, headers={"Location": "/a"}))
    with pytest.raises(FetchError, match="TooManyRedirects"):
        get("a")


def test_authorization(server, body, get, monkeypatch):
    monkeypatch.setenv("DATA_TOKEN", "hush")
    server.add("a", body, then=Answer(needs=("Authorization", "Bearer hush")))
    fields = {"headers": {"Authorization": "Bearer ${DATA_TOKEN}"}}
    assert get("a", fields=fields).read_bytes() == body


def test_secrets_are_in_no_log_and_no_error(server, body, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    server.add("a", body, then=Answer(status=503))
    url = server.url("a?token=hush", "user:hush@127.0.0.1")
    source = Source(urls=[url], name="f.bin", headers={"X-Key": "hush"})
    with pytest.raises(FetchError) as caught:
        fetch(source, tmp_path / "data", retries=1, backoff=0, progress=False)
    assert "hush" not in str(caught.value) + repr(source) + caplog.text
    assert "/a?…" in str(caught.value)


def test_proxy_of_the_environment_is_used(server, body, tmp_path, monkeypatch):
    server.add("a", body)
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.setenv("no_proxy", "")
    source = Source(urls=["http://far.invalid/a"], sha256=hashlib.sha256(body).hexdigest())
    assert fetch(source, tmp_path, progress=False).read_bytes() == body


def test_deadline(server, body, get, tmp_path):
    server.add("a", body, then=Answer(rate=100_000))
    with pytest.raises(FetchError, match="deadline"):
        get("a", deadline=0.3)
    assert listing(tmp_path / "data") == []


def test_enough_bytes_are_kept_for_the_next_start(server, body, get, tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "KEEP_BYTES", MB)
    server.add("a", body, [Answer(cut_after=2 * MB)])
    with pytest.raises(FetchError, match=r"2 MB are kept: run it again"):
        get("a", retries=0)
    assert not (tmp_path / "data" / "f.bin").exists()
    assert get("a").read_bytes() == body
    assert server.ranges() == [None, "bytes=2000000-"]
    assert listing(tmp_path / "data") == WHOLE


def test_empty_file(server, get):
    server.add("a", b"")
    empty = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    assert get("a", fields=empty).read_bytes() == b""


def test_local_address(body, tmp_path):
    origin = tmp_path / "shared name.bin"
    origin.write_bytes(body)
    source = Source(urls=[origin.as_uri()], bytes=len(body))
    path = fetch(source, tmp_path / "data", progress=False)
    assert path.name == "shared name.bin"
    assert path.read_bytes() == body
    missing = Source(urls=[(tmp_path / "gone").as_uri()])
    with pytest.raises(FetchError, match="No such file"):
        fetch(missing, tmp_path / "data", progress=False)


def test_unset_variable_names_the_header_not_its_value(server, body, get):
    os.environ.pop("NOT_SET", None)
    with pytest.raises(Exception, match="Authorization needs the environment variable NOT_SET"):
        get("a", fields={"headers": {"Authorization": "Bearer ${NOT_SET}"}})


def test_a_mirror_that_sends_too_few_wrong_bytes_does_not_spoil_the_good_one(server, body, get):
    """Joined with its bytes, those of the good one would be wrong round after round."""
    server.add("bad", body, then=Answer(body=b"another file", length=False))
    server.add("good", body)
    assert get("bad", "good").read_bytes() == body
    assert [request.path for request in server.requests] == ["/bad", "/good", "/good"]
    assert server.ranges("good") == ["bytes=12-", None]
