"""Encoders: sizes that fit, towers from a folder, one clear error for all else."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from examples.text_classifier import TextClassifier
from mlmodeldev.errors import UsageError
from model import DualEncoder
from tests.small_data import pairs

TINY_TOWER = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.mark.parametrize("kind", [DualEncoder, TextClassifier])
def test_width_must_divide_among_the_heads(kind) -> None:
    with pytest.raises(UsageError, match=r"model\.hidden_size=18.*multiple of model\.num_heads=4"):
        kind(hidden_size=18, num_layers=1, num_heads=4)


@pytest.fixture(scope="module")
def towers() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    vision = ViTConfig(image_size=8, patch_size=4, num_channels=1, **TINY_TOWER)
    bert = BertConfig(vocab_size=100, max_position_embeddings=16, **TINY_TOWER)
    return {"image": ViTModel(vision).eval(), "text": BertModel(bert).eval()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, towers) -> dict[str, str]:
    """The towers as transformers saves them."""
    folder = tmp_path_factory.mktemp("towers")
    for name, tower in towers.items():
        tower.save_pretrained(folder / name)
    return {name: str(folder / name) for name in towers}


@torch.inference_mode()
def test_towers_from_folders(towers, folders) -> None:
    model, batch = DualEncoder(**folders, projection=12).eval(), pairs(3)
    wanted = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for ours, theirs, inputs in (
        (model.image, towers["image"], {"pixel_values": batch["image"]}),
        (model.text, towers["text"], wanted),
    ):
        assert torch.equal(ours(**inputs).pooler_output, theirs(**inputs).pooler_output)
    assert [tuple(embedded.shape) for embedded in model(batch)] == [(3, 12), (3, 12)]


@torch.inference_mode()
def test_classifier_from_a_folder_keeps_the_encoder_and_gets_a_new_head(towers, folders) -> None:
    metadata = {"num_classes": 3, "vocab_size": 100, "max_length": 16}
    model, batch = TextClassifier(encoder=folders["text"], **metadata).eval(), pairs(2)
    wanted = {name: batch[name] for name in ("input_ids", "attention_mask")}
    theirs = towers["text"](**wanted).last_hidden_state
    assert torch.equal(model.encoder.base_model(**wanted).last_hidden_state, theirs)
    assert model(batch).shape == (2, 3)


@pytest.mark.parametrize(
    ("kind", "argument"),
    [(DualEncoder, "image"), (DualEncoder, "text"), (TextClassifier, "encoder")],
)
def test_unknown_encoder(kind, argument) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**{argument: "nobody/has-this-model"})
    message = str(caught.value)
    assert message.startswith("'nobody/has-this-model' can't be loaded")
    assert "Hub's cache" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", ["", "{", '{"model_type": "no-such-type"}'])
def test_folder_that_is_no_encoder(tmp_path, content) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match="can't be loaded as") as caught:
        TextClassifier(encoder=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "metadata", "printed"),
    [
        ("image", {"image_size": 28}, "image_size=8.*data.*28"),
        ("image", {"channels": 3}, "num_channels=1.*data.*3"),
        ("text", {"vocab_size": 5000}, "vocab_size=100.*data.*5000"),
        ("text", {"max_length": 64}, "max_position_embeddings=16.*data.*64"),
    ],
)
def test_encoder_that_does_not_fit_the_data(folders, argument, metadata, printed) -> None:
    with pytest.raises(UsageError, match=printed):
        DualEncoder(**{argument: folders[argument]}, **metadata)
