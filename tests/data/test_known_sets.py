"""The published datasets, end to end: small archives of the same layout, from a private mirror.

What comes out is held against what was drawn, not against the readers.
"""

from __future__ import annotations

import gzip
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodule import Images
from examples.coco import CocoCaptions
from examples.cola import Cola, Sst2
from mlmodeldev.data import tokens
from mlmodeldev.data.loader import EpochIndex
from mlmodeldev.data.readers import read_idx
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch import manifest
from tests.data.published import SETS
from tests.fetch.fault_server import Answer, FaultServer
from tests.small_data import (
    COLOURS,
    cifar_records,
    coco_files,
    grey_images,
    idx,
    photo,
    rows,
    set_up,
    zipped,
)

pytestmark = pytest.mark.usefixtures("sets")


def example(dataset, place, epoch=0):
    return dataset[EpochIndex(place, epoch)]


# --- the mirror


def test_every_set_is_fetched_from_the_mirror_alone(mirror, shared):
    for name, files in SETS.items():
        manifest.prepare(name, shared, progress=False)
        paths = [r.path for r in mirror.requests if r.path.startswith(f"/{name}/")]
        assert sorted(paths) == sorted(f"/{name}/{file}" for file in files)


def test_published_addresses_follow_the_mirrors_and_names_stay(monkeypatch):
    monkeypatch.delenv("MLMODELDEV_MANIFESTS")
    monkeypatch.setenv("MLMODELDEV_MIRROR", "https://one/sets/ file:///two")
    (entry,) = manifest.load("sst2").entries
    assert list(entry.source.urls) == [
        "https://one/sets/sst2/SST-2.zip",
        "file:///two/sst2/SST-2.zip",
        "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
    ]
    assert entry.source.name == "SST-2.zip"
    assert entry.source.sha256.startswith("d67e16fb")


def test_a_mirror_with_other_bytes_is_not_believed(tmp_path, manifests, monkeypatch):
    """The digest is the manifest's, whoever sends the bytes; the next address is asked."""
    with FaultServer() as bad, FaultServer() as good:
        body = SETS["sst2"]["SST-2.zip"]
        bad.add("sst2/SST-2.zip", zipped({"SST-2/train.tsv": b"x"}), then=Answer(length=False))
        good.add("sst2/SST-2.zip", body)
        monkeypatch.setenv("MLMODELDEV_MIRROR", f"{bad.url('')} {good.url('')}")
        folder = manifest.prepare("sst2", tmp_path, progress=False)
        assert (folder / "SST-2.zip").read_bytes() == body
        assert (len(bad.requests), len(good.requests)) == (1, 2)


def test_wrong_variables_are_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("MLMODELDEV_MIRROR", "ftp//host")
    with pytest.raises(UsageError, match=r"MLMODELDEV_MIRROR: .*is not an address"):
        manifest.load("sst2")
    monkeypatch.setenv("MLMODELDEV_MANIFESTS", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"MLMODELDEV_MANIFESTS=.*no such folder"):
        manifest.load("sst2")


def test_a_new_set_in_the_folder_is_listed_by_name(manifests, tmp_path, monkeypatch):
    folder = shutil.copytree(manifests, tmp_path / "own")
    (folder / "mine.yaml").write_text((folder / "sst2.yaml").read_text())
    monkeypatch.setenv("MLMODELDEV_MANIFESTS", str(folder))
    assert "mine" in manifest.names()
    assert manifest.load("mine").entries[0].source.urls[0].endswith("/mine/SST-2.zip")


# --- sentences


@pytest.mark.parametrize(
    ("kind", "arguments"), [(Cola, {}), (Cola, {"release": "glue"}), (Sst2, {})]
)
def test_sentences_and_labels(shared, kind, arguments):
    made = set_up(kind, shared, **arguments)
    dev = rows(1, 80)
    assert len(made.val_set) == 80
    for place in (0, 1, 40, 79):
        sample = example(made.val_set, place)
        back = made.tokenizer.decode(sample["input_ids"], skip_special_tokens=True)
        assert back.replace(" ", "") == dev[place][0].lower().replace(" ", "")
        assert int(sample["label"]) == dev[place][1]
        assert sample["input_ids"].dtype == torch.int64
    assert len(made.train_set) + len(made.test_set) == 400


def test_a_second_start_asks_for_nothing_and_makes_nothing(shared, mirror, monkeypatch):
    set_up(Cola, shared)
    mirror.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(tokens, "train_tokenizer", None)  # a call would fail
    assert len(set_up(Cola, shared).val_set) == 80
    assert mirror.requests == []


def test_sealed_without_the_file_says_what_to_place(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"Offline: place SST-2\.zip .* sha256 .* at .*sst2/SST-2"):
        set_up(Sst2, tmp_path)


def test_a_wrong_line_of_sst2_is_named(tmp_path):
    made = Sst2.read
    file = tmp_path / "dev.tsv"
    file.write_text("sentence\tlabel\ngood \t1\nno label here\n")
    with pytest.raises(UsageError, match=r"dev\.tsv:3: must be sentence and label"):
        made(file)


# --- images


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_grey_images_are_those_of_the_files(shared, name):
    made = set_up(Images, shared, name=name)
    pixels = np.concatenate([grey_images(200, 0)[0], grey_images(50, 1)[0]])
    assert [len(part) for part in (made.train_set, made.val_set, made.test_set)] == [180, 20, 50]
    training = pixels[:200] / 255
    assert made.info["image_size"] == 28
    for dataset, place in ((made.val_set, 3), (made.test_set, 49)):
        sample = example(dataset, place)
        theirs = (pixels[sample["index"]] / 255 - training.mean()) / training.std()
        np.testing.assert_allclose(sample["image"][0].numpy(), theirs, atol=1e-5)
        assert int(sample["label"]) == int(sample["index"]) % 10
        caption = made.tokenizer.decode(sample["input_ids"], skip_special_tokens=True)
        word = made.labels[sample["label"]]
        assert word.replace("-", "") in caption.replace("-", "")
    assert sorted(made.test_set.index) == list(range(200, 250))
    assert not set(made.train_set.index) & set(made.val_set.index)


def test_colours_of_cifar_are_in_their_planes(shared):
    made = set_up(Images, shared, name="cifar10")
    sample = example(made.test_set, 7)
    raw = np.frombuffer(cifar_records(20, 5), np.uint8).reshape(20, 3073)[7]
    assert (sample["image"].shape, int(sample["label"])) == ((3, 32, 32), 7)
    planes = sample["image"].numpy() * made.std + made.mean
    np.testing.assert_allclose(planes * 255, raw[1:].reshape(3, 32, 32), atol=1e-2)
    assert made.info["channels"] == 3


def test_a_damaged_idx_file_is_named(tmp_path):
    images = np.zeros((4, 28, 28))
    file = tmp_path / "a.gz"
    for content, words in (
        (idx(images)[:-9], "a.gz"),
        (b"no gzip", "a.gz: "),
        (gzip.compress(b"\0\0\x0d\1" + bytes(8)), "no IDX file of bytes"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\5abc"), "has 3 values"),
    ):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=words):
            read_idx(file)


# --- photographs with captions


@pytest.mark.parametrize("year", [2014, 2017])
def test_each_photograph_has_its_captions(shared, year):
    made = set_up(CocoCaptions, shared, year=year, image_size=16)
    assert [len(part) for part in (made.train_set, made.val_set, made.test_set)] == [27, 3, 2]
    assert not (shared / f"coco_{year}" / f"train{year}.zip").exists()  # 20 GB are freed again
    for part in (made.val_set, made.test_set):
        for place in range(len(part)):
            sample = example(part, place)
            caption = made.tokenizer.decode(sample["input_ids"], skip_special_tokens=True)
            colour = caption.split()[1]
            # The middle of the picture's left third has no stripe: its colour is the caption's.
            pixels = sample["image"][:, 8, 2] * made.std + made.mean
            np.testing.assert_allclose(pixels * 255, COLOURS[colour], atol=12)
            assert int(sample["label"]) == place
    prompts = made.prompts["input_ids"]
    assert prompts.shape == (3, 5, 32)
    for place in range(3):
        assert torch.equal(prompts[place, 0], example(made.val_set, place)["input_ids"])


def test_cutting_and_mirroring_are_functions_of_seed_epoch_and_image(shared):
    one, again = (set_up(CocoCaptions, shared, image_size=16) for _ in range(2))
    other = set_up(CocoCaptions, shared, "training.seed=1", image_size=16)
    first = [example(one.train_set, place, 2) for place in range(27)]
    backwards = [example(again.train_set, place, 2) for place in reversed(range(27))][::-1]
    whole = again.train_set.make_batch([EpochIndex(place, 2) for place in range(27)])
    for name in ("image", "input_ids"):
        stacked = torch.stack([each[name] for each in first])
        assert torch.equal(stacked, torch.stack([each[name] for each in backwards]))
        assert torch.equal(stacked, whole[name])
        for dataset, epoch in ((one.train_set, 3), (other.train_set, 2)):
            changed = [example(dataset, place, epoch)[name] for place in range(27)]
            assert not torch.equal(stacked, torch.stack(changed))
    still = set_up(CocoCaptions, shared, image_size=16, augment=False).train_set
    assert torch.equal(example(still, 5, 0)["image"], example(still, 5, 9)["image"])


def test_training_cuts_are_parts_of_the_stored_picture(shared):
    made = set_up(CocoCaptions, shared, image_size=16)
    dataset = made.train_set
    for place in range(27):
        sample = example(dataset, place, 1)["image"] * made.std + made.mean
        sample = (sample * 255).round().to(torch.uint8).numpy().transpose(1, 2, 0)
        stored = dataset.images[dataset.index[place]]
        cuts = [stored[t : t + 16, s : s + 16] for t in range(3) for s in range(3)]
        fitting = [np.array_equal(sample, c) or np.array_equal(sample, c[:, ::-1]) for c in cuts]
        assert any(fitting)


@pytest.fixture
def torn(tmp_path):
    """COCO as it lies on a cluster, with one cut and one missing photograph."""
    folder = tmp_path / "coco"
    files = coco_files(2014)
    for name in ("train2014.zip", "val2014.zip", "caption_datasets.zip"):
        shutil.unpack_archive(_written(tmp_path / name, files[name]), folder)
    (folder / "train2014/COCO_train2014_000000000005.jpg").write_bytes(photo("red", 5)[:300])
    (folder / "val2014/COCO_val2014_000000000007.jpg").unlink()
    return folder


def _written(path, content):
    path.write_bytes(content)
    return path


def test_corrupt_photographs_are_an_error_with_their_number(torn, tmp_path):
    with pytest.raises(
        UsageError, match=r"2 of the images can't be decoded, such as .*000005\.jpg"
    ):
        set_up(CocoCaptions, tmp_path, folder=str(torn), image_size=16)
    assert list((tmp_path / "prepared").rglob("images-*")) == []  # nothing half done is left


def test_corrupt_photographs_can_be_left_out_and_are_counted(torn, tmp_path, caplog):
    arguments = {"folder": str(torn), "image_size": 16}
    made = set_up(CocoCaptions, tmp_path, on_corrupt="skip", **arguments)
    assert [len(part) for part in (made.train_set, made.val_set, made.test_set)] == [26, 2, 2]
    assert {5, 7} & {*made.train_set.index, *made.val_set.index, *made.test_set.index} == set()
    assert caplog.text.count("2 of the images can't be decoded") == 1
    caption = made.tokenizer.decode(example(made.val_set, 0)["input_ids"], skip_special_tokens=True)
    assert made.label_names[0].lower().replace(" ", "").startswith(caption.replace(" ", "")[:9])
    with pytest.raises(UsageError, match="on_corrupt=skip"):  # also from the prepared data
        set_up(CocoCaptions, tmp_path, **arguments)


def test_a_folder_without_coco_is_reported(tmp_path):
    with pytest.raises(UsageError, match=r"dataset_coco\.json: No such file"):
        set_up(CocoCaptions, tmp_path, folder=str(tmp_path))


def test_photographs_are_decoded_as_a_reader_sees_them(shared):
    """Pillow's whole decoding, cut to the middle, is what is stored, but for JPEG's shrinking."""
    made = set_up(CocoCaptions, shared, image_size=32)
    number = int(made.val_set.index[0])
    colour = made.records[number].captions[0].split()[1]
    image = Image.open(io.BytesIO(photo(colour, number))).convert("RGB")
    theirs = image.resize((36, 36), Image.Resampling.BOX, (10, 0, 50, 40))
    np.testing.assert_allclose(made.val_set.images[number], np.asarray(theirs), atol=2)


def test_the_stage_setting_reaches_the_data(shared, tmp_path):
    made = set_up(Cola, shared, f"processing.stage={tmp_path}/node")
    (local,) = (tmp_path / "node").glob("tokens-*")
    assert Path(made.val_set.arrays["input_ids"].filename).parent == local
    assert made.folders["cola/tokens"].is_relative_to(shared)
