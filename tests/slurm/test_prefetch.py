"""``SlurmTrain.py prefetch``: afterwards a trial starts without any network at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlmodeldev.data.tokens import train_tokenizer
from tests.slurm.hub_server import HubServer
from tests.small_data import small_sets, write_manifests

ROOT = Path(__file__).resolve().parents[2]
UNSHARE = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
SWEEP = """
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {values: [0.01, 0.02]}
  training.seed: {values: [0, 1]}
  model.encoder: {values: [lab/tiny, lab/other]}
"""


def cut_off() -> bool:
    """Whether this machine lets us start a process without a network."""
    return (
        shutil.which("unshare") is not None
        and not subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Two small encoders with their tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    folders = {}
    for number, name in enumerate(("lab/tiny", "lab/other")):
        folder = folders[name] = tmp_path_factory.mktemp("hub") / name
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = BertConfig(vocab_size=200, intermediate_size=16 + number, **sizes)
        BertForSequenceClassification(config).save_pretrained(folder)
        texts = ["The cat sees the dog.", "The poet forgets the letter."]
        train_tokenizer(texts, 200).save_pretrained(folder)
    with HubServer(folders) as server:
        yield server


@pytest.fixture
def machine(hub, tmp_path, monkeypatch):
    """Environment of a login node, and a way to run the project's commands in it."""
    sets = {"cola_public": small_sets()["cola_public"]}
    for name, files in sets.items():
        (tmp_path / "mirror" / name).mkdir(parents=True)
        for file, body in files.items():
            (tmp_path / "mirror" / name / file).write_bytes(body)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "MLMODELDEV_MIRROR": (tmp_path / "mirror").as_uri(),
        "MLMODELDEV_MANIFESTS": str(write_manifests(tmp_path / "manifests", sets)),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(SWEEP)

    def run(*command, prefix=(), **changes):
        return subprocess.run(
            [*prefix, sys.executable, *command],
            cwd=ROOT, env={**environment, **changes}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    run.folder, run.sweep = tmp_path, sweep
    return run


@pytest.mark.skipif(not cut_off(), reason="no network namespaces here")
def test_after_prefetch_a_trial_needs_no_network(machine, hub):
    here = [
        "data=cola",
        "model=text_classifier",
        "logger=csv",
        f"artefacts.data_dir={machine.folder / 'data'}",
        f"artefacts.runs_dir={machine.folder / 'runs'}",
    ]
    done = machine(
        "slurm/SlurmTrain.py", "prefetch", "--sweep", str(machine.sweep), "--json", *here
    )
    assert done.returncode == 0, done.stderr
    fetched = {(each["kind"], each["name"]): each for each in json.loads(done.stdout)}
    assert {name for kind, name in fetched if kind == "model"} == {"lab/tiny", "lab/other"}
    assert ("data", "cola_public") in fetched
    for each in fetched.values():
        command = ["du", "-sb", "--apparent-size", each["path"]]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        assert 0 < each["bytes"] <= int(listed.stdout.split()[0])  # du counts folders, too

    shutil.rmtree(machine.folder / "mirror")
    requests = len(hub.requests)
    trial = machine(
        "trainer.py", *here, "model.encoder=lab/other", "debug=fast", "artefacts.trial=sealed",
        prefix=UNSHARE, HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert trial.returncode == 0, trial.stderr
    assert Path(trial.stdout.split()[-1]) == machine.folder / "runs" / "single" / "sealed"
    assert len(hub.requests) == requests


def test_what_cannot_be_had_is_one_line(machine):
    done = machine(
        "slurm/SlurmTrain.py", "prefetch", "--sweep", str(machine.sweep), "data=cola",
        "model=text_classifier", f"artefacts.data_dir={machine.folder / 'data'}",
        "data.release=glue", MLMODELDEV_OFFLINE="1", MLMODELDEV_MIRROR="", MLMODELDEV_MANIFESTS="",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Offline: place CoLA.zip" in done.stderr


def kinds_of(text: str, tmp_path, *overrides: str) -> list[tuple]:
    """What differs among the settings that prefetch goes through."""
    import argparse

    from mlmodeldev.slurm.commands.prefetch import add_prefetch_options, kinds
    from mlmodeldev.slurm.sweep_state import read_sweep_state

    (tmp_path / "s.yaml").write_text(text)
    parser = argparse.ArgumentParser()
    add_prefetch_options(parser)
    where = f"artefacts.runs_dir={tmp_path}/runs"
    args = parser.parse_args(["--sweep", str(tmp_path / "s.yaml"), where, *overrides])
    settings = kinds(read_sweep_state(args, lint=False))
    return [(s.data["max_length"], s.model["encoder"], s.processing.stage) for s in settings]


@pytest.mark.parametrize("method", ["grid", "bayes"])
def test_each_kind_of_trial_once_and_no_more(tmp_path, method):
    """Rates, seeds and widths need nothing; encoders and the data's settings do."""
    text = f"""
method: {method}
metric: {{name: val/accuracy, goal: maximize}}
parameters:
  optimizer.lr: {{values: [0.01, 0.02, 0.03]}}
  model.hidden_size: {{values: [16, 32]}}
  model.encoder: {{values: [null, lab/tiny]}}
  data.max_length: {{values: [16, 32]}}
"""
    kinds = kinds_of(text, tmp_path, "data=cola", "model=text_classifier")
    wanted = [(n, name, "never") for n in (16, 32) for name in (None, "lab/tiny")]
    assert sorted(kinds, key=str) == sorted(wanted, key=str)
