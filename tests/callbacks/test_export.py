"""``best/`` and ``last/`` load by transformers alone, and hold the weights that they claim."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.text_classifier import TextClassifier
from model import DualEncoder
from tests.callbacks import patches
from tests.small_data import rows

# Runs in a process that knows transformers and nothing of this project.
FRESH = """
import json, sys
import numpy as np, torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

assert not any(n.partition(".")[0] == "mlmodeldev" for n in sys.modules)
for folder, answer in json.loads(sys.argv[1]):
    inputs = {k: torch.from_numpy(v) for k, v in np.load(answer + ".inputs.npz").items()}
    kind = AutoModel if "pixel_values" in inputs else AutoModelForSequenceClassification
    with torch.inference_mode():
        output = kind.from_pretrained(folder).eval()(**inputs)
    logits = output.logits_per_image if kind is AutoModel else output.logits
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = json.load(open(answer + ".texts.json"))
    ids = tokenizer(texts)["input_ids"]
    decoded = tokenizer.batch_decode(ids, skip_special_tokens=True)
    np.savez(answer, logits=logits.numpy())
    json.dump({"ids": ids, "decoded": decoded}, open(answer + ".json", "w"))
"""
TEXTS = {
    "digits": ["a handwritten seven", "someone wrote a two"],
    "grammar": [text for text, _ in rows(5, 4)],
}


def lightning_logits(ended, epoch: int, inputs) -> np.ndarray:
    """Logits of the module with the weights that the trial had after an epoch."""
    arguments = json.loads((ended.folder / "best" / "training_state.json").read_text())
    kind = DualEncoder if "pixel_values" in inputs else TextClassifier
    module = kind(**arguments["model_arguments"]).eval()
    module.load_state_dict(torch.load(ended.folder / f"weights-{epoch}.pt", weights_only=True))
    batch = {"image": inputs.get("pixel_values"), **inputs}
    with torch.inference_mode():
        if kind is TextClassifier:
            return module(batch).numpy()
        images, texts = module(batch)
        return (module.logit_scale.exp() * images @ texts.T).numpy()


@pytest.fixture(scope="module")
def exported(shared_trials, cola_files, tmp_path_factory):
    """Two trials whose best epoch is not the last, asked in one fresh process."""
    small = (
        "logger=csv",
        "model.hidden_size=16",
        "model.num_layers=1",
        "callbacks.cka.enabled=false",
    )
    ended = {
        "digits": shared_trials.run(
            *small,
            "training.max_epochs=3",
            "training.monitor=val/loss",
            "training.mode=max",  # the worst is "best": then it is not the last
            "training.limit_train_batches=15",
            name="export-digits",
            patch=patches.keep_weights,
        ),
        "grammar": shared_trials.run(
            *small,
            "experiment=cola",
            "training.monitor=val/loss",
            "training.mode=max",
            "training.max_epochs=3",
            name="export-grammar",
            patch=patches.keep_weights,
        ),
    }
    place = tmp_path_factory.mktemp("answers")
    draw = np.random.default_rng(0)
    ids = {"input_ids": draw.integers(5, 60, (3, 6)), "attention_mask": np.ones((3, 6), int)}
    ids["attention_mask"][1, 4:] = 0
    pixels = draw.normal(size=(4, 1, 8, 8)).astype(np.float32)
    inputs = {"digits": {"pixel_values": pixels, **ids}, "grammar": ids}
    given = []
    for name, trial in ended.items():
        assert trial.code == 0, trial.output
        for folder in ("best", "last"):
            answer = str(place / f"{name}-{folder}")
            np.savez(f"{answer}.inputs.npz", **inputs[name])
            Path(f"{answer}.texts.json").write_text(json.dumps(TEXTS[name]))
            given.append((str(trial.folder / folder), answer))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(given)], cwd=place, env=environment, check=True
    )
    return SimpleNamespace(ended=ended, place=place, inputs=inputs)


CASES = [(name, folder) for name in ("digits", "grammar") for folder in ("best", "last")]


def epoch_of(ended, folder: str) -> int:
    losses = {entry["epoch"]: entry["val/loss"] for entry in ended.log}
    return max(losses, key=losses.get) if folder == "best" else max(losses)


@pytest.mark.parametrize(("name", "folder"), CASES)
def test_fresh_process_gives_the_logits_of_that_epoch(exported, name, folder) -> None:
    ended = exported.ended[name]
    theirs = np.load(exported.place / f"{name}-{folder}.npz")["logits"]
    inputs = {key: torch.from_numpy(value) for key, value in exported.inputs[name].items()}
    wanted = epoch_of(ended, folder)
    np.testing.assert_allclose(lightning_logits(ended, wanted, inputs), theirs, atol=1e-5)
    for other in {1, 2, 3} - {wanted}:
        assert np.abs(lightning_logits(ended, other, inputs) - theirs).max() > 1e-3


@pytest.mark.parametrize("name", ["digits", "grammar"])
def test_best_is_not_last_here(exported, name) -> None:
    ended = exported.ended[name]
    assert epoch_of(ended, "best") < epoch_of(ended, "last")
    best, last = (load_file(ended.folder / f / "model.safetensors") for f in ("best", "last"))
    assert best.keys() == last.keys()
    assert any(not torch.equal(best[key], last[key]) for key in best)


@pytest.mark.parametrize(("name", "folder"), CASES)
def test_fresh_process_has_the_tokenizer_of_training(exported, name, folder, data_dir) -> None:
    from datamodule import Digits
    from examples.cola import Cola
    from tests.small_data import set_up

    answer = json.loads((exported.place / f"{name}-{folder}.json").read_text())
    module = set_up(Digits if name == "digits" else Cola, data_dir)
    assert answer["ids"] == [module.tokenizer(text)["input_ids"] for text in TEXTS[name]]
    for text, decoded in zip(TEXTS[name], answer["decoded"], strict=True):
        assert decoded.replace(" ", "") == text.lower().replace(" ", "")


@pytest.mark.parametrize(("name", "folder"), CASES)
def test_training_state_is_complete(exported, name, folder) -> None:
    ended = exported.ended[name]
    state = json.loads((ended.folder / folder / "training_state.json").read_text())
    losses = {entry["epoch"]: entry["val/loss"] for entry in ended.log}
    steps = {entry["epoch"]: entry["step"] for entry in ended.log}
    best = epoch_of(ended, "best")
    assert state["epoch"] == epoch_of(ended, folder)
    assert state["step"] == steps[state["epoch"]]
    assert state["metric"] == {"name": "val/loss", "value": losses[best], "epoch": best}
    assert state["seed"] == 0
    assert state["settings"]["training"]["monitor"] == "val/loss"
    assert (
        state["settings"]["model"]["hidden_size"] == state["model_arguments"]["hidden_size"] == 16
    )
    labels = state["data"]["labels"]
    assert len(labels) == (10 if name == "digits" else 2)


def test_an_export_is_a_start_for_another_trial(exported, shared_trials) -> None:
    """A classifier goes on from a folder: its tokenizer comes along, its weights too."""
    folder = exported.ended["grammar"].folder / "last"
    tuned = shared_trials.run(
        "experiment=cola",
        "logger=csv",
        f"model.encoder={folder}",
        "callbacks=none",
        "optimizer.lr=1e-9",
        "training.max_epochs=1",
        name="tuned",
    )
    assert tuned.code == 0, tuned.output
    before = exported.ended["grammar"].log[-1]
    assert tuned.log[0]["val/loss"] == pytest.approx(before["val/loss"], abs=1e-4)
