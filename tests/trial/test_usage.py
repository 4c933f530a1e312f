"""What a trial uses: CPU, memory and GPU against the kernel's own figures and known sizes."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlmodeldev.trial.gpu_use import GpuUse
from mlmodeldev.trial.idle_gpu import IdleGpu
from mlmodeldev.trial.process_use import GIB, Memory, ProcessUse
from mlmodeldev.trial.usage import UsageSampler, merged

MIB = 2**20
BURN = """
import resource, sys, time
block = bytearray(int(sys.argv[2]))
block[::4096] = b"x" * len(block[::4096])
while time.process_time() < float(sys.argv[1]):
    sum(range(10_000))
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, flush=True)
sys.stdin.read(1)
"""


def burning(seconds: float, size: int) -> tuple[subprocess.Popen[str], float]:
    """Start a process that has burnt CPU time and keeps memory; return it and what it says."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", BURN, str(seconds), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, float(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("x")


def test_cpu_time_of_children_counts_while_they_live_and_afterwards() -> None:
    processes, own = ProcessUse(), time.process_time()
    child, burnt = burning(0.3, MIB)
    alive = processes.cpu_seconds()
    here = time.process_time() - own
    assert alive == pytest.approx(burnt + here, abs=0.1)
    end(child)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    again, more = burning(0.3, MIB)
    end(again)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reaped = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert reaped == pytest.approx(more, abs=0.1)
    here = time.process_time() - own
    assert processes.cpu_seconds() == pytest.approx(burnt + more + here, abs=0.15)


def test_memory_of_a_child_is_what_it_takes_more() -> None:
    processes = ProcessUse()
    small, _ = burning(0.0, MIB)
    before = processes.memory().now_gib
    end(small)
    large, _ = burning(0.0, 101 * MIB)
    after = processes.memory().now_gib
    end(large)
    assert (after - before) * GIB == pytest.approx(100 * MIB, rel=0.1)


def test_pages_of_forked_workers_count_once() -> None:
    with mmap.mmap(-1, 100 * MIB) as block:  # shared, and filled before the forks
        block[:] = b"x" * len(block)
        processes = ProcessUse()
        before = processes.memory().now_gib
        children = [fork_and_read(block) for _ in range(3)]
        after = processes.memory().now_gib
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert (after - before) * GIB < 60 * MIB  # a sum of RSS would be 300 MiB more


def fork_and_read(block: mmap.mmap) -> int:
    """Fork a process that reads all pages and waits; return it when it has."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        assert block[::4096]
        os.write(writing, b"x")
        while True:
            signal.pause()
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    return pid


SPIKE = """
from mlmodeldev.trial.process_use import ProcessUse
processes = ProcessUse()
before = processes.memory()
block = bytearray(200 * 2**20)
block[::4096] = b"x" * len(block[::4096])
del block
after = processes.memory()
print(after.peak_gib - before.now_gib, after.now_gib - before.now_gib)
"""


def test_a_peak_between_two_samples_is_seen() -> None:
    done = subprocess.run([sys.executable, "-c", SPIKE], capture_output=True, text=True, check=True)
    peak, now = (float(word) * GIB / MIB for word in done.stdout.split())
    assert peak == pytest.approx(200, rel=0.1)
    assert now < 20


RANK = """
import sys, time
from mlmodeldev.trial.process_use import ProcessUse
processes = ProcessUse(int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
begun = time.process_time()
while time.process_time() < begun + float(sys.argv[1]):
    sum(range(10_000))
print("burnt", flush=True)
sys.stdin.readline()
print(processes.cpu_seconds(), flush=True)
"""
LAUNCHER = f"""
import subprocess, sys
words = [sys.executable, "-c", {RANK!r}]
pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
ranks = [subprocess.Popen([*words, burn, sys.argv[1]], **pipes) for burn in ("0.3", "0.9")]
def tell(rank):
    rank.stdin.write("go\\n"); rank.stdin.flush()
for step in range(2):
    for rank in ranks: rank.stdout.readline()
    for rank in ranks[: 2 - step]: tell(rank)
print(ranks[0].stdout.readline())
for rank in ranks: rank.kill()
"""


@pytest.mark.parametrize(("ranks", "expected"), [(2, 0.3 + 0.9), (3, 3 * 0.3)])
def test_ranks_that_a_launcher_has_started_count_together(ranks: int, expected: float) -> None:
    """Where it has other children too, the first rank stands for each."""
    words = [sys.executable, "-c", LAUNCHER, str(ranks)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) == pytest.approx(expected, abs=0.15)


# --- the sampler


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_attempts_add_up_and_of_peaks_the_higher_counts() -> None:
    first = {"seconds": 10.0, "cpu_seconds": 20.0, "memory_gib": 2.0, "samples": 2, "cores": 4}
    second = {"seconds": 5.0, "cpu_seconds": 5.0, "memory_gib": 1.0, "samples": 1, "cores": 8}
    gpu = {"gpu_use": 0.9, "gpu_samples": 3}, {"gpu_use": 0.1, "gpu_samples": 1}
    assert merged(first | gpu[0], second | gpu[1]) == {
        "seconds": 15.0,
        "cpu_seconds": 25.0,
        "memory_gib": 2.0,
        "samples": 3,
        "cores": 8,
        "gpu_use": 0.7,
        "gpu_samples": 4,
    }
    assert merged(first, second | gpu[1])["gpu_use"] == 0.1


def test_the_former_attempts_are_counted_once_however_often_it_is_written() -> None:
    clock = Clock()
    sampler = UsageSampler({"seconds": 100.0, "samples": 7}, clock=clock)
    clock.now = 50.0
    sampler.sample()
    assert [sampler.entry()["seconds"] for _ in range(3)] == [150.0] * 3
    assert sampler.entry(last=True)["samples"] == 9


def test_memory_is_looked_at_more_seldom_where_that_takes_long(monkeypatch) -> None:
    clock, looks = Clock(), []
    sampler = UsageSampler(clock=clock)

    def slow() -> Memory:
        begun = time.thread_time()
        while time.thread_time() < begun + 0.05:
            pass
        looks.append(clock.now)
        return Memory(1.0, 1.5)

    monkeypatch.setattr(sampler._processes, "memory", slow)
    for _ in range(12):  # two minutes; a look of 0.05 s is due after 50 s again
        clock.now += 10
        sampler.sample()
    assert looks[:2] == [10, 70]
    assert sampler.entry()["samples"] == 12
    assert sampler.entry(last=True)["memory_gib"] == 1.5
    assert looks[-1] == 120


def test_what_goes_wrong_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = UsageSampler()

    def broken() -> Any:
        raise OSError("no /proc")

    monkeypatch.setattr(sampler._processes, "cpu_seconds", broken)
    assert sampler.entry(last=True)["samples"] == 0


def test_the_thread_leaves_signals_to_the_trial() -> None:
    seen: list[set[int]] = []

    class Watched(UsageSampler):
        def sample(self) -> None:
            seen.append({int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())})
            self._end.set()

    sampler = Watched()
    sampler._wait = 0.0
    sampler.start()
    sampler._thread.join(10)
    assert {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2} <= seen[0]


# --- the GPU

NVML = """
from types import SimpleNamespace
USES, CALLS = [], []
class NVMLError(Exception): pass
def nvmlInit(): CALLS.append("init")
def nvmlShutdown(): CALLS.append("shutdown")
def nvmlDeviceGetHandleByUUID(uuid):
    if uuid != "GPU-1": raise NVMLError("not found")
    return uuid
def nvmlDeviceGetUtilizationRates(handle):
    return SimpleNamespace(gpu=USES.pop(0), memory=0)
"""


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "pynvml.py").write_text(NVML)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    import pynvml

    yield pynvml
    sys.modules.pop("pynvml", None)


def sampled(
    nvml: Any, uses: list[int], idle: IdleGpu | None, uuid: str | None = "GPU-1"
) -> UsageSampler:
    """Return a sampler that has seen these uses, percent, a minute apart."""
    clock = Clock()
    nvml.USES[:] = uses
    sampler = UsageSampler(clock=clock)
    sampler.watch(GpuUse(0, uuid), idle)
    for _ in uses:
        clock.now += 60
        sampler.sample()
    return sampler


def test_the_mean_use_of_the_gpu_is_recorded(nvml: Any) -> None:
    sampler = sampled(nvml, [90, 60, 30], None)
    entry = sampler.entry()
    assert (entry["gpu_use"], entry["gpu_samples"]) == (0.6, 3)
    sampler.stop()
    assert nvml.CALLS == ["init", "shutdown"]
    assert sampler.entry(last=True)["gpu_samples"] == 3


@pytest.mark.parametrize(
    ("waited", "workers", "mend"),
    [
        (0.72, 0, "72 % of the time; let more processes load them: processing.num_workers=2"),
        (0.72, 64, "ask for more cores: cluster.cpus_per_task"),
        (0.03, 0, "waited for data only 3 % of the time, so its steps are small"),
        (0.03, 0, "cluster.trials_per_gpu=2"),
        (None, 0, "callbacks.throughput measures that"),
    ],
)
def test_an_idle_gpu_is_named_once_with_its_cause(
    nvml: Any,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    waited: float | None,
    workers: int,
    mend: str,
) -> None:
    monkeypatch.setattr("mlmodeldev.trial.idle_gpu.cores", lambda: 4)
    sampled(nvml, [4] * 4, IdleGpu(lambda: waited, lambda: workers))
    assert capfd.readouterr().err == ""
    sampled(nvml, [4] * 20, IdleGpu(lambda: waited, lambda: workers))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: the GPU was 4 % busy in the first 5 minutes of training")
    assert mend in line


def test_a_gpu_that_was_busy_at_first_is_judged_no_more(nvml: Any, capfd) -> None:
    sampled(nvml, [50] * 5 + [0] * 50, IdleGpu(lambda: 0.9))
    assert capfd.readouterr().err == ""


def test_without_nvml_or_on_a_part_of_a_gpu_there_is_no_figure(nvml: Any, monkeypatch) -> None:
    assert "gpu_use" not in sampled(nvml, [50], None, uuid="MIG-1").entry()
    monkeypatch.setitem(sys.modules, "pynvml", None)  # its import fails
    assert "gpu_use" not in sampled(nvml, [50], None).entry()


class FakeCuda:
    """As torch.cuda: of most calls it may be asked only once CUDA has begun."""

    def __init__(self, has_begun: bool) -> None:
        self.has_begun = has_begun

    def is_initialized(self) -> bool:
        return self.has_begun

    def max_memory_reserved(self, index: int) -> int:
        assert self.has_begun
        return 3 * GIB + index

    def get_device_properties(self, index: int) -> SimpleNamespace:
        assert self.has_begun
        return SimpleNamespace(uuid="1", total_memory=80 * GIB)


@pytest.mark.parametrize("has_begun", [False, True])
def test_no_sample_begins_cuda(nvml: Any, monkeypatch, has_begun: bool) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=FakeCuda(has_begun)))
    entry = sampled(nvml, [50], None, uuid=None).entry()
    shown = {name: value for name, value in entry.items() if name.startswith("gpu")}
    seen = {"gpu_memory_gib": 3.0, "gpu_gib": 80.0, "gpu_use": 0.5, "gpu_samples": 1}
    assert shown == (seen if has_begun else {})
