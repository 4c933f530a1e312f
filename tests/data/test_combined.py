"""Several training loaders under Lightning's Trainer: what it combines, and where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from mlmodeldev.data.plain import take_over

Loaders = Callable[[bool], Any]
VALIDATED = -1


class Counted(IterableDataset[int]):
    """Counts, and tells no length."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        yield from range(self.size)


def listed(size: int, shuffle: bool) -> DataLoader[Any]:
    return DataLoader(list(range(size)), batch_size=1, shuffle=shuffle)  # type: ignore[arg-type]


class Guessed(Counted):
    """Tells a length that is wrong, as samplers do that fill batches up."""

    def __len__(self) -> int:
        return self.size + 1


def sampled(sampler: Any, size: int) -> DataLoader[Any]:
    return DataLoader(list(range(size)), batch_size=1, sampler=sampler)  # type: ignore[arg-type]


def stream(size: int) -> DataLoader[Any]:
    return DataLoader(Counted(size), batch_size=1)


def mode(name: Any, *loaders: Any) -> CombinedLoader:
    return CombinedLoader(dict(zip("ab", loaders, strict=True)), name)


LOADERS: dict[str, Loaders] = {
    "listed and a stream": lambda mix: {"a": listed(3, mix), "b": stream(7)},
    "one example and a stream": lambda mix: {"a": listed(1, mix), "b": stream(3)},
    "a sampler without length": lambda mix: {"a": sampled(Counted(2), 2), "b": stream(5)},
    "a sampler of wrong length": lambda mix: {"a": sampled(Guessed(2), 2), "b": stream(5)},
    "a stream and listed": lambda mix: [stream(4), listed(2, mix)],
    "two streams": lambda mix: {"a": stream(2), "b": stream(5)},
    "both listed": lambda mix: {"a": listed(2, mix), "b": listed(5, mix)},
    "the shortest ends": lambda mix: mode("min_size", stream(2), stream(4)),
    "the shortest, listed": lambda mix: mode("min_size", listed(2, mix), stream(4)),
    "nothing comes again": lambda mix: mode("max_size", listed(2, mix), stream(4)),
    "nothing again, listed": lambda mix: mode("max_size", listed(2, mix), listed(4, mix)),
    "a stream alone": lambda mix: stream(3),
}


class Data(LightningDataModule):
    def __init__(self, loaders: Loaders, mix: bool) -> None:
        super().__init__()
        self.loaders, self.mix = loaders, mix

    def train_dataloader(self) -> Any:
        return self.loaders(self.mix)


class Recorder(LightningModule):
    """Notes each batch, and saves a checkpoint after it, of the last one at the epoch's end."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder, self.weight = folder, torch.nn.Parameter(torch.ones(()))
        self.rows: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        parts = batch.values() if isinstance(batch, dict) else batch
        epoch = self.trainer.current_epoch
        self.rows.append((epoch, batch_idx, *(None if x is None else int(x) for x in parts)))
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.rows.append((VALIDATED, int(batch)))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.save()

    def on_train_epoch_end(self) -> None:
        self.save()

    def save(self) -> None:
        if self.folder is not None:
            self.trainer.save_checkpoint(self.folder / f"{len(self.rows)}.ckpt")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def train(
    data: Data,
    folder: Path | None = None,
    at: Path | None = None,
    taken: bool = True,
    **limits: Any,
) -> list[Any]:
    """Return (epoch, number, what each loader gave) of each step of two epochs."""
    if taken:
        training = SimpleNamespace(seed=5, overfit_batches=limits.get("overfit_batches", 0))
        settings: Any = SimpleNamespace(training=training, processing=None, overrides={})
        world: Any = SimpleNamespace(rank=0, size=1)
        take_over(data, settings, world)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **limits,
    )
    model = Recorder(folder)
    trainer.fit(model, datamodule=data, ckpt_path=at, weights_only=False)
    return model.rows


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limits", [{}, {"limit_train_batches": 2}, {"overfit_batches": 2}])
@pytest.mark.parametrize("name", LOADERS)
def test_it_is_what_lightning_gives_itself(name: str, limits: Any) -> None:
    loaders = LOADERS[name]
    mine = train(Data(loaders, mix=False), **limits)
    assert mine == train(Data(loaders, mix=False), taken=False, **limits)


ENDS: list[tuple[str, Any]] = [(name, {}) for name in LOADERS]
ENDS += [
    ("a stream alone", {"reload_dataloaders_every_n_epochs": 1}),
    ("listed and a stream", {"reload_dataloaders_every_n_epochs": 1}),
    ("one example and a stream", {"overfit_batches": 1}),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "limits"), ENDS)
def test_it_goes_on_where_it_was_left(name: str, limits: Any, tmp_path: Path) -> None:
    loaders = LOADERS[name]
    whole = train(Data(loaders, mix=True), tmp_path, **limits)
    for done in range(1, len(whole)):
        rest = train(Data(loaders, mix=True), at=tmp_path / f"{done}.ckpt", **limits)
        assert rest == whole[done:], done


def test_each_pass_of_an_epoch_has_an_order_of_its_own() -> None:
    rows = train(Data(lambda mix: {"a": listed(5, mix), "b": stream(10)}, mix=True))
    given = [a for _, _, a, _ in rows]
    passes = [given[n : n + 5] for n in range(0, 20, 5)]
    assert all(sorted(each) == list(range(5)) for each in passes)
    assert len({*map(tuple, passes)}) == 4


class Validated(Data):
    def val_dataloader(self) -> Any:
        return listed(3, False)


@pytest.mark.filterwarnings("ignore")
def test_overfitting_validates_on_what_it_trains_on() -> None:
    """Lightning turns the shuffling of both off, and makes each loader anew for it."""

    def steps(taken: bool) -> list[Any]:
        return train(Validated(lambda mix: listed(5, mix), True), taken=taken, overfit_batches=2)

    assert steps(True) == steps(False)
    assert (VALIDATED, 1) in steps(True)
