"""Get everything that a trial needs from the network, while there is one.

Example::

    for got in fetch_all(compose_settings(["data=coco_captions", "processing.stage=never"])):
        print(got.kind, got.name, got.bytes)

What is needed is found by doing what a trial does first: its data are fetched and prepared, its
model is made (which loads pretrained encoders), and the models that CKA compares with are loaded.
So a model or DataModule of one's own needs no list of what it asks for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.alignment.comparison import WORDS

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from mlmodeldev.settings.schema import Settings


@dataclass(frozen=True)
class Got:
    """Something that lies here now.

    Attributes:
        kind: ``data``, ``prepared`` or ``model``.
        name: of the dataset, of the prepared folder, or on the Hub.
        bytes: what it takes on the disk.
        path: where it lies.
    """

    kind: str
    name: str
    bytes: int
    path: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def fetch_all(settings: Settings) -> list[Got]:
    """Fetch and prepare all that a trial with these settings needs; return what there is.

    Raises:
        UsageError: something can't be had; the message says what.
    """
    from mlmodeldev.alignment import loaded_models, weights
    from mlmodeldev.training import build
    from mlmodeldev.training.quiet import quiet
    from mlmodeldev.training.ranks import World

    quiet()
    data = build.datamodule(settings, World())
    model = build.model(settings, data)
    others = {
        name
        for name in _compared(settings, model)
        if name not in WORDS and not weights.is_weights_file(name)
    }
    for name in others:
        loaded_models.load_model(name)
    del model
    names = {*_texts(settings.model), *_texts(settings.data), *others}
    return [*_of_data(data), *_of_hub(names)]


def _compared(settings: Settings, model: Any) -> set[str]:
    """Return what CKA compares with: the settings' comparisons, else the model's own."""
    cka = settings.callbacks.cka
    if not cka.enabled:
        return set()
    own = getattr(model, "ALIGNMENT", {}).values()
    return {c.against for c in cka.compare.values()} or {c.get("against", "self") for c in own}


def _of_data(data: LightningDataModule) -> Iterator[Got]:
    for name, folder in getattr(data, "folders", {}).items():
        kind = "prepared" if "prepared" in folder.parts[-3:] else "data"
        yield Got(kind, name, size_of(folder), str(folder))


def _of_hub(names: set[str]) -> Iterator[Got]:
    """Tell of the Hub's models in the cache that the settings name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repo in sorted(repos, key=lambda each: each.repo_id):
        if repo.repo_id in names:
            yield Got("model", repo.repo_id, repo.size_on_disk, str(repo.repo_path))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118
        for parent, _, names in os.walk(folder)
        for name in names
    )
