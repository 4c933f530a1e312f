"""Offline search: workers that die, a torn journal, exact caps, seeds, earlier results."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import time
from collections import Counter

import optuna
import pytest
from filelock import FileLock

from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.sweep import load
from mlmodeldev.sweep.loading import trial_arguments
from mlmodeldev.sweep.search import SearchSource, main
from mlmodeldev.sweep.study import import_trials
from mlmodeldev.trial.record import read_record
from mlmodeldev.trial.task import TrialResult, TrialTask
from tests.sweep.searching import Hunt, family


def rows(hunt):
    """The rows of the journal, as Optuna's own reader gives them."""
    backend = optuna.storages.journal.JournalFileBackend(str(hunt.journal))
    storage = optuna.storages.JournalStorage(backend)
    summary = optuna.get_all_study_summaries(storage)[-1]
    return optuna.load_study(study_name=summary.study_name, storage=storage).trials


def test_workers_die_and_nothing_is_lost_or_doubled(tmp_path):
    hunt = Hunt(tmp_path, cap=40)
    slow = {"EPOCHS": "8", "SECONDS_EACH": "0.05"}
    workers = [hunt.start("--linger", **slow) for _ in range(4)]
    first, pid = hunt.running()
    os.kill(pid, signal.SIGKILL)  # the trial alone: its worker lives
    second, pid = hunt.running({first})
    owner = next(w for w in workers if pid in family(w.pid))
    for each in family(owner.pid):  # the worker and all it started, as when a node dies
        os.kill(each, signal.SIGKILL)
    with FileLock(hunt.journal.with_name("lock")), hunt.journal.open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"gone","trial_i')  # its last words
    workers.append(hunt.start("--linger", **slow))
    ended = [worker.communicate(timeout=100) for worker in workers]
    codes = [w.returncode for w in workers]
    assert codes == [-9 if w is owner else 0 for w in workers], [e[1] for e in ended]

    assert len(hunt.trials) == 40
    assert set(hunt.states()) == {"done"}
    assert len(set(hunt.values().values())) == 40
    written = rows(hunt)
    assert [row.state.name for row in written] == ["COMPLETE"] * 40
    assert sorted(row.user_attrs["id"] for row in written) == [f.name for f in hunt.trials]
    best = max(hunt.values().values())
    assert max(row.value for row in written) == pytest.approx(best)
    for folder in hunt.trials:
        begun = [line.split()[1] for line in (folder / "begun.txt").read_text().splitlines()]
        assert begun[0] == "0"
        assert len(begun) == (2 if folder in (first, second) else 1)
        assert all(int(step) > 0 for step in begun[1:]), "a killed trial goes on, not anew"
        epochs = [e["epoch"] for e in json.loads((folder / "log.json").read_text())]
        assert epochs == list(range(1, 9))
    assert hunt.work("--linger")[0] == 0
    assert len(hunt.trials) == 40, "the cap holds for later workers"


def test_an_orphan_goes_on_and_its_result_counts(tmp_path):
    """A worker killed alone leaves its trial running; nobody else may run it meanwhile."""
    hunt = Hunt(tmp_path, cap=2)
    worker = hunt.start(EPOCHS="10", SECONDS_EACH="0.2")
    folder, _ = hunt.running()
    os.kill(worker.pid, signal.SIGKILL)
    status, _, err = hunt.work("--linger")
    assert status == 0, err
    assert hunt.states() == ["done"] * 2
    assert len((folder / "begun.txt").read_text().splitlines()) == 1
    assert [row.state.name for row in rows(hunt)] == ["COMPLETE"] * 2
    worker.communicate(timeout=20)


def test_an_interrupted_search_goes_on_with_the_same_trial(tmp_path):
    hunt = Hunt(tmp_path, cap=2)
    worker = hunt.start(EPOCHS="200")
    folder, _ = hunt.running()
    worker.send_signal(signal.SIGUSR1)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 75
    assert "goes on where it was" in err
    assert hunt.states() == ["interrupted"]
    assert hunt.work()[0] == 0
    assert hunt.states() == ["done"] * 2
    begun = [int(line.split()[1]) for line in (folder / "begun.txt").read_text().splitlines()]
    assert begun[0] == 0
    assert begun[1] > 0


def begin(hunt, **more):
    """A worker in this process, whose trials are run by `drive`."""
    return SearchSource(load(hunt.file), hunt.runs, **more)


def drive(*workers, epochs=1, act=None):
    """Run trials by turns, at once and in this process, until nobody has more; return how many.

    A trial's curve rises towards a height that depends on its learning rate alone.
    """
    count = 0
    while True:
        taken = [(worker, worker.take()) for worker in workers]
        if not any(isinstance(work, TrialTask) for _, work in taken):
            return count
        for worker, work in taken:
            if isinstance(work, TrialTask):
                count += 1
                worker.report(work, (act or succeed)(work, epochs))


def height(work):
    """What a trial reaches."""
    lr = float(next(o.partition("=")[2] for o in work.overrides if o.startswith("optimizer.lr=")))
    return -((math.log10(lr) + 2.5) ** 2)


def succeed(work, epochs):
    """Write the folder of a trial that ended well."""
    work.folder.mkdir(parents=True, exist_ok=True)
    entries = [{"epoch": e + 1, "val/accuracy": height(work) - 0.5**e} for e in range(epochs)]
    (work.folder / "log.json").write_text(json.dumps(entries))
    record = {"state": "done", "overrides": parse_overrides(work.overrides)}
    (work.folder / "trial.json").write_text(json.dumps(record))
    return TrialResult(0, "done", None, 0.1)


def fail(work, _):
    """Write the folder of a trial that failed."""
    work.folder.mkdir(parents=True, exist_ok=True)
    (work.folder / "trial.json").write_text(json.dumps({"state": "failed", "reason": "a defect"}))
    return TrialResult(1, "failed", "a defect", 0.1)


def test_one_worker_repeats_its_search_and_the_seed_matters(tmp_path):
    searches = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        hunt = Hunt(tmp_path / name, cap=16)
        assert drive(begin(hunt, seed=seed)) == 16
        searches.append([row.user_attrs["id"] for row in rows(hunt)])
    assert searches[0] == searches[1]
    assert not set(searches[0]) & set(searches[2])


def test_suggestions_come_closer_than_random_draws(tmp_path):
    gaps = {}
    for method in ("bayes", "random"):
        (tmp_path / method).mkdir()
        hunt = Hunt(tmp_path / method, method=method, cap=40)
        drive(begin(hunt))
        gaps[method] = -1 - statistics.median(row.value for row in rows(hunt)[20:])
    assert 0 < gaps["bayes"] < gaps["random"] / 2


def test_random_and_grid_give_what_enumeration_gives(tmp_path):
    for method in ("random", "grid"):
        (tmp_path / method).mkdir()
        hunt = Hunt(tmp_path / method, method=method, cap=6)
        if method == "grid":
            text = hunt.file.read_text().split("parameters:")[0]
            grid = "parameters: {optimizer.lr: {values: [0.1, 0.2, 0.3, 0.4]}}\n"
            hunt.file.write_text(text + grid)
        declared = {t.id for t in load(hunt.file).trials()}
        assert drive(begin(hunt), begin(hunt)) == len(declared)
        assert {f.name for f in hunt.trials} == declared
        assert {row.user_attrs["id"] for row in rows(hunt)} == declared
        assert drive(begin(hunt)) == 0


def test_what_was_done_before_is_not_paid_for_again(tmp_path):
    hunt = Hunt(tmp_path, method="random", cap=4)
    for trial in list(load(hunt.file).trials())[:2]:
        arguments = trial_arguments(trial.overrides, hunt.folder / trial.id)
        succeed(TrialTask(trial.id, hunt.folder / trial.id, arguments), 1)
    assert drive(begin(hunt)) == 2
    assert [row.state.name for row in rows(hunt)] == ["COMPLETE"] * 4


def test_the_cap_holds_for_many_workers_and_counts_replicates(tmp_path):
    hunt = Hunt(tmp_path, cap=9)
    text = hunt.file.read_text().replace("{value: 0}", "{values: [0, 1]}")
    hunt.file.write_text(text + "controller: {type: cloud, replicates: training.seed}\n")
    assert drive(*[begin(hunt) for _ in range(5)]) == 9
    groups = Counter(row.user_attrs["group"] for row in rows(hunt))
    assert sorted(groups.values()) == [1, 2, 2, 2, 2]
    assert len(hunt.trials) == 9
    assert drive(begin(hunt, count=5)) == 0


def test_a_small_space_ends_with_its_last_point(tmp_path):
    hunt = Hunt(tmp_path, cap=99)
    text = hunt.file.read_text().split("parameters:")[0]
    hunt.file.write_text(
        text
        + "parameters: {optimizer.lr: {values: [0.1, 0.2, 0.3]}, a: {min: 1, max: 4}}\n"
        + "controller: {type: cloud, constraints: [optimizer.lr * a < 1], conditions: {}}\n"
    )
    assert drive(begin(hunt)) == 11
    assert len(hunt.trials) == 11


def test_a_lost_journal_is_made_anew_and_an_earlier_sweep_is_learned_from(tmp_path):
    hunt = Hunt(tmp_path, cap=4)
    worker = begin(hunt)
    drive(worker)
    params = {row.value: row.params for row in rows(hunt)}
    hunt.journal.unlink()
    assert drive(begin(hunt)) == 0
    assert len(hunt.trials) == 4
    assert {row.value for row in rows(hunt)} == set(params)
    for row in rows(hunt):
        assert row.params == pytest.approx(params[row.value])

    (tmp_path / "next").mkdir()
    later = Hunt(tmp_path / "next", cap=1)
    worker = begin(later)
    with worker.journal.lock:
        assert import_trials(worker.study, worker.sampler, hunt.folder) == 4
        assert import_trials(worker.study, worker.sampler, hunt.folder) == 0
    assert drive(worker) == 1, "what is imported counts towards no cap"
    written = rows(later)
    assert len(written) == 5
    for row in written[:4]:
        assert row.params == pytest.approx(params[row.value])


def test_another_space_is_another_study_that_keeps_the_points_they_share(tmp_path):
    hunt = Hunt(tmp_path, cap=6)
    drive(begin(hunt))
    low = sum(height(TrialTask("", f, [f"optimizer.lr={lr_of(f)}"])) < -1 for f in hunt.trials)
    hunt.file.write_text(hunt.file.read_text().replace("max: 1.0", "max: 0.03"))
    kept = sum(lr_of(f) <= 0.03 for f in hunt.trials)
    assert 0 < kept < 6, low
    assert drive(begin(hunt)) == 6 - kept


def lr_of(folder):
    """The learning rate of a trial, from its folder."""
    return read_record(folder)["overrides"]["optimizer.lr"]


def test_a_failed_trial_fails_alone_and_is_run_again_with_retry(tmp_path):
    hunt = Hunt(tmp_path, cap=3)
    assert drive(begin(hunt), act=fail) == 3
    assert hunt.states() == ["failed"] * 3
    assert drive(begin(hunt)) == 0
    assert [row.user_attrs["reason"] for row in rows(hunt)] == ["a defect"] * 3
    before = {f.name for f in hunt.trials}
    assert drive(begin(hunt, retry=True), act=fail) == 3
    assert drive(begin(hunt, retry=True)) == 3
    assert hunt.states() == ["done"] * 3
    assert {f.name for f in hunt.trials} == before


def test_a_trial_that_always_dies_is_given_up(tmp_path):
    hunt = Hunt(tmp_path, cap=1)
    worker = begin(hunt)

    def die(work, _):
        return TrialResult(-9, "failed", "killed", 0.1)

    assert drive(worker, act=die) == 4
    assert [row.state.name for row in rows(hunt)] == ["FAIL"]


def test_a_metric_that_is_never_logged_is_a_failure_with_its_reason(tmp_path):
    hunt = Hunt(tmp_path, cap=1)
    drive(begin(hunt), epochs=0)
    assert "val/accuracy was never logged" in rows(hunt)[0].user_attrs["reason"]


def test_a_reached_target_ends_the_search(tmp_path):
    hunt = Hunt(tmp_path, cap=30)
    hunt.file.write_text(hunt.file.read_text().replace("maximize", "maximize, target: -5"))
    drive(begin(hunt))
    values = [row.value for row in rows(hunt)]
    assert len(values) < 30
    assert [value >= -5 for value in values] == [False] * (len(values) - 1) + [True]


@pytest.mark.parametrize(
    "damage",
    [
        *(b'{"op_code":6,"trial_i', b"\x00\xff\xfe", b'{"op_code":', b"null", b"{}\n[1]\nx\n"),
        b'{"op_code":99,"worker_id":"w"}\n',
        b'{"op_code":"x"}\n{"op_code":4}\n{"op_code":4,"study_id":0,"worker_id":"w"}\n',
        b'{"op_code":5,"worker_id":"w","trial_id":0,"param_name":1}\n{"op_code":null}\n',
        b'{"op_code":0,"worker_id":"w","study_name":"y","directions":["up"]}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_torn_journal_is_mended_and_nobody_stumbles(damage, tmp_path):
    hunt = Hunt(tmp_path, cap=6)
    first, second = begin(hunt), begin(hunt, count=3)
    drive(second)
    assert first.take() is not None
    with hunt.journal.open("ab") as file:
        file.write(damage)
    again = Hunt(tmp_path, cap=6)
    assert drive(begin(again), second, first) == 2, "one is run by the first worker"


def test_a_line_without_its_end_is_kept(tmp_path):
    hunt = Hunt(tmp_path, cap=4)
    drive(begin(hunt, count=2))
    hunt.journal.write_bytes(hunt.journal.read_bytes()[:-1])
    assert drive(begin(hunt)) == 2
    assert [row.state.name for row in rows(hunt)] == ["COMPLETE"] * 4


def test_hyperband_ends_trials_early(tmp_path):
    more = "early_terminate: {type: hyperband, min_iter: 2, eta: 2}\n"
    hunt = Hunt(tmp_path, cap=12, more=more)
    status, _, err = hunt.work(EPOCHS="8", SECONDS_EACH="0")
    assert status == 0, err
    states = hunt.states()
    assert states.count("pruned") > 2
    assert states.count("done") >= 1
    written = rows(hunt)
    assert {r.state.name for r in written} == {"PRUNED", "COMPLETE"}
    for row in written:
        epochs = len(json.loads((hunt.folder / row.user_attrs["id"] / "log.json").read_text()))
        assert epochs == max(row.intermediate_values)
        assert (epochs in (2, 4)) == (row.state.name == "PRUNED")
    reasons = [read_record(f)["reason"] for f in hunt.trials if read_record(f)["reason"]]
    assert all("the best 1/2 of" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slots", "0"], "--slots 0"),
        (["--prior", "/nowhere"], "/nowhere"),
        (["optimizer.lrr=1"], "did you mean 'lr'"),
    ],
)
def test_bad_input_is_one_line_and_2(arguments, message, tmp_path, capsys):
    assert main(Hunt(tmp_path).words(*arguments)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_workers_lease_is_its_own_and_its_silence_is_timed(tmp_path, monkeypatch):
    """Also of two containers whose processes have the same host name, id and start."""
    from mlmodeldev import lease
    from mlmodeldev.sweep.journal import Leases

    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "pid_namespace", lambda: 1)
    first = Leases(tmp_path)
    first.renew()
    monkeypatch.setattr(lease, "pid_namespace", lambda: 2)
    second = Leases(tmp_path)
    assert second.name != first.name
    assert second.alive(first.name)
    deadline = time.monotonic() + 30
    while second.alive(first.name) is not False:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert second.alive(second.name)
    assert not second.alive("node17-5-7"), "a name of an older version, without a file"
