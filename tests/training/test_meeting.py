"""Processes that wait for each other: who is missing is told, waits end, and signals end them."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlmodeldev.errors import TrialInterrupted, UsageError
from mlmodeldev.training import meeting, srun
from mlmodeldev.training.launched import Launched, forget_left_over, is_launched
from mlmodeldev.training.meeting import Wait, connect, meet, serve, try_to_connect, wait_for_key
from mlmodeldev.training.places import choose_gpu, local_place
from mlmodeldev.training.srun import SrunRank, open_store, srun_rank
from mlmodeldev.trial import signals


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Waits as short as a test's; no signal is left behind."""
    monkeypatch.setattr(meeting, "SECONDS", 1.0)
    monkeypatch.setattr(meeting, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(meeting, "_CONNECT_SECONDS", 2.0)
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signals.forget()


# --- meeting


def test_all_that_come_know_of_each_other() -> None:
    store = serve("127.0.0.1", 0)
    stores = [store, *(connect("127.0.0.1", store.port, Wait("it")) for _ in range(2))]
    with ThreadPoolExecutor(3) as pool:
        notes = list(pool.map(lambda r: meet(stores[r], r, 3, {"host": f"n{r}"}), range(3)))
    assert notes == [[{"host": "n0"}, {"host": "n1"}, {"host": "n2"}]] * 3


def listening() -> dict[str, str]:
    """Return the addresses on which this process listens, as the kernel writes them, by socket."""
    links = (Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    own = {str(link.readlink()) for link in links if link.is_symlink()}
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
    ]
    return {
        row[9]: row[1].partition(":")[0]
        for row in rows
        if f"socket:[{row[9]}]" in own and row[3] == "0A"
    }


def listening_since(before: dict[str, str]) -> list[str]:
    """Return the addresses of the sockets that were opened since."""
    return [address for number, address in listening().items() if number not in before]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_of_one_machines_processes_the_store_listens_on_that_machine_alone(host: str) -> None:
    before = listening()
    store = serve(host, 0)
    assert listening_since(before) == ["0100007F"]
    with pytest.raises(UsageError, match=r"the first process can't open it .*in use"):
        serve(host, store.port)


def test_of_several_nodes_it_listens_on_all_interfaces(tmp_path: Path) -> None:
    for place, host, listens in (
        (SrunRank(0, 2, 0, 2), "127.0.0.1", "0100007F"),
        (SrunRank(0, 4, 0, 2), socket.gethostname(), "0" * 32),
    ):
        before = listening()
        store = open_store(place, tmp_path)
        (file,) = (tmp_path / ".meeting").glob("*.json")
        address = json.loads(file.read_text())
        assert (address["host"], address["port"]) == (host, store.port)
        assert listening_since(before) == [listens]


def test_who_is_missing_is_named_and_the_wait_ends(capsys: pytest.CaptureFixture[str]) -> None:
    store = serve("127.0.0.1", 0)
    store.set("mlmodeldev/meeting/2", "{}")
    with pytest.raises(UsageError, match=r"in vain for 2 of 4 processes \(rank 1, 3\); where no"):
        meet(store, 0, 4, {})
    assert "waiting for 2 of 4 processes (rank 1, 3), until " in capsys.readouterr().err


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_ends_a_wait(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup, as it is meant to be
    monkeypatch.setattr(meeting, "SECONDS", 60.0)
    store = serve("127.0.0.1", 0)
    waits: list[Callable[[], object]] = [
        lambda: meet(store, 0, 2, {}),
        lambda: connect("127.0.0.1", _free_port(), Wait("somebody")),
        lambda: wait_for_key(store, "never", Wait("a decision", 60, grace=0.1)),
    ]
    for wait in waits:
        signals.forget()
        signals.listen()
        timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
        timer.start()
        begun = time.monotonic()
        with pytest.raises(TrialInterrupted, match="while waiting for"):
            wait()
        assert time.monotonic() - begun < 10
        timer.join()


def test_after_a_signal_the_first_process_may_still_decide() -> None:
    store = serve("127.0.0.1", 0)
    signals.listen()
    os.kill(os.getpid(), signal.SIGUSR1)
    threading.Timer(0.3, store.set, ("decided", "yes")).start()
    wait_for_key(store, "decided", Wait("a decision", 60, grace=30))


def test_a_service_that_is_no_store_is_left_after_seconds() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert try_to_connect("127.0.0.1", other.getsockname()[1]) is None
    assert try_to_connect("no-such-host.invalid", 1) is None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- srun's step


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "5", "STEP_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in ("SLURM_RESTART_COUNT", "SLURMD_NODENAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "")
    monkeypatch.setenv("MASTER_PORT", "")
    monkeypatch.setattr(srun, "host_name", lambda: "127.0.0.1")


@pytest.mark.parametrize("left", ["nobody", "no store", "another's store", "no JSON"])
def test_an_address_that_a_killed_step_left_is_not_trusted(
    step: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(meeting, "SECONDS", 30.0)
    another, deaf = serve("127.0.0.1", 0), socket.socket()
    another.set("mlmodeldev/token", "another")
    deaf.bind(("127.0.0.1", 0))
    deaf.listen()
    ports = {
        "nobody": _free_port(),
        "no store": deaf.getsockname()[1],
        "another's store": another.port,
    }
    file = tmp_path / ".meeting" / "5-0-0.json"
    file.parent.mkdir()
    old = {"host": "127.0.0.1", "port": ports.get(left), "token": "old"}
    file.write_text("{" if left == "no JSON" else json.dumps(old))
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(open_store, SrunRank(1, 2, 1, 2), tmp_path)
        threading.Event().wait(0.5)
        first = open_store(SrunRank(0, 2, 0, 2), tmp_path)
        first.set("mine", "yes")
        assert second.result(30).get("mine") == b"yes"
    deaf.close()


def test_a_step_without_a_first_task_is_reported(step: None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"5-0-0.json; is the runs folder on a file system that"):
        open_store(SrunRank(1, 2, 1, 2), tmp_path)


def test_the_shell_of_an_interactive_step_trains_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    shell = {**step, "SLURM_PTY_PORT": "40001"}
    monkeypatch.setattr(os, "getpgrp", lambda: 7)
    monkeypatch.setattr(os, "getsid", lambda _: 3)
    assert srun_rank(shell) is None
    assert "training alone, not as one of 4 tasks" in capsys.readouterr().err
    monkeypatch.setattr(os, "getsid", lambda _: 7)  # srun --pty python trainer.py: all four do
    assert srun_rank(shell) == SrunRank(0, 4, 0, 4)
    assert srun_rank(step) == SrunRank(0, 4, 0, 4)


# --- a launcher's numbers


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not; to train alone: unset RANK"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "n1"}, "MASTER_PORT is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2: must be below WORLD_SIZE=2"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x: must be a number"),
    ],
)
def test_half_a_launchers_variables_are_reported(variables: dict[str, str], message: str) -> None:
    assert is_launched(variables)
    with pytest.raises(UsageError, match=message):
        Launched.of(variables)


@pytest.mark.parametrize("variables", [{"RANK": "3"}, {"RANK": "", "WORLD_SIZE": ""}, {}])
def test_what_is_left_of_them_is_dropped(variables: dict[str, str]) -> None:
    assert not is_launched(variables)
    variables["LOCAL_RANK"] = "2"
    forget_left_over(variables)
    assert variables == {}


def test_a_port_in_use_is_reported() -> None:
    store = serve("127.0.0.1", 0)
    with pytest.raises(UsageError, match=f"MASTER_PORT={store.port}: .*in use"):
        Launched(0, 2, 0, 2, "127.0.0.1", store.port).open_store()


# --- places and GPUs

NODE_1, NODE_2 = {"host": "n1", "gpus": ["a", "b"]}, {"host": "n2", "gpus": ["c", "d"]}


def test_hand_written_ranks_find_their_places_by_host() -> None:
    """RANK and WORLD_SIZE alone, on two nodes."""
    notes = [NODE_1, NODE_2, NODE_1, NODE_2]
    assert [local_place(notes, rank) for rank in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    with pytest.raises(UsageError, match=r"each machine must have as many \(2 on n1, 1 on n2\)"):
        local_place([NODE_1, NODE_1, NODE_2], 0)


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        ([["a", "b"], ["a", "b"]], [(0, False), (1, False)]),  # torchrun, --gpus-per-node
        ([["a"], ["b"]], [(0, True), (0, True)]),  # --gpus-per-task=1
        ([["a", "b"], ["c", "d"]], [(0, True), (0, True)]),  # --gpus-per-task=2
        ([["a"]], [(0, False)]),
    ],
)
def test_each_process_takes_a_gpu_of_its_own(
    seen: list[list[str]], chosen: list[tuple[int, bool]]
) -> None:
    notes = [{"host": "n1", "gpus": gpus} for gpus in seen]
    assert [choose_gpu(notes, rank, rank) for rank in range(len(notes))] == chosen


@pytest.mark.parametrize("gpus", [["a"], []])
def test_two_processes_on_one_gpu_are_refused(gpus: list[str]) -> None:
    notes = [{"host": "n1", "gpus": gpus}] * 2
    with pytest.raises(UsageError, match=f"2 processes on n1 share {len(gpus)} GPU"):
        choose_gpu(notes, 1, 1)
