"""Tokenizers trained in a moment: they read back what they wrote, and load like any other."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from mlmodeldev.data.tokens import train_tokenizer

TEXTS = ["A handwritten seven", "the digit two", "someone wrote a nine", "the digit seven"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=80)


def test_texts_come_back_in_lower_case(tokenizer):
    for text in TEXTS:
        assert (
            tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text.lower()
        )


def test_texts_are_framed_and_padded_as_berts_are(tokenizer):
    encoded = tokenizer(["the digit two", "someone wrote a nine"], padding=True)
    names = [tokenizer.convert_ids_to_tokens(ids) for ids in encoded["input_ids"]]
    assert {each[0] for each in names} == {"[CLS]"}
    assert names[1][-1] == "[SEP]" or names[0][-1] == "[SEP]"
    for tokens, mask in zip(names, encoded["attention_mask"], strict=True):
        assert tokens.count("[SEP]") == 1
        assert [token != "[PAD]" for token in tokens] == [bool(bit) for bit in mask]
    pair = tokenizer.convert_ids_to_tokens(tokenizer("two", "nine")["input_ids"])
    assert pair.count("[SEP]") == 2


def test_padding_is_token_0_as_bert_configurations_assume(tokenizer):
    assert tokenizer.pad_token_id == 0
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3, 4]


def test_what_was_never_seen_is_unknown(tokenizer):
    assert tokenizer.unk_token_id in tokenizer("日本")["input_ids"]


def test_the_vocabulary_has_a_limit():
    many = [f"word{number} other{number * 7}" for number in range(500)]
    assert len(train_tokenizer(many, vocab_size=60)) == 60


def test_training_is_the_same_each_time():
    # Otherwise a trial would depend on the machine that happened to prepare its data first.
    for texts, size in ((TEXTS, 80), ([chr(97 + n % 26) + str(n * n) for n in range(300)], 120)):
        vocabularies = [train_tokenizer(texts, size).get_vocab() for _ in range(6)]
        assert all(each == vocabularies[0] for each in vocabularies)


def test_it_loads_from_its_folder_and_does_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert loaded.pad_token == "[PAD]"
