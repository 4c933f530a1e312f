"""Several trials at once: shares, isolation, signals, foreign programs.

A fork server belongs to a process, so each scenario is a process of its own; the programs here
need no torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlmodeldev.machine import trial_resources, visible_gpus
from mlmodeldev.trial.pool import ListSource, TrialTask, run_pool
from mlmodeldev.trial.task import needs_processes

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import ctypes, json, os, signal, sys, time
from mlmodeldev.atomic import write_json
from mlmodeldev.errors import TrialInterrupted
from mlmodeldev.trial import signals
from mlmodeldev.trial.folder import TrialFolder

def train(settings):
    folder = TrialFolder.open(settings)
    folder.claim()
    case = settings.training.monitor
    begun = time.time()
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "MASTER_PORT", "WANDB_RUN_ID")
    note = {"pid": os.getpid(), "begun": begun, **{n: os.environ.get(n) for n in names}}
    note |= {"module": __name__, "devices": settings.training.devices}
    write_json(folder.path / "note.json", note)
    if case == "segfault": ctypes.string_at(0)
    if case == "killed": os.kill(os.getpid(), signal.SIGKILL)
    if case == "silent": os._exit(0)
    if case == "defect":
        folder.finish("failed", "ValueError: a defect")
        raise ValueError("a defect")
    if case == "fat": memory = b"x" * 300_000_000
    seconds = {"long": 60.0, "short": 0.3}.get(case, 0.0)
    while time.time() < begun + seconds:
        if signals.requested():
            folder.finish("interrupted", signals.requested())
            raise TrialInterrupted(signals.requested())
        time.sleep(0.01)
    folder.finish("done", note=time.time())

if __name__ == "__main__":
    from mlmodeldev.settings.composition import compose_settings
    train(compose_settings(sys.argv[1:]))
"""

DRIVER = """
import json, resource, sys
from pathlib import Path
from mlmodeldev.trial import worker
from mlmodeldev.trial.pool import ListSource, TrialTask, run_pool
worker.HEAVY = ()
here, slots, cases = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
work = []
for number, case in enumerate(cases):
    name = f"t{number}"
    overrides = [f"artefacts.runs_dir={here}/runs", f"artefacts.trial={name}"]
    if isinstance(case, list):
        folder, stop = here / "runs/single" / name, here / "stop"
        work.append(TrialTask(name, folder, command=case, foreign=True, stop_file=stop))
    else:
        overrides.append(case if "=" in case else f"training.monitor={case}")
        work.append(TrialTask(name, here / "runs/single" / name, overrides, "program"))
class Printing(ListSource):
    def report(self, work, ended):
        super().report(work, ended)
        print(json.dumps([work.id, ended.status, ended.state, ended.reason]), flush=True)
    def tick(self):
        if (here / "defect").exists():
            raise RuntimeError("a defect of the source")
status = run_pool(Printing(work), slots, ["program"], here)
print(json.dumps(status))
"""


class Pool:
    """A pool in a process of its own."""

    def __init__(self, here: Path, slots: int, cases: list, **environment: str) -> None:
        (here / "program.py").write_text(PROGRAM)
        (here / "conf").symlink_to(ROOT / "conf")
        self.runs = here / "runs" / "single"
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(here), str(slots), json.dumps(cases)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def record(self, name: str) -> dict:
        return json.loads((self.runs / name / "trial.json").read_text())

    def note(self, name: str) -> dict:
        return json.loads((self.runs / name / "note.json").read_text())

    def wait_for(self, name: str) -> dict:
        """Return a trial's note once it runs."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (self.runs / name / "note.json").exists():
                return self.note(name)
            time.sleep(0.02)
        raise AssertionError(f"{name} never began")

    def end(self) -> tuple[int, dict[str, list]]:
        """Return the pool's status, and how each trial ended."""
        out, _ = self.process.communicate(timeout=100)
        *results, status = [json.loads(line) for line in out.splitlines()]
        return status, {name: rest for name, *rest in results}


def test_a_fault_fails_its_own_trial_and_says_why(tmp_path):
    cases = ["segfault", "killed", "defect", "silent", "optimizer.lrr=1", "good", "fat", "good"]
    pool = Pool(tmp_path, 2, cases, OMP_NUM_THREADS="3", CUDA_VISIBLE_DEVICES="4,7")
    status, results = pool.end()
    assert status == 1
    assert [results[f"t{i}"][0] for i in range(8)] == [-11, -9, 1, 0, 2, 0, 0, 0]
    assert [results[f"t{i}"][1] for i in range(8)] == ["failed"] * 5 + ["done"] * 3
    assert "SIGSEGV" in pool.record("t0")["reason"]
    assert "memory" in pool.record("t1")["reason"]
    assert pool.record("t2")["reason"] == "ValueError: a defect"
    assert pool.record("t3")["state"] == "failed"
    assert "did you mean 'lr'" in results["t4"][2]
    notes = [pool.note(f"t{i}") for i in (5, 6, 7)]
    assert {note["OMP_NUM_THREADS"] for note in notes} == {"3"}
    assert {note["CUDA_VISIBLE_DEVICES"] for note in notes} <= {"4", "7"}


def test_slots_run_at_once_with_ports_and_gpus_of_their_own(tmp_path):
    pool = Pool(tmp_path, 3, ["short"] * 6, CUDA_VISIBLE_DEVICES="0,1,2")
    status, results = pool.end()
    assert status == 0
    assert len(results) == 6
    spans = [(pool.note(f"t{i}")["begun"], pool.record(f"t{i}")["note"]) for i in range(6)]
    at_once = [sum(a <= begun < b for a, b in spans) for begun, _ in spans]
    assert max(at_once) == 3
    for name in ("MASTER_PORT", "CUDA_VISIBLE_DEVICES"):
        assert len({pool.note(f"t{i}")[name] for i in range(6)}) == 3


@pytest.mark.parametrize("to_group", [False, True], ids=["the pool", "all processes"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_signal_is_passed_on_and_nothing_new_begins(number, to_group, tmp_path):
    pool = Pool(tmp_path, 2, ["long"] * 4)
    pids = [pool.wait_for(name)["pid"] for name in ("t0", "t1")]
    if to_group:  # as Slurm does: the fork server must not die of it
        for pid in _family(pool.process.pid):
            os.kill(pid, number)
    else:
        os.kill(pool.process.pid, number)
    status, results = pool.end()
    assert status == 75
    assert results == {name: [75, "interrupted", results[name][2]] for name in ("t0", "t1")}
    assert not any((pool.runs / name).exists() for name in ("t2", "t3"))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in listed for one in _family(int(child)))]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_server_takes_no_trial_with_it(tmp_path):
    pool = Pool(tmp_path, 2, ["long", "long", "good"])
    pids = [pool.wait_for(name)["pid"] for name in ("t0", "t1")]
    server = _parent(pids[0])
    assert server != pool.process.pid
    os.kill(server, signal.SIGKILL)
    os.kill(pids[0], signal.SIGTERM)
    pool.wait_for("t2")  # from a new server
    os.kill(pids[1], signal.SIGKILL)
    status, results = pool.end()
    assert status == 75
    assert [results[name][1] for name in ("t0", "t1", "t2")] == ["interrupted", "failed", "done"]


def test_a_trial_that_is_killed_with_the_server_was_killed_from_outside(tmp_path):
    """As one alone is: an agent begins it again, and does not call it failed for good."""
    pool = Pool(tmp_path, 1, ["long"])
    trial = pool.wait_for("t0")["pid"]
    for pid in (_parent(trial), trial):
        os.kill(pid, signal.SIGKILL)
    status, ended = pool.end()
    assert status == 1
    assert ended["t0"][0] == -signal.SIGKILL
    assert "SIGKILL" in ended["t0"][2]


def test_a_foreign_program_is_recorded_and_its_children_end_with_it(tmp_path):
    leave = "import subprocess; p = subprocess.Popen(['sleep', '300']); print(p.pid)"
    cases = [[sys.executable, "-c", leave], ["false"], ["/no/such/program"]]
    pool = Pool(tmp_path, 2, cases)
    status, results = pool.end()
    assert status == 1
    assert [results[f"t{i}"][1] for i in range(3)] == ["done", "failed", "failed"]
    assert pool.record("t0")["state"] == "done"
    assert pool.record("t1")["reason"] == "exit status 1"
    assert "/no/such/program" in results["t2"][2]
    left = int((pool.runs / "t0" / "log.txt").read_text())
    deadline = time.monotonic() + 20
    while Path(f"/proc/{left}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{left}").exists()


def test_a_foreign_program_is_ended_for_good_when_that_is_requested(tmp_path):
    note = tmp_path / "runs" / "single" / "t0" / "note.json"
    (tmp_path / "empty.json").write_text("{}")
    wait = f"import os, time; os.rename('{tmp_path}/empty.json', '{note}'); time.sleep(300)"
    pool = Pool(tmp_path, 1, [[sys.executable, "-c", wait]])
    pool.wait_for("t0")
    (tmp_path / "stop").touch()
    status, results = pool.end()
    assert (status, results) == (0, {"t0": [-signal.SIGTERM, "pruned", "stopped by W&B"]})
    assert pool.record("t0")["state"] == "pruned"


SAVES = """
import os, signal, sys
from pathlib import Path
here = Path(sys.argv[1])
def save(*_):
    (here / "saved").write_text("whole")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(here / "ready").write_text("{}")
os.rename(here / "ready", here / "runs/single/t0/note.json")
while True: signal.pause()
"""


@pytest.mark.parametrize("to_all", [False, True], ids=["the pool", "all processes"])
def test_a_program_saves_though_the_shell_around_it_dies_at_once(to_all, tmp_path):
    (tmp_path / "saves.py").write_text(SAVES)
    (tmp_path / "run.sh").write_text(f"{sys.executable} saves.py {tmp_path}\necho ended\n")
    script = ["sh", "-c", f"cd {tmp_path} && sh run.sh; echo ended"]  # two shells, and no exec
    pool = Pool(tmp_path, 1, [script])
    pool.wait_for("t0")
    for pid in _family(pool.process.pid) if to_all else [pool.process.pid]:
        os.kill(pid, signal.SIGTERM)
    status, results = pool.end()
    assert (status, results["t0"][1]) == (75, "interrupted")
    assert (tmp_path / "saved").read_text() == "whole"
    assert pool.record("t0")["state"] == "interrupted"


def test_no_trial_inherits_a_run_from_the_shell(tmp_path):
    left = {"WANDB_RUN_ID": "left", "WANDB_SWEEP_ID": "left", "WANDB_SWEEP_PARAM_PATH": "left"}
    seen = tmp_path / "seen"
    pool = Pool(tmp_path, 1, ["done", ["sh", "-c", f"env > {seen}"]], **left)
    assert pool.end()[0] == 0
    assert pool.note("t0")["WANDB_RUN_ID"] is None
    assert "left" not in seen.read_text().replace(str(tmp_path), "")
    assert [pool.record(name).get("wandb_id") for name in ("t0", "t1")] == [None, None]


def test_a_command_that_cannot_be_started_has_failed_and_says_why(tmp_path):
    text = tmp_path / "text"
    text.write_text("no program")
    pool = Pool(tmp_path, 2, [["no-such-command", "--x=1"], [str(text)]])
    status, results = pool.end()
    assert status == 1
    reasons = ["no-such-command: can't be started: No such file or directory",
               f"{text}: can't be started: Permission denied"]  # fmt: skip
    assert [results[name][1:] for name in ("t0", "t1")] == [["failed", each] for each in reasons]
    for name, reason in zip(("t0", "t1"), reasons, strict=True):
        record = pool.record(name)
        assert (record["state"], record["reason"], record["owner"]) == ("failed", reason, None)


def test_a_source_that_fails_leaves_no_trial_unattended(tmp_path):
    """Each trial saves, its end is recorded, and only then is the defect raised."""
    foreign = ["sh", "-c", "trap 'exit 75' TERM; while :; do sleep 0.05; done"]
    pool = Pool(tmp_path, 3, ["long", "long", foreign])
    notes = [pool.wait_for("t0"), pool.wait_for("t1")]
    (tmp_path / "defect").touch()
    out, _ = pool.process.communicate(timeout=100)
    assert pool.process.returncode == 1
    states = {name: state for name, _, state, _ in map(json.loads, out.splitlines())}
    assert states == dict.fromkeys(("t0", "t1", "t2"), "interrupted")
    assert {pool.record(name)["state"] for name in states} == {"interrupted"}
    assert not any(Path(f"/proc/{note['pid']}").exists() for note in notes)


def test_a_trial_of_several_processes_is_no_fork(tmp_path):
    cases = ["training.devices=2", "training.strategy=ddp", "training.devices=1"]
    pool = Pool(tmp_path, 2, cases, PYTHONPATH=str(ROOT))
    status, results = pool.end()
    assert status == 0, results
    notes = [pool.note(f"t{i}") for i in range(3)]
    assert [note["module"] for note in notes] == ["__main__", "__main__", "program"]
    assert [note["devices"] for note in notes] == [2, "auto", 1]
    assert notes[0]["MASTER_PORT"], "it has its share all the same"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], False),
        (["training.devices=1", "optimizer.lr=0.1"], False),
        (["training.devices=auto"], False),
        (["++training.devices=4"], True),
        (["training.devices=4", "training.devices=1"], False),
        (["training.num_nodes=2"], True),
        (["training.strategy=fsdp"], True),
        (["training.devices=[", "model=no_such"], False),  # the trial itself will say
    ],
)
def test_which_trials_need_processes(overrides, expected):
    assert needs_processes(overrides) is expected


@pytest.mark.parametrize(
    ("visible", "slots", "expected"),
    [
        ("0,1", 4, ["0", "1", "0", "1"]),
        ("0,1,2,3", 2, ["0,2", "1,3"]),
        ("GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"]),
        ("", 2, [None, None]),
        ("-1", 2, [None, None]),
    ],
)
def test_gpus_are_shared_out(visible, slots, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    given = trial_resources(slots)
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in given] == expected
    assert len({share["MASTER_PORT"] for share in given}) == slots


def test_threads_are_shared_out_and_one_trial_gets_all(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert {share["OMP_NUM_THREADS"] for share in trial_resources(3)} == {"2"}
    assert {share["OMP_NUM_THREADS"] for share in trial_resources(20)} == {"1"}
    assert trial_resources(1) == [{}]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert isinstance(visible_gpus(), list)


SAVED_THEN_KILLED = """\
import sys
from pathlib import Path
from mlmodeldev.trial.folder import TrialFolder
folder = TrialFolder(Path(sys.argv[1]))
if sys.argv[2] == "saves":
    folder.claim()
    folder.finish("interrupted", "saved")
sys.exit(143)
"""


@pytest.mark.parametrize(("does", "state"), [("saves", "interrupted"), ("nothing", "failed")])
def test_what_a_trial_has_saved_counts_more_than_its_status(tmp_path, does, state):
    """As of srun, which ends the ranks that are still on their way out."""
    folder = tmp_path / "trial"
    folder.mkdir()
    earlier = {"state": "interrupted", "attempts": 1}
    (folder / "trial.json").write_text(json.dumps(earlier))
    command = [sys.executable, "-c", SAVED_THEN_KILLED, str(folder), does]
    source = ListSource([TrialTask("trial", folder, command=command)])
    run_pool(source)
    ((_, ended),) = source.ended
    assert (ended.state, ended.status) == (state, 143)
