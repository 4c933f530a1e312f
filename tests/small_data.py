"""Small data: batches, DataModules set up as in a trial, and a small CoLA.

The sentences are of a small grammar: a right one has an article before each noun, a wrong one
lacks an article or doubles one.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

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


def prepared(kind: Any, data_dir: Path, *overrides: str, **arguments: Any) -> Any:
    """Return a DataModule as a trial would set it up."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.training.world import World

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
