"""Trials of the published datasets: fetched from a mirror, prepared, trained, killed."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from examples.coco import CocoCaptions
from tests.data.published import use_mirror
from tests.small_data import set_up

pytestmark = pytest.mark.usefixtures("sets")

SMALL = (
    "logger=csv",
    "callbacks.cka.enabled=false",
    "model.hidden_size=16",
    "model.num_layers=1",
    "optimizer.lr=0.01",
)


def test_a_trial_of_cola_from_nothing(mirror, manifests, tmp_path, trials):
    trials.data = tmp_path / "data"
    ended = trials.run(
        "data=cola",
        "model=text_classifier",
        "model.dropout=0",
        "training.max_epochs=4",
        *SMALL,
        patch=partial(use_mirror, mirror.url("").rstrip("/"), manifests),
    )
    assert ended.code == 0, ended.output
    assert ended.record["metric"]["value"] > 0.9  # the grammar is learned
    assert [request.path for request in mirror.requests] == ["/cola_public/cola_public_1.1.zip"]
    assert set(ended.record["data"]["inputs"]) == {
        f"cola_public/cola_public/raw/in_domain_{part}.tsv" for part in ("train", "dev")
    }


def test_a_trial_of_coco_captions_from_nothing(mirror, manifests, tmp_path, trials):
    trials.data = tmp_path / "data"
    ended = trials.run(
        "data=coco_captions",
        "data.image_size=16",
        "processing.batch_size=9",
        "training.max_epochs=2",
        *SMALL,
        patch=partial(use_mirror, mirror.url("").rstrip("/"), manifests),
    )
    assert ended.code == 0, ended.output
    assert 0 <= ended.record["test"]["test/accuracy"] <= 1
    samples = (ended.folder / "samples.csv").read_text()
    assert "COCO_val2014" in samples
    assert (ended.folder / "best" / "model.safetensors").is_file()


def test_a_killed_trial_of_coco_captions_ends_with_the_same_weights(manifests, shared, trials):
    """Cutting, mirroring and captions are drawn in two worker processes."""
    trials.data = shared
    set_up(CocoCaptions, shared, image_size=16)  # fetched and prepared beforehand
    overrides = (
        "data=coco_captions",
        "data.image_size=16",
        "processing.batch_size=9",
        "processing.num_workers=2",
        "training.max_epochs=3",
        "training.checkpoint_every_n_steps=1",
        "training.test=false",
        *SMALL,
    )
    patch = partial(use_mirror, "file:///nowhere", manifests)  # all is there already
    whole = trials.run(*overrides, name="whole", patch=patch)
    assert whole.code == 0, whole.output
    trials.run(*overrides, name="killed", patch=patch, kill_at=5)
    killed = trials.run(*overrides, name="killed", patch=patch)
    assert killed.code == 0, killed.output
    assert killed.record["attempts"] == 2
    weights = [load_file(each.folder / "last" / "model.safetensors") for each in (whole, killed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert whole.rows == killed.rows
