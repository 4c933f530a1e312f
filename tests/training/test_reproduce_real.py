"""Real trials run again: the digits bit for bit, and one whose data a server sends otherwise."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Trials, in_fork
from tests.fetch.fault_server import FaultServer
from tests.training.own_project import Project
from tests.training.reproduce_calls import OFFLINE, answer, online

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("logger=csv", "model.hidden_size=16", "model.num_layers=1", "training.max_epochs=2"),
    *("training.limit_train_batches=6", "training.limit_val_batches=2"),
    *("training.log_every_n_steps=2", "callbacks.cka.enabled=false"),
)


@pytest.mark.slow
def test_the_digits_come_out_bit_for_bit(
    trials: Trials,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = trials.run(*SMALL)
    assert trial.code == 0, trial.output
    monkeypatch.chdir(ROOT)
    place = str(tmp_path / "again")
    status, report = answer(capsys, "reproduce", str(trial.folder), "--to", place)
    assert (report["differences"], report["verdict"], status) == ([], "reproduced", 0)
    assert report["rows"] == len(trial.rows)
    assert report["tensors"] > 20


FETCHED = """
import numpy as np
import torch
from torch.utils.data import TensorDataset
from mlmodeldev.data.module import ExactDataModule


class ByIndex:
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, item):
        return self.data[item.index]


class Points(ExactDataModule):
    in_memory = True
    info = {"classes": 3, "labels": ["a", "b", "c"]}

    def prepare_data(self):
        self.dataset("points.yaml")

    def setup(self, stage=None):
        file = self.dataset("points.yaml") / "points.npy"
        self.digest(file)
        x = torch.from_numpy(np.load(file))
        self.train_set = self.val_set = ByIndex(TensorDataset(x, x[:, :3].argmax(1)))
"""


def train_here(root: str) -> None:
    os.chdir(root)
    os.environ["MLMODELDEV_PROJECT"] = root
    for name in OFFLINE:
        os.environ.pop(name, None)
    sys.path.insert(0, root)
    import trainer
    from mlmodeldev.settings.composition import compose_settings

    options = ("data=points", "model=net", "logger=csv", "callbacks=none", "artefacts.trial=a")
    more = ("training.max_epochs=1", "training.test=false", "training.monitor=val_loss")
    last = ("training.mode=min", "training.accelerator=cpu", "artefacts.rehearsal=false")
    trainer.train(compose_settings([*options, *more, *last]))


@pytest.mark.slow
def test_a_source_that_sends_another_byte_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real trial of one's own classes; its manifest knows the digest."""
    online(monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    project = Project.make(tmp_path / "own")
    project.write("points.py", FETCHED)
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(7).standard_normal((64, 8), np.float32))
    content = buffer.getvalue()
    with FaultServer() as server:
        server.add("points.npy", content)
        digest = hashlib.sha256(content).hexdigest()
        source = {"urls": [server.url("points.npy")], "sha256": digest, "bytes": len(content)}
        project.write("points.yaml", json.dumps({"files": [source]}))
        printed = tmp_path / "printed.txt"
        assert in_fork(printed, train_here, str(project.root)) == 0, printed.read_text()
        monkeypatch.chdir(project.root)
        server.add("points.npy", content[:-1] + bytes([content[-1] ^ 1]), etag='"v2"')
        status, report = answer(capsys, "reproduce", "a", "--fetch")
    assert (status, report["verdict"]) == (1, "failed")
    culprit = report["culprit"]
    assert (culprit["kind"], culprit["name"]) == ("data", "points.npy")
    assert culprit["a"] == f"sha256 {digest[:16]}"
    assert culprit["b"].startswith("sha256 ")
    (data,) = Path(report["folder"]).glob("data/points")
    assert not (data / "points.npy").exists()  # what is wrong is not kept
