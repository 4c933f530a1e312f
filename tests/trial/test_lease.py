"""One process at a time owns a trial: leases, takeover of the dead, fencing of the superseded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.trial import folder as module
from mlmodeldev.trial.folder import LEASE_SECONDS, LostLease, TrialFolder

ROOT = Path(__file__).resolve().parents[2]

OWNER = """
import sys
from pathlib import Path
from mlmodeldev.trial.folder import TrialFolder
TrialFolder(Path(sys.argv[1])).claim()
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "trial" / "checkpoints").mkdir(parents=True)
    return TrialFolder(tmp_path / "trial")


@pytest.fixture
def owner(folder):
    """Another process of this machine, which has claimed the trial."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.wait(30)


def owned_elsewhere(folder: TrialFolder, **changes: object) -> None:
    """Write the record of a trial that runs on another machine."""
    record = {
        "state": "running",
        "attempts": 4,
        "owner": {"host": "node17", "pid": 1, "started": 5},
        "lease": time.time() + 60,
        "slurm": {},
        **changes,
    }
    (folder.path / "trial.json").write_text(json.dumps(record))


def test_a_claim_says_who_owns_the_trial_and_until_when(folder):
    before = time.time()
    record = folder.claim()
    assert record == json.loads((folder.path / "trial.json").read_text())
    assert (record["state"], record["attempts"], record["id"]) == ("running", 1, "trial")
    assert (record["owner"]["host"], record["owner"]["pid"]) == (socket.gethostname(), os.getpid())
    assert before + LEASE_SECONDS <= record["lease"] <= time.time() + LEASE_SECONDS
    assert folder.attempt == 1


def test_a_live_owner_is_refused_by_name(folder, owner):
    with pytest.raises(UsageError) as error:
        folder.claim()
    assert f"host {socket.gethostname()}, process {owner.pid}" in str(error.value)
    assert folder.read()["owner"]["pid"] == owner.pid
    assert folder.attempt == 0


def test_a_live_owner_on_this_machine_is_believed_even_when_its_lease_has_run_out(folder, owner):
    folder.update(lease=0)  # a process that is suspended, or in one long step
    with pytest.raises(UsageError, match="running already"):
        folder.claim()


def test_a_dead_owner_of_this_machine_is_followed_at_once(folder, owner):
    owner.kill()
    owner.wait(30)
    record = folder.claim()
    assert record["lease"] > time.time()
    assert (record["attempts"], record["owner"]["pid"]) == (2, os.getpid())


def test_an_owner_that_is_dead_but_not_yet_reaped_is_dead(folder, owner):
    owner.kill()
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert Path(f"/proc/{owner.pid}").exists()
    assert folder.claim()["attempts"] == 2


def test_a_process_id_that_is_used_again_is_not_the_owner(folder, owner):
    record = folder.read()
    record["owner"]["started"] -= 1
    (folder.path / "trial.json").write_text(json.dumps(record))
    assert folder.claim()["attempts"] == 2


def test_another_machines_lease_is_respected_until_it_runs_out(folder):
    owned_elsewhere(folder)
    with pytest.raises(UsageError, match="host node17"):
        folder.claim()
    owned_elsewhere(folder, lease=time.time() - 0.1)
    assert folder.claim()["attempts"] == 5


def test_a_requeued_job_follows_itself_at_once(folder, monkeypatch):
    owned_elsewhere(folder, slurm={"job_id": "77"})
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    with pytest.raises(UsageError):
        folder.claim()
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert folder.claim()["slurm"] == {"job_id": "77", "restart_count": "1"}


def test_where_start_times_are_unknown_the_lease_decides(folder, monkeypatch):
    """No /proc, as on a Mac: a dead owner must not look alive for ever."""
    monkeypatch.setattr(module, "start_ticks", lambda pid: None)
    host = {"host": socket.gethostname(), "pid": 1, "started": None}
    owned_elsewhere(folder, owner=host)
    with pytest.raises(UsageError):
        folder.claim()
    owned_elsewhere(folder, owner=host, lease=0)
    assert folder.claim()["attempts"] == 5


@pytest.mark.parametrize("state", ["pending", "interrupted", "done", "failed", "pruned"])
def test_a_trial_that_does_not_run_may_be_claimed(folder, state):
    owned_elsewhere(folder, state=state)
    assert folder.claim()["state"] == "running"


def test_two_processes_never_own_a_trial_together(folder):
    """Both look at the same moment; the lock lets one look after the other has written."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    said = [racer.stdout.readline() for racer in racers]
    for racer in racers:
        racer.kill()
        racer.wait(30)
    assert sorted(said) == ["", "", "claimed\n"]
    assert folder.read()["attempts"] == 1


def test_the_superseded_may_write_nothing_any_more(folder):
    folder.claim()
    successor = TrialFolder(folder.path)
    folder.update(lease=0, owner={"host": "node17", "pid": 1, "started": 5})
    successor.claim()
    before = folder.read()
    for write in (folder.heartbeat, lambda: folder.finish("done"), lambda: folder.update(x=1)):
        with pytest.raises(LostLease, match="attempt 2 has taken over"):
            write()
    assert folder.read() == before
    successor.heartbeat()


def test_a_heartbeat_renews_the_lease_and_nothing_else(folder):
    folder.claim()
    first = folder.update(lease=0)
    folder.heartbeat()
    second = folder.read()
    assert second["lease"] > time.time() + LEASE_SECONDS - 60
    for record in (first, second):
        del record["lease"], record["updated"]
    assert second == first


def test_finishing_gives_the_trial_up_and_the_next_attempt_counts_on(folder):
    created = folder.claim()["created"]
    folder.finish("interrupted", "by SIGUSR1", step=7)
    record = folder.read()
    assert (record["state"], record["reason"], record["step"]) == ("interrupted", "by SIGUSR1", 7)
    assert (record["owner"], record["lease"]) == (None, None)
    again = TrialFolder(folder.path).claim()
    assert (again["attempts"], again["created"], again["reason"]) == (2, created, None)
    assert again["step"] == 7


def test_a_claim_clears_what_killed_writers_left(folder):
    for place in (folder.path, folder.path / "checkpoints"):
        (place / ".x.host-1.tmp").write_text("")
    folder.claim()
    assert [*folder.path.rglob("*.tmp")] == []


def test_a_trial_that_runs_is_not_moved_aside(folder, owner):
    from mlmodeldev.settings.composition import compose_settings

    place = folder.path.parent
    (place / "single").mkdir()
    folder.path.rename(place / "single" / "trial")
    settings = compose_settings(
        [f"artefacts.runs_dir={place}", "artefacts.trial=trial", "artefacts.fresh=true"]
    )
    with pytest.raises(UsageError, match="running already"):
        TrialFolder.open(settings)
    assert TrialFolder(place / "single" / "trial").read()["owner"]["pid"] == owner.pid
