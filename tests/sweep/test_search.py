"""Offline search: workers that die, a torn journal, exact caps, seeds, prior results."""

from __future__ import annotations

import json
import os
import signal

import pytest
from filelock import FileLock

from mlmodeldev.sweep import load
from mlmodeldev.trial.record import read_record
from tests.sweep.searching import Hunt, family

optuna = pytest.importorskip("optuna")


def rows(hunt):
    """The rows of the journal, as Optuna's own reader gives them."""
    backend = optuna.storages.journal.JournalFileBackend(str(hunt.journal))
    storage = optuna.storages.JournalStorage(backend)
    (summary,) = optuna.get_all_study_summaries(storage)
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
    found = rows(hunt)
    assert [row.state.name for row in found] == ["COMPLETE"] * 40
    assert sorted(row.user_attrs["id"] for row in found) == [f.name for f in hunt.trials]
    best = max(hunt.values().values())
    assert max(row.value for row in found) == pytest.approx(best)
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


def test_one_worker_repeats_its_search_and_the_seed_matters(tmp_path):
    found = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        (tmp_path / name).mkdir()
        hunt = Hunt(tmp_path / name, cap=12)
        status, _, err = hunt.work("--seed", seed, EPOCHS="1", SECONDS_EACH="0")
        assert status == 0, err
        found.append([row.user_attrs["id"] for row in rows(hunt)])
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])


def test_random_draws_are_those_of_enumeration(tmp_path):
    hunt = Hunt(tmp_path, method="random", cap=6)
    done = [hunt.start("--slots", "2", EPOCHS="1", SECONDS_EACH="0") for _ in range(2)]
    assert [w.communicate(timeout=100) and w.returncode for w in done] == [0, 0]
    assert {f.name for f in hunt.trials} == {t.id for t in load(hunt.file).trials()}
    assert len(rows(hunt)) == 6


def test_a_lost_journal_is_made_anew_and_an_earlier_sweep_is_learned_from(tmp_path):
    hunt = Hunt(tmp_path, cap=4)
    quick = {"EPOCHS": "1", "SECONDS_EACH": "0"}
    assert hunt.work(**quick)[0] == 0
    before = {f.name for f in hunt.trials}
    hunt.journal.unlink()
    assert hunt.work(**quick)[0] == 0
    assert {f.name for f in hunt.trials} == before
    assert sorted(row.value for row in rows(hunt)) == sorted(hunt.values().values())

    (tmp_path / "next").mkdir()
    later = Hunt(tmp_path / "next", cap=1)
    status, out, err = later.work("--prior", str(hunt.folder), **quick)
    assert status == 0, err
    assert out.startswith("4 results of ")
    found = rows(later)
    assert len(found) == 5
    assert len(later.trials) == 1, "what is imported counts towards no cap"
    known = {row.value: row.params for row in rows(hunt)}
    for row in found[:4]:
        assert row.params == pytest.approx(known[row.value])
    assert "0 results" in later.work("--prior", str(hunt.folder), **quick)[1]


def test_a_failed_trial_fails_alone_and_is_run_again_when_asked(tmp_path):
    hunt = Hunt(tmp_path, cap=3)
    quick = {"EPOCHS": "1", "SECONDS_EACH": "0"}
    status, _, _ = hunt.work("training.monitor=defect", **quick)
    assert status == 1
    assert hunt.states() == ["failed"] * 3
    assert hunt.work(**quick)[0] == 0
    assert hunt.states() == ["failed"] * 3
    assert [row.user_attrs["reason"] for row in rows(hunt)] == ["ValueError: a defect"] * 3
    before = {f.name for f in hunt.trials}
    assert hunt.work("--retry", "training.monitor=val/accuracy", **quick)[0] == 0
    assert hunt.states() == ["done"] * 3
    assert {f.name for f in hunt.trials} == before


def test_hyperband_ends_trials_early_and_the_target_ends_the_search(tmp_path):
    more = "early_terminate: {type: hyperband, min_iter: 2, eta: 2}\n"
    hunt = Hunt(tmp_path, cap=16, more=more)
    assert hunt.work(EPOCHS="8", SECONDS_EACH="0")[0] == 0
    states = hunt.states()
    assert states.count("pruned") > 3
    assert states.count("done") >= 2
    found = rows(hunt)
    assert {r.state.name for r in found} == {"PRUNED", "COMPLETE"}
    for row in found:
        epochs = len(json.loads((hunt.folder / row.user_attrs["id"] / "log.json").read_text()))
        assert epochs == max(row.intermediate_values)
        assert (epochs in (2, 4)) == (row.state.name == "PRUNED")
    reasons = [read_record(f)["reason"] for f in hunt.trials if read_record(f)["reason"]]
    assert all("the best 1/2 of" in reason for reason in reasons)

    text = hunt.file.read_text().replace("goal: maximize", "goal: maximize, target: -10")
    hunt.file.write_text(text.replace("run_cap: 16", "run_cap: 99"))
    assert hunt.work(EPOCHS="1")[0] == 0
    assert len(hunt.trials) == 16


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--slots", "0"], "--slots 0"),
        (["--prior", "/nowhere"], "/nowhere"),
        (["optimizer.lrr=1"], "did you mean 'lr'"),
    ],
)
def test_bad_input_is_one_line_and_2(arguments, told, tmp_path):
    status, _, err = Hunt(tmp_path).work(*arguments)
    assert status == 2
    assert told in err
    assert err.count("\n") == 1
