"""Pretrained encoders by folder or name; one clear line where there is none."""

from __future__ import annotations

import pytest
from transformers import AutoModel, BertConfig, BertModel

from mlmodeldev.errors import UsageError
from mlmodeldev.training.pretrained import pretrained

TINY = BertConfig(
    vocab_size=11,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=8,
    max_position_embeddings=8,
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    # huggingface_hub read its variables when it was imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_folder_is_loaded_with_its_weights(tmp_path):
    original = BertModel(TINY)
    original.save_pretrained(tmp_path)
    loaded = pretrained(AutoModel, str(tmp_path))
    ours, theirs = original.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_arguments_reach_the_loader(tmp_path):
    BertModel(TINY).save_pretrained(tmp_path)
    assert pretrained(BertModel, str(tmp_path), add_pooling_layer=False).pooler is None


@pytest.mark.parametrize("name", ["no-such/model", "/no/such/folder", "a b", ""])
def test_a_name_that_leads_nowhere_is_reported_in_one_line(name):
    with pytest.raises(UsageError) as error:
        pretrained(AutoModel, name)
    text = str(error.value)
    assert text.startswith(f"{name!r} can't be loaded as AutoModel: ")
    assert "config.json" in text
    assert "\n" not in text


def test_a_folder_without_a_model_and_one_with_a_torn_file(tmp_path):
    with pytest.raises(UsageError, match="can't be loaded"):
        pretrained(AutoModel, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "be')
    with pytest.raises(UsageError, match="can't be loaded"):
        pretrained(AutoModel, str(tmp_path))


def test_torn_weights_are_reported_in_one_line(tmp_path):
    BertModel(TINY).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(UsageError, match="can't be loaded as AutoModel") as error:
        pretrained(AutoModel, str(tmp_path))
    assert "\n" not in str(error.value)


def test_an_error_without_words_is_named_by_its_kind():
    class Silent:
        @classmethod
        def from_pretrained(cls, name, **options):
            raise OSError

    with pytest.raises(UsageError, match="as Silent: OSError"):
        pretrained(Silent, "x")
