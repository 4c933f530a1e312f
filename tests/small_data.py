"""Small data: batches, DataModules set up as in a trial, and a small CoLA.

The sentences are of a small grammar: a right one has an article before each noun, a wrong one
lacks an article or doubles one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

NOUNS = ["cat", "dog", "child", "teacher", "bird", "poet", "river", "letter"]
VERBS = ["sees", "likes", "follows", "forgets", "finds"]


def sentence(draw: random.Random, right: bool) -> str:
    """Return one sentence."""
    words = ["the", draw.choice(NOUNS), draw.choice(VERBS), "the", draw.choice(NOUNS)]
    if not right:
        place = draw.choice([0, 3])
        words[place : place + 1] = draw.choice([[], ["the", "the"]])
    return " ".join(words).capitalize() + "."


def rows(seed: int, count: int) -> list[tuple[str, int]]:
    """Return sentences with their labels, half of them right."""
    draw = random.Random(seed)
    return [(sentence(draw, number % 2 == 0), 1 - number % 2) for number in range(count)]


def write_cola(data_dir: Path, train: int = 400, dev: int = 80) -> Path:
    """Write both of CoLA's files below a data folder, and return their folder."""
    folder = data_dir / "cola"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate((("train", train), ("dev", dev))):
        lines = [
            f"gj04\t{label}\t{'' if label else '*'}\t{text}\n" for text, label in rows(seed, count)
        ]
        (folder / f"in_domain_{name}.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


def set_up(kind: Any, data_dir: Path, *overrides: str, **arguments: Any) -> Any:
    """Return a DataModule as a trial would set it up."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.training.ranks import World

    settings = compose_settings([f"artefacts.data_dir={data_dir}", *overrides])
    made = kind(**arguments)
    made.attach(settings, World())
    made.prepare_data()
    made.setup("fit")
    return made


def pairs(count: int, length: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a batch of random images and texts with labels 0 and 1."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn(count, 1, 8, 8, generator=draw),
        "input_ids": torch.randint(5, 100, (count, length), generator=draw),
        "attention_mask": torch.ones(count, length, dtype=torch.long),
        "label": torch.randint(0, 2, (count,), generator=draw),
        "index": torch.arange(count),
    }


# --- the published datasets, small: archives of the same layout


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip of these members."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    """Return a tar.gz of these members."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def idx(array: np.ndarray) -> bytes:
    """Return a gzipped IDX file of bytes."""
    shape = b"".join(struct.pack(">I", size) for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes())


def cola_lines(seed: int, count: int) -> bytes:
    """Return a CoLA file."""
    lines = (
        f"gj04\t{label}\t{'' if label else '*'}\t{text}\n" for text, label in rows(seed, count)
    )
    return "".join(lines).encode()


def sst2_lines(seed: int, count: int) -> bytes:
    """Return an SST-2 file, with its head."""
    lines = (f"{text.lower()} \t{label}\n" for text, label in rows(seed, count))
    return ("sentence\tlabel\n" + "".join(lines)).encode()


def grey_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 28, 28) whose bright band tells the label."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = draw.integers(0, 60, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 6] += 180
    return images, labels


def cifar_records(count: int, seed: int) -> bytes:
    """Return a file of CIFAR-10's binary form; red is 10 times the label."""
    draw = np.random.default_rng(seed)
    records = draw.integers(0, 255, (count, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(count) % 10
    records[:, 1:1025] = 10 * records[:, :1]
    return records.tobytes()


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128,) * 3}


def photo(colour: str, number: int) -> bytes:
    """Return a JPEG of one colour, 60x40, with a stripe that tells pictures apart."""
    image = Image.new("RGB", (60, 40), COLOURS[colour])
    image.paste((255, 255, 255), (20 + number % 20, 0, 22 + number % 20, 40))
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=90)
    return packed.getvalue()


def coco_files(year: int = 2014, count: int = 32) -> dict[str, bytes]:
    """Return COCO's archives: ``count`` photographs, every fourth of val2014; Karpathy's splits."""
    members: dict[str, dict[str, bytes]] = {f"train{year}": {}, f"val{year}": {}}
    images = []
    for number in range(count):
        of_2014 = "val2014" if number % 4 == 3 else "train2014"
        split = "train" if of_2014 == "train2014" else ("restval", "val", "test")[number // 4 % 3]
        colour = list(COLOURS)[number % 4 if number % 8 < 4 else (number + 1) % 4]
        name = f"COCO_{of_2014}_{number:012d}.jpg"
        sentences = [{"raw": f"A {colour} picture,\n number {number} ({n})."} for n in range(5)]
        images.append(
            {
                "filepath": of_2014,
                "filename": name,
                "cocoid": number,
                "split": split,
                "sentences": sentences,
            }
        )
        folder = of_2014 if year == 2014 else ("val2017" if number % 8 == 0 else "train2017")
        file = name if year == 2014 else f"{number:012d}.jpg"
        members[folder][f"{folder}/{file}"] = photo(colour, number)
    splits = json.dumps({"images": images, "dataset": "coco"}).encode()
    return {
        **{f"{folder}.zip": zipped(files) for folder, files in members.items()},
        "caption_datasets.zip": zipped(
            {"dataset_coco.json": splits, "dataset_flickr8k.json": b"{}"}
        ),
    }


def small_sets() -> dict[str, dict[str, bytes]]:
    """Return the files of every dataset that comes with a manifest, by dataset and file name."""
    names = [
        f"{part}-{kind}-ubyte.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    grey = [idx(array) for count, seed in ((200, 0), (50, 1)) for array in grey_images(count, seed)]
    cifar = {
        f"cifar-10-batches-bin/{name}.bin": cifar_records(20, seed)
        for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"])
    }
    raw = {"train": cola_lines(0, 400), "dev": cola_lines(1, 80)}
    public = {f"cola_public/raw/in_domain_{part}.tsv": lines for part, lines in raw.items()}
    glue = {f"CoLA/{part}.tsv": lines for part, lines in raw.items()}
    return {
        "mnist": dict(zip(names, grey, strict=True)),
        "fashion_mnist": dict(zip(names, grey, strict=True)),
        "cifar10": {"cifar-10-binary.tar.gz": tarred(cifar)},
        "cola": {"CoLA.zip": zipped({**glue, "CoLA/test.tsv": b"index\tsentence\n"})},
        "cola_public": {
            "cola_public_1.1.zip": zipped(
                {**public, "cola_public/raw/out_of_domain_dev.tsv": cola_lines(2, 20)}
            )
        },
        "sst2": {
            "SST-2.zip": zipped(
                {
                    "SST-2/train.tsv": sst2_lines(0, 400),
                    "SST-2/dev.tsv": sst2_lines(1, 80),
                    "SST-2/test.tsv": b"index\tsentence\n",
                }
            )
        },
        "coco_2014": coco_files(2014),
        "coco_2017": coco_files(2017),
    }


def write_manifests(folder: Path, sets: dict[str, dict[str, bytes]]) -> Path:
    """Write the package's manifests anew, with size and digest of these files and no address.

    Layouts stay as they are, so what comes out of the small archives is held against them.
    """
    from mlmodeldev.fetch import manifest

    folder.mkdir(parents=True, exist_ok=True)
    for name, files in sets.items():
        content = yaml.safe_load((manifest.FOLDER / f"{name}.yaml").read_text())
        kept = []
        for entry in content["files"]:
            file = entry["urls"][0].rpartition("/")[2]
            if file in files:
                fields = {
                    "bytes": len(files[file]),
                    "sha256": hashlib.sha256(files[file]).hexdigest(),
                }
                entry.pop("md5", None)
                kept.append({**entry, **fields, "urls": [f"http://127.0.0.1:9/{file}"]})
        roots = {entry.get("unpack") or entry["urls"][0].rpartition("/")[2] for entry in kept}
        layout = [path for path in content.get("layout", []) if path.split("/")[0] in roots]
        text = yaml.safe_dump({**content, "files": kept, "layout": layout})
        (folder / f"{name}.yaml").write_text(text)
    return folder
