"""COCO's photographs and captions in Karpathy's splits: what is where in either year's folders.

Example::

    records = read_karpathy(splits_file(folder))
    paths = photograph_paths(folder, 2017, records)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError

NAME = "dataset_coco.json"
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@dataclass(frozen=True)
class Captioned:
    """An image of the Karpathy splits.

    Attributes:
        folder: of 2014, such as ``val2014``.
        file: name in it.
        coco_id: the number that both years share.
        split: train, val or test (``restval`` belongs to train).
        captions: what people wrote, five or more.
    """

    folder: str
    file: str
    coco_id: int
    split: str
    captions: tuple[str, ...]


def read_karpathy(file: Path) -> list[Captioned]:
    """Return the images of ``dataset_coco.json`` (Karpathy & Fei-Fei 2015), in its order.

    Raises:
        UsageError: the file is of another kind, or an image has no caption.
    """
    try:
        images: list[dict[str, Any]] = json.loads(file.read_bytes())["images"]
        records = [_captioned(image) for image in images]
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: has not the form of dataset_coco.json ({error})") from None
    for image in records:
        if not image.captions:
            raise UsageError(f"{file}: {image.file} has no caption")
    return records


def _captioned(image: dict[str, Any]) -> Captioned:
    split = _SPLITS[image["split"]]
    captions = tuple(" ".join(sentence["raw"].split()) for sentence in image["sentences"])
    return Captioned(image["filepath"], image["filename"], int(image["cocoid"]), split, captions)


def splits_file(folder: Path) -> Path:
    """Return the file of the splits: where ours unpacks it, or beside the photographs."""
    places = [folder / "karpathy" / NAME, folder / NAME]
    return next((place for place in places if place.is_file()), places[0])


def photograph_paths(folder: Path, year: int, records: Sequence[Captioned]) -> list[Path]:
    """Return the file of each image; 2017 names them by their number and splits them anew."""
    if year == 2014:
        return [folder / record.folder / record.file for record in records]
    names = [f"{record.coco_id:012d}.jpg" for record in records]
    validation = {path.name for path in (folder / "val2017").glob("*.jpg")}
    return [folder / ("val2017" if n in validation else "train2017") / n for n in names]


def five_captions(record: Captioned) -> list[str]:
    """Return the first five, which papers compare on; some images have six or seven."""
    return [record.captions[number % len(record.captions)] for number in range(5)]
