"""Plain LightningDataModules of random data, for modules whose wheels bring none.

Nothing of this library is imported: the file is copied into the project that trains them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

ROWS, BATCH = 48, 8
"""Examples of a part, and of a batch: six batches an epoch."""


def generator(part: int) -> torch.Generator:
    """Return the generator that one part is drawn from."""
    return torch.Generator().manual_seed(part)


class Parts(LightningDataModule):
    """Three parts of `ROWS` examples that `part` makes; training is shuffled."""

    collate: Any = None

    def part(self, number: int) -> Any:
        """Return the data set of training (0), validation (1) or test (2)."""
        raise NotImplementedError

    def loader(self, number: int) -> DataLoader[Any]:
        """Return a loader of a part."""
        part = self.part(number)
        shuffle = number == 0 and not isinstance(part, IterableDataset)
        return DataLoader(part, BATCH, shuffle=shuffle, collate_fn=self.collate)

    def train_dataloader(self) -> Any:
        """Return the shuffled loader."""
        return self.loader(0)

    def val_dataloader(self) -> Any:
        """Return the loader of the second part."""
        return self.loader(1)

    def test_dataloader(self) -> Any:
        """Return the loader of the third part."""
        return self.loader(2)


class Examples(Dataset[Any]):
    """A list as a data set."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset[Any]):
    """The same examples, in an order that torch's generator draws, without a length."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        for index in torch.randperm(len(self.items)).tolist():
            yield self.items[index]


class Vectors(Parts):
    """Vectors with a class, a number, or several labels.

    Args:
        size: of a vector.
        classes: number of classes.
        target: class, number, labels, or none: vectors alone.
        names: keys of input and target; empty: tuples.
        loaders: of validation.
        stream: whether training reads an IterableDataset.
        shape: of the input, instead of a vector.
    """

    def __init__(
        self,
        size: int = 8,
        classes: int = 3,
        target: str = "class",
        names: list[str] | None = None,
        loaders: int = 1,
        stream: bool = False,
        shape: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.size, self.classes, self.target, self.names = size, classes, target, names
        self.loaders, self.stream, self.shape = loaders, stream, shape

    def part(self, number: int) -> Any:
        """Return the examples of a part."""
        draw = generator(number)
        shape = self.shape or [self.size]
        inputs = torch.randn(ROWS, *shape, generator=draw)
        weights = torch.randn(inputs[0].numel(), self.classes, generator=generator(99))
        scores = inputs.flatten(1) @ weights
        items = [self._example(x, s) for x, s in zip(inputs, scores, strict=True)]
        return Stream(items) if self.stream and number == 0 else Examples(items)

    def _example(self, x: Tensor, scores: Tensor) -> Any:
        if self.target == "none":
            return x
        ways = {"class": scores.argmax(), "number": scores[:1], "labels": (scores > 0).float()}
        pair = (x, ways[self.target])
        return dict(zip(self.names, pair, strict=True)) if self.names else pair

    def val_dataloader(self) -> Any:
        """Return as many loaders as asked for."""
        loaders = [self.loader(1 + number) for number in range(self.loaders)]
        return loaders[0] if len(loaders) == 1 else loaders


class Events(Parts):
    """Sequences of 5 to 12 events of ptls, ragged, put into batches by its own collate functions.

    Args:
        way: supervised, contrastive, or language.
    """

    def __init__(self, way: str = "supervised") -> None:
        super().__init__()
        self.way = way

    def part(self, number: int) -> Any:
        """Return ptls' data set of a part."""
        from ptls.frames.coles import ColesDataset
        from ptls.frames.coles.split_strategy import SampleSlices
        from ptls.frames.gpt import GptDataset
        from ptls.frames.supervised import SeqToTargetDataset

        draw = np.random.default_rng(number)
        rows = [_events(draw) for _ in range(ROWS)]
        dataset: Any
        if self.way == "supervised":
            dataset = SeqToTargetDataset(rows, target_col_name="label", target_dtype=torch.long)
        elif self.way == "contrastive":
            dataset = ColesDataset(rows, splitter=SampleSlices(3, 3, 6))
        else:
            dataset = GptDataset(rows, 3, 8)
        self.collate = dataset.collate_fn
        return dataset


def _events(draw: np.random.Generator) -> dict[str, Any]:
    length = int(draw.integers(5, 13))
    kinds = torch.from_numpy(draw.integers(1, 10, length))
    amounts = torch.from_numpy(draw.normal(size=length).astype(np.float32))
    times = torch.arange(length)
    label = int(kinds.float().mean() > 5)
    return {"event_time": times, "kind": kinds, "amount": amounts, "label": label}


class Series(Parts):
    """Sine waves as pytorch-forecasting's TimeSeriesDataSet, with its own loaders.

    Args:
        shortest: steps of the shortest history; less than 12: ragged.
    """

    def __init__(self, shortest: int = 12) -> None:
        super().__init__()
        self.shortest = shortest

    def loader(self, number: int) -> Any:
        """Return the data set's own loader."""
        return series(self.shortest, number).to_dataloader(
            train=number == 0, batch_size=BATCH, num_workers=0
        )


def series(shortest: int = 12, number: int = 0) -> Any:
    """Return a TimeSeriesDataSet of three noisy waves."""
    import pandas as pd
    from pytorch_forecasting import TimeSeriesDataSet

    draw = np.random.default_rng(number)
    steps = np.arange(30)
    frames = [
        pd.DataFrame(
            {
                "time": steps,
                "group": str(name),
                "value": (np.sin(steps / 3 + name) + draw.normal(0, 0.1, 30)).astype(np.float32),
            }
        )
        for name in range(3)
    ]
    return TimeSeriesDataSet(
        pd.concat(frames, ignore_index=True),
        time_idx="time",
        target="value",
        group_ids=["group"],
        time_varying_unknown_reals=["value"],
        min_encoder_length=shortest,
        max_encoder_length=12,
        min_prediction_length=4,
        max_prediction_length=4,
    )


def normalizer() -> Any:
    """Return what scales the values of `series`, fitted."""
    return series().target_normalizer


class Tables(Parts):
    """Rows of a table as pytorch_tabular's models read them."""

    def part(self, number: int) -> Any:
        """Return rows with a category, numbers, and a target."""
        draw = generator(number)
        numbers = torch.randn(ROWS, 4, generator=draw)
        kinds = torch.randint(0, 3, (ROWS, 1), generator=draw)
        target = numbers[:, :1] + kinds
        return Examples(
            [
                {"continuous": x, "categorical": k, "target": y}
                for x, k, y in zip(numbers, kinds, target, strict=True)
            ]
        )


class Counts(Parts):
    """Cells of two batches, whose genes are counted, as scvi's training plans read them."""

    def part(self, number: int) -> Any:
        """Return counts of 12 genes, and the batch that a cell is of."""
        draw = generator(number)
        batches = torch.randint(0, 2, (ROWS, 1), generator=draw)
        counts = torch.poisson(torch.rand(ROWS, 12, generator=draw) * 8 + 3 * batches, draw)
        labels = torch.zeros(1, dtype=torch.long)
        return Examples(
            [{"X": x, "batch": b, "labels": labels} for x, b in zip(counts, batches, strict=True)]
        )


class Molecules(Parts):
    """Chains of carbon and oxygen, and how many atoms are oxygen, as chemprop's graphs."""

    def part(self, number: int) -> Any:
        """Return chemprop's data set of a part, its collate function set."""
        from chemprop.data import MoleculeDatapoint, MoleculeDataset, collate_batch

        self.collate = collate_batch
        draw = np.random.default_rng(number)
        chains = ["C" + "".join(draw.choice(["C", "CO"], draw.integers(2, 9))) for _ in range(ROWS)]
        return MoleculeDataset(
            [MoleculeDatapoint.from_smi(chain, [float(chain.count("O"))]) for chain in chains]
        )


class Histories(Parts):
    """Noisy waves of three kinds in the parts that gluonts' forecasters read: 14 steps, then 4."""

    def part(self, number: int) -> Any:
        """Return histories and what follows them."""
        draw = np.random.default_rng(number)
        return Examples([_history(draw) for _ in range(ROWS)])


def _history(draw: np.random.Generator) -> dict[str, Tensor]:
    kind = int(draw.integers(3))
    steps = np.arange(18) + draw.integers(30)
    wave = torch.from_numpy(np.sin(steps / (kind + 2)) + draw.normal(0, 0.1, 18)).float()
    ones = torch.ones(18)
    return {
        "feat_static_cat": torch.tensor([kind]),
        "feat_static_real": torch.zeros(1),
        "past_time_feat": torch.from_numpy(steps[:14, None] / 48).float(),
        "past_target": wave[:14],
        "past_observed_values": ones[:14],
        "future_time_feat": torch.from_numpy(steps[14:, None] / 48).float(),
        "future_target": wave[14:],
        "future_observed_values": ones[14:],
    }


class Corrupted(Parts):
    """Rows of ts3l's SCARF: its data set draws a corrupted copy of each, by torch's generator."""

    def part(self, number: int) -> Any:
        """Return ts3l's data set of a part."""
        import pandas as pd
        from ts3l.utils.scarf_utils import SCARFDataset

        values = torch.randn(ROWS, 6, generator=generator(number)).numpy()
        frame = pd.DataFrame(values, columns=list("abcdef"))
        return SCARFDataset(frame, config=scarf(), continuous_cols=list("abcdef"), category_cols=[])


def scarf() -> Any:
    """Return ts3l's configuration of SCARF."""
    from ts3l.utils.backbone_utils import MLPBackboneConfig
    from ts3l.utils.embedding_utils import IdentityEmbeddingConfig
    from ts3l.utils.scarf_utils import SCARFConfig

    return SCARFConfig(
        task="classification",
        embedding_config=IdentityEmbeddingConfig(input_dim=6),
        backbone_config=MLPBackboneConfig(input_dim=6, hidden_dims=16, output_dim=16),
        loss_fn="CrossEntropyLoss",
        metric="accuracy_score",
        output_dim=3,
        corruption_rate=0.4,
        scheduler="StepLR",
        scheduler_hparams={"step_size": 4, "gamma": 0.5},
    )
