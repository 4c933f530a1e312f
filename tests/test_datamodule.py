"""The data: the right digits with the right captions, shifted only where they should be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from datamodule import Digits
from examples.cola import Cola
from mlmodeldev.data import tokens
from mlmodeldev.data.images import read_image
from mlmodeldev.data.loader import EpochIndex
from mlmodeldev.data.readers import read_digits
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.training.ranks import World
from tests.small_data import set_up


def numbers(dataset) -> list[int]:
    return [int(dataset[EpochIndex(place, 0)]["index"]) for place in range(len(dataset))]


@pytest.fixture(scope="module")
def digits(data_dir) -> Digits:
    return set_up(Digits, data_dir)


# --- digits


def test_digits_are_those_of_scikit_learn() -> None:
    images, labels = read_digits()
    theirs = load_digits()
    assert np.array_equal(images, theirs.images)
    assert np.array_equal(labels, theirs.target)


def test_an_example_is_the_image_it_says(digits) -> None:
    theirs = load_digits()
    for place in range(0, len(digits.val_set), 17):
        example = digits.val_set[EpochIndex(place, 0)]
        pixels = example["image"][0].numpy() * digits.std + digits.mean
        np.testing.assert_allclose(pixels * 16, theirs.images[example["index"]], atol=1e-4)
        assert example["label"] == theirs.target[example["index"]]


def test_pixels_are_normalised(digits) -> None:
    whole = torch.stack([digits.val_set[EpochIndex(place, 0)]["image"] for place in range(359)])
    assert abs(float(whole.mean())) < 0.02
    assert abs(float(whole.std()) - 1) < 0.02


@pytest.mark.parametrize("kind", [Digits, Cola])
def test_splits_are_disjoint_complete_and_seeded(kind, data_dir, cola_files) -> None:
    made = [set_up(kind, data_dir, split_seed=seed) for seed in (0, 0, 1)]
    one, same, other = ([numbers(part) for part in (m.train_set, m.test_set)] for m in made)
    assert one == same
    assert sorted(one[0]) != sorted(other[0])
    for module, (train, test) in zip(made, (one, same, other), strict=True):
        rest = numbers(module.val_set) if kind is Digits else []  # CoLA has a file of its own
        count = 1797 if kind is Digits else 400
        assert sorted(train + test + rest) == list(range(count))
        assert len(test) == round(count / 10)


def test_the_split_is_not_that_of_the_training_seed(data_dir, digits) -> None:
    other = set_up(Digits, data_dir, "training.seed=7")
    assert numbers(other.val_set) == numbers(digits.val_set)


def test_fractions_that_leave_nothing(data_dir) -> None:
    with pytest.raises(UsageError, match="leave nothing to train on"):
        set_up(Digits, data_dir, val_fraction=0.6, test_fraction=0.4)


WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_captions_name_the_right_word(digits) -> None:
    seen = set()
    for place, epoch in itertools.product(range(0, len(digits.train_set), 10), range(3)):
        example = digits.train_set[EpochIndex(place, epoch)]
        caption = digits.tokenizer.decode(example["input_ids"], skip_special_tokens=True)
        assert [word for word in caption.split() if word in WORDS] == [WORDS[example["label"]]]
        assert "[UNK]" not in digits.tokenizer.decode(example["input_ids"])
        seen.add(caption)
    assert len(seen) == 50  # ten words, five phrasings


def test_all_prompts_of_zero_shot_name_their_class(digits) -> None:
    for label, phrasings in enumerate(digits.prompts["input_ids"]):
        for ids in phrasings:
            text = digits.tokenizer.decode(ids, skip_special_tokens=True)
            assert [word for word in text.split() if word in WORDS] == [WORDS[label]]


def test_augmentation_is_a_function_of_seed_epoch_and_index(data_dir, digits) -> None:
    again, other = (set_up(Digits, data_dir, f"training.seed={seed}") for seed in (0, 1))
    places = range(200)

    def images(made, epoch) -> torch.Tensor:
        return torch.stack([made.train_set[EpochIndex(p, epoch)]["image"] for p in places])

    first = images(digits, 0)
    backwards = [again.train_set[EpochIndex(p, 0)]["image"] for p in reversed(places)]
    assert torch.equal(first, torch.stack(backwards[::-1]))
    assert not torch.equal(first, images(digits, 1))
    assert not torch.equal(first, images(other, 0))


def test_augmentation_moves_by_a_pixel_at_most(digits) -> None:
    """Every image is one of the nine shifts of its original; about half are moved."""
    plain, moved = load_digits().images / 16, 0
    for place in range(300):
        example = digits.train_set[EpochIndex(place, 5)]
        pixels = example["image"][0].numpy() * digits.std + digits.mean
        padded = np.pad(plain[example["index"]], 1, mode="edge")
        shifts = [padded[r : r + 8, c : c + 8] for r, c in itertools.product(range(3), repeat=2)]
        fitting = [np.allclose(pixels, shifted, atol=1e-5) for shifted in shifts]
        assert any(fitting)
        moved += not fitting[4]
    assert 90 < moved < 170  # 1 - (3/4)^2 = 44 %


def test_augmentation_is_off_in_validation_and_on_request(data_dir, digits) -> None:
    still = set_up(Digits, data_dir, augment=False)
    for dataset in (digits.val_set, digits.test_set, still.train_set):
        for place in range(40):
            example, later = dataset[EpochIndex(place, 0)], dataset[EpochIndex(place, 9)]
            assert torch.equal(example["image"], later["image"])
            assert torch.equal(example["input_ids"], later["input_ids"])


def test_the_tokenizer_is_trained_once(tmp_path, monkeypatch) -> None:
    first = set_up(Digits, tmp_path)
    monkeypatch.setattr(tokens, "train_tokenizer", None)  # a call would fail
    again = set_up(Digits, tmp_path)
    assert again.tokenizer.get_vocab() == first.tokenizer.get_vocab()


def test_nothing_is_set_in_prepare_data(tmp_path, cola_files) -> None:
    """Only one process of a trial calls it."""
    for kind, folder in ((Digits, tmp_path), (Cola, cola_files.parent)):
        made = kind()
        made.attach(compose_settings([f"artefacts.data_dir={folder}"]), World())
        before = set(vars(made))
        made.prepare_data()
        assert set(vars(made)) == before


def test_describe_draws_the_image(digits) -> None:
    index = numbers(digits.val_set)[0]
    drawn = digits.describe(index)["image"].split("/")
    assert [len(row) for row in drawn] == [8] * 8
    dark = np.array([[" .:*#".index(pixel) for pixel in row] for row in drawn])
    assert np.corrcoef(dark.ravel(), load_digits().images[index].ravel())[0, 1] > 0.95


# --- images of files


def test_read_image_scales_and_normalises(tmp_path) -> None:
    from PIL import Image

    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", size=8, channels=1, mean=0.25, std=0.5)
    np.testing.assert_allclose(read.numpy(), (grey[None] / 255 - 0.25) / 0.5, atol=1e-6)
    assert read_image(tmp_path / "a.png", size=4, channels=3, mean=0, std=1).shape == (3, 4, 4)


def test_read_image_refuses(tmp_path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for name, reason in (("gone.png", "no such file"), ("text.png", "is no image")):
        with pytest.raises(UsageError, match=rf"{name}: {reason}"):
            read_image(tmp_path / name, size=8, channels=1, mean=0, std=1)
