"""How fast ``fetch`` is beside curl and bare pySmartDL, in one run on one machine.

Example::

    python -m benchmarks fetch                       # two minutes; writes docs/benchmarks.md
    python -c "from benchmarks.fetch import run; print(run(mib=64, repeats=1).text())"

The server is a process of its own on 127.0.0.1 and sends with sendfile. Every way is run in turn,
some times, and the best of each is compared: only the ratios mean something elsewhere.
``fetch`` checks size and SHA-256 and syncs to disk; curl and pySmartDL do neither here. The HTTP
client is imported before the clock starts, as it is in a training process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.table import Goal, Table

MIB = 1 << 20
SERVER = r"""
import http.server, os, re, sys, time
path, rate = sys.argv[1], float(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first = int(asked[1]) if asked else 0
            last = int(asked[2]) if asked and asked[2] else size - 1
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            at, start = first, time.monotonic()
            while at <= last:
                piece = min(last + 1 - at, int(rate / 50) if rate else 1 << 24)
                at += os.sendfile(self.connection.fileno(), file.fileno(), at, piece)
                if rate:
                    time.sleep(max(0, start + (at - first) / rate - time.monotonic()))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.handle_error = lambda *_: None
server.serve_forever()
"""
PROCESS = """
import sys
import requests
from mlmodeldev.data import Source, fetch
url, size, digest = sys.argv[1:]
print("ready", flush=True)
folder = sys.stdin.readline().strip()
fetch(Source(urls=[url], bytes=int(size), sha256=digest, name="f"), folder, progress=False)
print("done", flush=True)
"""


@contextmanager
def serve(path: Path, rate: float = 0) -> Iterator[str]:
    """Serve one file, at most ``rate`` bytes a second for each connection (0: no limit)."""
    command = [sys.executable, "-c", SERVER, str(path), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}/f"
        finally:
            server.kill()


class Case:
    """One file to get, and the ways to get it; each way starts with an empty folder."""

    def __init__(self, url: str, path: Path, digest: str, work: Path) -> None:
        self.url, self.digest, self.work = url, digest, work
        self.size = path.stat().st_size

    def ours(self, folder: Path) -> None:
        from mlmodeldev.data import Source, fetch

        source = Source(urls=[self.url], bytes=self.size, sha256=self.digest, name="f")
        fetch(source, folder, progress=False)

    def curl(self, folder: Path) -> None:
        subprocess.run(["curl", "-sSf", "-o", folder / "f", self.url], check=True)

    def smartdl(self, folder: Path) -> None:
        from pySmartDL import SmartDL

        SmartDL(self.url, str(folder / "f"), progress_bar=False, threads=4).start()

    def ways(self) -> dict[str, Callable[[Path], None]]:
        """Return each way by its name."""
        return {"ours": self.ours, "curl": self.curl, "pySmartDL": self.smartdl}

    def crowd(self, count: int) -> float:
        """Return the seconds until the file is there for the last of ``count`` processes.

        The interpreters are started before: on a cluster each task has a node's cores for that.
        """
        folder = tempfile.mkdtemp(dir=self.work)
        command = [sys.executable, "-c", PROCESS, self.url, str(self.size), self.digest]
        running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        os.sync()
        start = time.perf_counter()
        for process in running:
            assert process.stdin is not None
            process.stdin.write(f"{folder}\n")
            process.stdin.close()
        assert all(process.stdout.readline() == "done\n" for process in running if process.stdout)
        seconds = time.perf_counter() - start
        assert all(process.wait() == 0 for process in running)
        shutil.rmtree(folder)
        return seconds

    def best(self, ways: Mapping[str, Callable[[Path], None]], repeats: int) -> dict[str, float]:
        """Return the shortest time in seconds of each way, run in turn."""
        seconds = dict.fromkeys(ways, float("inf"))
        for _ in range(repeats):
            for name, way in ways.items():
                folder = Path(tempfile.mkdtemp(dir=self.work))
                os.sync()  # what the one before left to write is not this one's work
                start = time.perf_counter()
                way(folder)
                seconds[name] = min(seconds[name], time.perf_counter() - start)
                shutil.rmtree(folder)
        return seconds


def second_start(case: Case) -> float:
    """Return the seconds of a call that finds the verified file."""
    folder = Path(tempfile.mkdtemp(dir=case.work))
    case.ours(folder)
    start = time.perf_counter()
    case.ours(folder)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    return seconds


def run(mib: int = 1024, repeats: int = 3) -> Table:
    """Measure all; see the module's docstring."""
    import requests  # noqa: F401

    table = Table(
        "Fetch",
        ["what", "way", "s", "time of ours as a ratio to it"],
        note=f"From a server on 127.0.0.1, the best of {repeats}. Ours includes SHA-256 and fsync;"
        " the others do neither. Load of the machine before, by other jobs:"
        f" {os.getloadavg()[0]:.1f}.",
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _whole_line(table, work, mib, repeats)
        _limited_line(table, work, min(mib, 128))
    return table


def _whole_line(table: Table, work: Path, mib: int, repeats: int) -> None:
    big, digest = make_file(work / "big", mib)
    with serve(big) as url:
        case = Case(url, big, digest, work)
        cold = case.best(case.ways(), repeats)
        _compare(table, f"cold, {mib} MiB", cold)
        table.goals.append(Goal("cold fetch beside curl", cold["ours"] / cold["curl"], 1.25))
        again = second_start(case)
        table.add(f"second start, {mib} MiB verified", "ours", f"{again:.4f}", "")
        table.goals.append(Goal("second start", again * 1000, 50, " ms"))
        alone = min(case.crowd(1) for _ in range(repeats))
        crowd = min(case.crowd(32) for _ in range(repeats))
        table.add(f"one process, {mib} MiB", "ours", f"{alone:.2f}", "")
        table.add("32 processes at once", "ours", f"{crowd:.2f}", "")
        table.goals.append(Goal("32 processes beside one", crowd / alone, 1.3))


def _limited_line(table: Table, work: Path, mib: int) -> None:
    slow, digest = make_file(work / "slow", mib)
    with serve(slow, rate=8 * MIB) as url:
        case = Case(url, slow, digest, work)
        limited = case.best(case.ways(), 1)
    _compare(table, f"{mib} MiB, 8 MiB/s a connection", limited)
    ratio = limited["ours"] / limited["curl"]
    table.goals.append(Goal("limited line beside curl", ratio, round(1 / 3, 3)))


def _compare(table: Table, what: str, seconds: dict[str, float]) -> None:
    for name, value in seconds.items():
        ratio = "" if name == "ours" else f"{seconds['ours'] / value:.2f}"
        table.add(what, name, f"{value:.2f}", ratio)


def make_file(path: Path, mib: int) -> tuple[Path, str]:
    """Write random bytes; return the path and their SHA-256."""
    value = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            chunk = os.urandom(MIB)
            value.update(chunk)
            file.write(chunk)
    return path, value.hexdigest()


if __name__ == "__main__":
    print(run().text())
