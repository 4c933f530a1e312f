"""Real processes on real trials: claims by the hundred, and a folder that goes while it is used."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.trial.folder import TrialFolder

PROCESSES, TRIALS = 8, 160
SMALL = (
    *("logger=csv", "training.max_epochs=2", "training.limit_train_batches=7"),
    *("training.limit_val_batches=2", "training.log_every_n_steps=1", "training.test=false"),
    *("processing.batch_size=16", "model.hidden_size=16", "model.num_layers=1"),
    *("callbacks.cka.enabled=false", "training.checkpoint_every_n_steps=1"),
)


def claim_all(runs: Path, number: int, lines: multiprocessing.Barrier, flock: bool) -> None:  # type: ignore[valid-type]
    """Claim each trial at the same moment as the others; note which were won, and live on."""
    if not flock:

        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, "no locks available")

        fcntl.flock = refuse  # type: ignore[assignment]
    won = []
    folders = [TrialFolder(runs / f"{each:03d}") for each in range(TRIALS)]
    lines.wait(120)
    for folder in folders:
        try:
            folder.claim()
            won.append(folder)
        except UsageError:
            continue
    lines.wait(120)
    for folder in won:
        folder.update(by=number)  # which a lost one could not
    (runs / f"won-{number}").write_text(json.dumps([folder.id for folder in won]))


@pytest.mark.parametrize("flock", [True, False])
def test_of_eight_processes_one_wins_each_of_160_trials(flock, tmp_path):
    for each in range(TRIALS):
        (tmp_path / f"{each:03d}" / "checkpoints").mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    lines = context.Barrier(PROCESSES)
    each = [
        context.Process(target=claim_all, args=(tmp_path, number, lines, flock))
        for number in range(PROCESSES)
    ]
    for process in each:
        process.start()
    for process in each:
        process.join(240)
    assert [process.exitcode for process in each] == [0] * PROCESSES
    won = [json.loads((tmp_path / f"won-{n}").read_text()) for n in range(PROCESSES)]
    assert sorted(itertools.chain(*won)) == [f"{each:03d}" for each in range(TRIALS)]
    records = [TrialFolder(tmp_path / f"{each:03d}").read() for each in range(TRIALS)]
    assert len({record["token"] for record in records}) == TRIALS
    assert {record["attempts"] for record in records} == {1}
    assert [f"{i:03d}" in won[record["by"]] for i, record in enumerate(records)] == [True] * TRIALS


# --- a folder that goes


def remove_and_train_anew() -> None:
    """Patch the model: in its third step the folder goes, and another process begins anew."""
    import model

    step, claim = model.DualEncoder.training_step, TrialFolder.claim
    calls, folders = 0, []

    def noted_claim(self, patient=True):  # type: ignore[no-untyped-def]
        folders.append(self.path)
        return claim(self, patient)

    def training_step(self, batch, index):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == 3:
            folder = folders[0]
            while folder.exists():  # as `rm -rf` does, where a file comes meanwhile
                shutil.rmtree(folder, ignore_errors=True)
            (folder.parent / "gone").touch()
            deadline = time.monotonic() + 120
            while not (folder / "trial.json").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
        return step(self, batch, index)

    TrialFolder.claim = noted_claim
    model.DualEncoder.training_step = training_step


def test_a_trial_whose_folder_was_removed_ends_and_its_successor_trains_alone(trials, tmp_path):
    """The successor is there before the former looks: both are attempt 1 of one trial."""
    undisturbed = trials.run(*SMALL, name="undisturbed")
    assert undisturbed.code == 0, undisturbed.output

    folder = trials.runs / "single" / "trial"
    printed = tmp_path / "former.txt"
    codes: list[int] = []

    def run_former() -> None:
        codes.append(trials.run(*SMALL, patch=remove_and_train_anew, terminal=str(printed)).code)

    former = threading.Thread(target=run_former)
    former.start()
    deadline = time.monotonic() + 120
    while not (folder.parent / "gone").exists():
        assert time.monotonic() < deadline
        assert former.is_alive()
        time.sleep(0.02)
    successor = trials.run(*SMALL)
    former.join(120)
    output = printed.read_text()
    assert codes == [1], output
    assert output.strip().splitlines()[-1] == f"{folder}: another attempt has begun here anew"
    assert "Traceback" not in output
    assert successor.code == 0, successor.output
    assert successor.rows == undisturbed.rows
    assert successor.log == undisturbed.log
    assert successor.record["attempts"] == 1
