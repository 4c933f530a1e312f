"""One process at a time owns a trial: leases, takeover of the dead, fencing of the superseded."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlmodeldev import lease
from mlmodeldev.errors import TrialInterrupted, UsageError
from mlmodeldev.lease import LEASE_SECONDS, LostLease
from mlmodeldev.trial import signals
from mlmodeldev.trial.folder import TrialFolder

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


def own_from_another_machine(folder: TrialFolder, **changes: object) -> None:
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


def test_another_machines_lease_is_respected_until_it_runs_out(folder, monkeypatch):
    own_from_another_machine(folder)
    with pytest.raises(UsageError, match="host node17"):
        folder.claim()
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)  # of silence, watched
    own_from_another_machine(folder, lease=time.time() - 0.1)
    assert folder.claim()["attempts"] == 5


def test_a_requeued_job_follows_itself_at_once(folder, monkeypatch):
    own_from_another_machine(folder, slurm={"job_id": "77"})
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    with pytest.raises(UsageError):
        folder.claim()
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert folder.claim()["slurm"] == {"job_id": "77", "restart_count": "1"}


def test_where_start_times_are_unknown_the_lease_decides(folder, monkeypatch):
    """No /proc, as on a Mac: a dead owner must not look alive for ever."""
    monkeypatch.setattr(lease, "start_ticks", lambda pid: None)
    host = {"host": socket.gethostname(), "pid": 1, "started": None}
    own_from_another_machine(folder, owner=host)
    with pytest.raises(UsageError):
        folder.claim()
    own_from_another_machine(folder, owner=host, lease=0)
    assert folder.claim()["attempts"] == 5


@pytest.mark.parametrize("state", ["pending", "interrupted", "done", "failed", "pruned"])
def test_a_trial_that_does_not_run_may_be_claimed(folder, state):
    own_from_another_machine(folder, state=state)
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
    lines = [racer.stdout.readline() for racer in racers]
    for racer in racers:
        racer.kill()
        racer.wait(30)
    assert sorted(lines) == ["", "", "claimed\n"]
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


# --- owners that can't be looked at: their silence is timed, clocks are not compared

BEATING = """
import os, sys, time
from pathlib import Path
from mlmodeldev import lease
from mlmodeldev.trial.folder import TrialFolder
real, skew = time.time, float(sys.argv[2])
time.time = lambda: real() + skew
folder = TrialFolder(Path(sys.argv[1]))
folder.claim()
print("claimed", os.getpid(), flush=True)
while True:
    time.sleep(0.1)
    folder.heartbeat()
"""


def beat(folder: TrialFolder, skew: float = 0, command: tuple[str, ...] = ()) -> subprocess.Popen:
    """Start an owner that renews its lease all the time, by a clock that is wrong."""
    process = subprocess.Popen(
        [*command, sys.executable, "-c", BEATING, str(folder.path), str(skew)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("claimed")
    return process


def end(process: subprocess.Popen) -> None:
    os.killpg(process.pid, 9)
    process.wait(30)


@pytest.fixture
def other_place(monkeypatch):
    """As seen from another machine."""
    monkeypatch.setattr(lease.socket, "gethostname", lambda: "node18")


@pytest.mark.parametrize("skew", [-3600, -190, 190, 3600])
def test_wrong_clocks_take_no_living_trial_over(folder, other_place, monkeypatch, skew, capfd):
    """By the clocks alone its lease ran out long ago, or will for an hour to come."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    process = beat(folder, skew)
    try:
        with pytest.raises(UsageError, match="running already"):
            folder.claim()
    finally:
        end(process)
    with pytest.raises(UsageError, match="running already"):
        folder.claim()  # it was seen to be alive just now
    lease._watches.clear()  # as in another process
    before = time.monotonic()
    assert TrialFolder(folder.path).claim()["attempts"] == 2, "a dead one is followed, too"
    assert 1 < time.monotonic() - before < 10
    assert "watching for 180 s whether it still does" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="makes PID namespaces")
def test_two_pid_namespaces_of_one_host_don_t_take_each_other_over(folder, monkeypatch):
    """As in two containers: a process id of the one is nobody, or somebody else, in the other."""
    process = beat(folder, -3600, ("unshare", "-p", "-f", "--mount-proc", "--kill-child"))
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    try:
        assert folder.read()["owner"]["pid"] == 1
        assert folder.read()["owner"]["namespace"] != lease.pid_namespace()
        with pytest.raises(UsageError, match="running already"):
            folder.claim()
    finally:
        end(process)
    lease._watches.clear()
    assert folder.claim()["attempts"] == 2


def test_a_signal_ends_the_watch(folder, monkeypatch):
    own_from_another_machine(folder, lease=time.time() - 1)
    monkeypatch.setattr(signals, "requested", lambda: "SIGUSR1")
    with pytest.raises(TrialInterrupted, match="by SIGUSR1 while another attempt was watched"):
        folder.claim()


def test_at_once_a_clock_may_be_minutes_behind(folder):
    own_from_another_machine(folder, lease=time.time() - 300)
    assert lease.owned(folder.read())
    own_from_another_machine(folder, lease=time.time() - lease.SKEW_SECONDS - 1)
    assert not lease.owned(folder.read())
    assert folder.claim(patient=False)["attempts"] == 5


# --- attempts are told apart by their tokens, not by their numbers


def test_an_attempt_in_a_folder_that_was_removed_and_made_anew_is_lost(folder):
    folder.claim()
    shutil.rmtree(folder.path)
    (folder.path / "checkpoints").mkdir(parents=True)
    successor = TrialFolder(folder.path)
    assert successor.claim()["attempts"] == folder.attempt == 1
    before = successor.read()
    for write in (folder.heartbeat, folder.check_owner, lambda: folder.finish("done")):
        with pytest.raises(LostLease, match="another attempt has begun here anew"):
            write()
    successor.finish("done")
    with pytest.raises(LostLease):
        folder.heartbeat()
    assert successor.read()["token"] == before["token"]


def test_a_folder_that_is_gone_is_lost_and_not_made_again(folder):
    folder.claim()
    shutil.rmtree(folder.path)
    for write in (folder.heartbeat, folder.check_owner, lambda: folder.finish("done")):
        with pytest.raises(LostLease, match="its record is gone"):
            write()
    assert not folder.path.exists()


def test_a_fresh_start_after_a_lease_ran_out_makes_the_old_process_stop(tmp_path, monkeypatch):
    from mlmodeldev.settings.composition import compose_settings

    overrides = [f"artefacts.runs_dir={tmp_path}", "artefacts.trial=trial"]
    old = TrialFolder.open(compose_settings(overrides))
    old.claim()
    record = old.read()
    record["owner"]["host"], record["lease"] = "node17", time.time() - 0.1
    (old.path / "trial.json").write_text(json.dumps(record))
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)
    new = TrialFolder.open(compose_settings([*overrides, "artefacts.fresh=true"]))
    with pytest.raises(LostLease, match="its record is gone"):
        old.heartbeat()
    assert new.claim()["attempts"] == 1
    with pytest.raises(LostLease, match="begun here anew"):
        old.heartbeat()
    new.heartbeat()


def test_an_older_versions_attempt_that_took_over_is_respected(folder):
    """It knows no tokens: the record's stays, its own owner has none."""
    folder.claim()
    record = folder.read()
    owner = {"host": "node17", "pid": 1, "started": 5}
    record |= {"owner": owner, "attempts": 1}
    (folder.path / "trial.json").write_text(json.dumps(record))
    with pytest.raises(LostLease):
        folder.heartbeat()


def test_a_heartbeat_that_can_not_be_written_is_tried_again(folder, monkeypatch, caplog):
    folder.claim()
    before = folder.read()
    monkeypatch.setattr("mlmodeldev.trial.folder.write_fenced", full_disk)
    folder.heartbeat()
    assert "no space left on the device" in caplog.text
    assert folder.read() == before
    folder._renewed -= LEASE_SECONDS
    with pytest.raises(UsageError, match="no space left"):
        folder.heartbeat()


def full_disk(*_: object) -> None:
    raise UsageError("no space left on the device")


def test_a_record_of_odd_types_has_no_owner(folder):
    for owner in ("me", 5, [], {}, {"host": None}, {"pid": "1"}):
        assert not lease.owned({"state": "running", "owner": owner, "lease": "soon"})
