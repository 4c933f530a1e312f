"""A key in the environment of a trial: whatever the trial prints and writes, it is nowhere."""

import os
import re
import stat
from pathlib import Path

from mlmodeldev.secrets import mask
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.worker import launch, start_server
from tests.conftest import ROOT
from tests.secrets.planted import HEX, NEW


def test_nothing_that_a_trial_leaves_behind_holds_the_key(tmp_path: Path, data_dir: Path):
    log = tmp_path / "log.txt"
    before = os.umask(0)  # of an account that lets everybody write
    start_server(["trainer", "model", "datamodule"], ROOT)
    os.umask(before)
    overrides = [
        f"artefacts.runs_dir={tmp_path / 'runs'}",
        f"artefacts.data_dir={data_dir}",
        "model.hidden_size=8",
        "model.num_layers=1",
        "training.max_epochs=1",
        "training.limit_train_batches=2",
        "callbacks.cka.enabled=false",
        "logger.wandb.mode=offline",
    ]
    process = launch("tests.secrets.leaky", overrides, log, {"WANDB_API_KEY": HEX})
    process.join(200)
    output = log.read_text()
    assert process.exitcode == 1, output
    assert "logging in with [value of WANDB_API_KEY]" in output
    assert "ValueError: could not log in with [value of WANDB_API_KEY]" in output
    assert "command lines with the key: 0" in output
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files)
    assert [file for file in files if HEX.encode() in file.read_bytes()] == []
    made = [each for each in tmp_path.rglob("*") if each != log and not each.is_symlink()]
    assert [each for each in made if each.stat().st_mode & stat.S_IWOTH] == []
    # nothing else was taken for one: numbers, digests, paths, settings
    assert set(re.findall(r"\[(?!\d)[^\]\n]*\]", output)) <= {
        "[value of WANDB_API_KEY]",
        "['trainer']",
        "[]",
    }
    readable = [file for file in files if file.suffix in (".json", ".yaml", ".csv", ".md", ".diff")]
    assert len(readable) >= 6
    for file in readable:
        text = re.sub(r'"token": "\w+"', "", file.read_text())  # who holds the lease
        assert mask(text) == text, file


def test_a_reason_in_the_record_is_masked(tmp_path: Path):
    folder = TrialFolder(tmp_path)
    folder.update(state="failed", reason=f"ValueError: no login with {NEW}", sha=HEX)
    assert folder.read()["reason"] == "ValueError: no login with [W&B API key]"
    assert folder.read()["sha"] == HEX
