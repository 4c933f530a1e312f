"""CoLA's files: read exactly or refused with file and line; tokens made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from datamodule import Digits
from examples import cola
from examples.cola import Cola
from mlmodeldev.data.loader import EpochIndex
from mlmodeldev.data.tokens import train_tokenizer
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from tests.small_data import rows, set_up, write_cola


def test_cola_sentences_labels_and_tokens(data_dir, cola_files) -> None:
    made = set_up(Cola, data_dir)
    dev = rows(1, 80)
    for place, (text, label) in enumerate(dev):
        example = made.val_set[EpochIndex(place, 0)]
        assert int(example["label"]) == label
        back = made.tokenizer.decode(example["input_ids"], skip_special_tokens=True)
        assert back.replace(" ", "") == text.lower().replace(" ", "")
        assert int(example["attention_mask"].sum()) == len(made.tokenizer(text)["input_ids"])
        assert made.describe(place) == {"text": text}
    train = rows(0, 400)
    for place in range(50):
        example = made.train_set[EpochIndex(place, 0)]
        assert int(example["label"]) == train[example["index"]][1]


def test_cola_keeps_quotes_as_they_are(tmp_path) -> None:
    file = tmp_path / "x.tsv"
    file.write_text('a\t1\t\t"Yes, he said.\nb\t0\t*\tHe "said" naïve.\n', encoding="utf-8")
    assert cola.read_cola(file) == [('"Yes, he said.', 1), ('He "said" naïve.', 0)]


@pytest.mark.parametrize(
    "line", [b"gj04\t1\tno mark\n", b"gj04\t2\t\tA text.\n", b"no tabs\n", b"g\t1\t\tna\xefve\n"]
)
def test_malformed_line_is_named(tmp_path, line) -> None:
    folder = write_cola(tmp_path)
    file = folder / "in_domain_dev.tsv"
    file.write_bytes(file.read_bytes() + line)
    with pytest.raises(UsageError, match=r"in_domain_dev\.tsv:81: ") as caught:
        set_up(Cola, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.rglob("tokens-*")) == []  # nothing half done is left


def test_empty_file_is_named(tmp_path) -> None:
    (write_cola(tmp_path) / "in_domain_train.tsv").write_text("")
    with pytest.raises(UsageError, match=r"in_domain_train\.tsv: is empty"):
        set_up(Cola, tmp_path)


@pytest.mark.parametrize("missing", [["train"], ["dev"], ["train", "dev"]])
def test_missing_files_say_what_to_put_where(tmp_path, missing) -> None:
    folder = write_cola(tmp_path)
    for name in missing:
        (folder / f"in_domain_{name}.tsv").unlink()
    with pytest.raises(UsageError) as caught:
        set_up(Cola, tmp_path)
    message = str(caught.value)
    assert str(folder) in message
    assert "https://nyu-mll.github.io/CoLA/cola_public_1.1.zip" in message
    assert "9f6d88c3558ec424cd9d66ea03589aba" in message
    for name in ("train", "dev"):
        assert (f"in_domain_{name}.tsv" in message) == (name in missing)


def test_tokens_are_made_once_and_again_for_other_content(tmp_path) -> None:
    folder = write_cola(tmp_path)

    def caches() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in tmp_path.rglob("tokens-*/*.npy")}

    set_up(Cola, tmp_path)
    first = caches()
    os.utime(folder / "in_domain_dev.tsv")  # younger, but the same
    set_up(Cola, tmp_path)
    assert caches() == first
    with (folder / "in_domain_dev.tsv").open("a") as file:
        file.write("gj04\t1\t\tThe poet sees the cat.\n")
    changed = set_up(Cola, tmp_path)
    assert len(changed.val_set) == 81
    assert len(caches()) == 2 * len(first)
    assert len(set_up(Cola, tmp_path, max_length=5).val_set[EpochIndex(0, 0)]["input_ids"]) == 5


def test_a_tokenizer_by_folder_is_taken_as_it_is_there(tmp_path) -> None:
    """Also when another one is in the folder later."""
    write_cola(tmp_path)
    named = tmp_path / "mine"
    for texts in (["the cat sees the dog"], ["letters and birds"]):
        train_tokenizer(texts, vocab_size=60).save_pretrained(named)
        theirs = AutoTokenizer.from_pretrained(named).get_vocab()
        for kind in (Cola, Digits):
            assert set_up(kind, tmp_path, tokenizer=str(named)).tokenizer.get_vocab() == theirs


def test_unknown_tokenizer(tmp_path) -> None:
    write_cola(tmp_path)
    for kind in (Cola, Digits):
        with pytest.raises(UsageError, match="'nobody/none' can't be loaded"):
            set_up(kind, tmp_path, tokenizer="nobody/none")


def test_a_pretrained_encoder_brings_its_tokenizer() -> None:
    """Ids of another tokenizer would mean nothing to it, and nobody would notice."""
    cola = compose_settings(["experiment=cola", "model.encoder=some/bert"])
    assert cola.data["tokenizer"] == "some/bert"
    assert compose_settings(["model.text=some/bert"]).data["tokenizer"] == "some/bert"
    assert compose_settings(["experiment=cola"]).data["tokenizer"] is None
    assert compose_settings(["data=cola"]).data["tokenizer"] is None
