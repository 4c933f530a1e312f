"""Base of the DataModules: exact loaders from datasets, whatever the machine.

A subclass makes its datasets in `setup`; this class turns them into loaders that resume exactly,
share each global batch among devices, and take their workers from Slurm.

Example::

    class Mine(ExactDataModule):
        def setup(self, stage=None): self.train_set, self.val_set = ..., ...
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from pytorch_lightning import LightningDataModule

from mlmodeldev.data.cache import CachedArrays, Make, cached_arrays
from mlmodeldev.data.loader import ExactLoader, Position, Shard, Sized
from mlmodeldev.data.staging import staged
from mlmodeldev.data.versions import fingerprint
from mlmodeldev.fetch import manifest
from mlmodeldev.fetch.progress import log_progress
from mlmodeldev.machine import cores

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_logger = logging.getLogger(__name__)


class Ranks(Protocol):
    """The processes that train one trial: which one this is, and how many there are."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...


class ExactDataModule(LightningDataModule):
    """LightningDataModule whose loaders are functions of seed, epoch and batch number.

    Attributes:
        train_set, val_set, test_set: datasets asked as ``dataset[EpochIndex(index, epoch)]``; a
            module without a val_set or test_set goes without.
        info: optional facts of the data (`mlmodeldev.data.info`).
        in_memory: examples cost nothing to load, so worker processes would only slow them down.
    """

    train_set: Sized
    val_set: Sized
    test_set: Sized | None = None
    in_memory = False

    def attach(self, settings: Settings, world: Ranks) -> None:
        """Take what makes no other data: batch size, workers, seed, folders, place among ranks."""
        self._open: weakref.WeakSet[ExactLoader] = weakref.WeakSet()  # those in use
        self.processing = settings.processing
        self.seed = settings.training.seed
        self.overfit = settings.training.overfit_batches > 0
        self.data_dir = settings.artefacts.data_dir
        self.inputs: dict[str, str] = {}
        self.folders: dict[str, Path] = {}
        self._warnings: set[str] = set()
        log_progress()
        self.shard = Shard(world.rank, world.size)
        self.on_gpu = settings.training.accelerator != "cpu" and torch.cuda.is_available()

    def dataset(self, name: str, only: Sequence[str] | None = None, **options: Any) -> Path:
        """Return the folder of a dataset with a manifest, fetched if it is not there.

        Args:
            name: of the manifest (``python -m mlmodeldev.data list``), or its path.
            only: files wanted; None: all.
            options: more arguments of `mlmodeldev.fetch.manifest.prepare`.

        Raises:
            UsageError: it can't be had; the message says what to place where.
        """
        folder = manifest.prepare(name, self.data_dir, only=only, **options)
        self.folders[name] = folder
        return folder

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of an input, and note it for the trial's record."""
        try:
            name = str(path.absolute().relative_to(Path(self.data_dir).expanduser().absolute()))
        except ValueError:  # not of the data folder
            name = str(path)
        self.inputs[name] = fingerprint(path)
        return self.inputs[name]

    def cached_arrays(self, name: str, key: Mapping[str, Any], make: Make) -> CachedArrays:
        """Return what ``make`` prepares of this key: made once, then mapped; see `data.cache`.

        It lies in ``<data_dir>/prepared/<name>``, apart from what it was made of, and is copied to
        the node as ``processing.stage`` says.
        """
        path = Path(self.data_dir).expanduser().absolute() / "prepared" / name
        made = cached_arrays(path.parent, path.name, key, make)
        self.folders[name] = made.folder
        return staged(made, self.processing.stage)

    def warn_once(self, text: str) -> None:
        """Log a warning once, on the first process of the trial."""
        if self.shard.rank == 0 and text not in self._warnings:
            self._warnings.add(text)
            _logger.warning(text)

    def train_dataloader(self) -> ExactLoader:
        return self._loader(self.train_set, train=True)

    def val_dataloader(self) -> ExactLoader | list[ExactLoader]:
        dataset = self.train_set if self.overfit else getattr(self, "val_set", None)
        return [] if dataset is None else self._loader(dataset)

    def test_dataloader(self) -> ExactLoader:
        assert self.test_set is not None
        return self._loader(self.test_set)

    def _loader(self, dataset: Sized, train: bool = False) -> ExactLoader:
        processing = self.processing
        pin = self.on_gpu if processing.pin_memory == "auto" else processing.pin_memory
        loader = ExactLoader(
            dataset,
            batch_size=processing.batch_size,
            seed=self.seed,
            shuffle=train and not self.overfit,
            drop_last=train,
            progress=self._position if train else lambda: Position(0, 0),
            shard=self.shard,
            workers=self.workers(),
            prefetch=processing.prefetch_factor,
            pin=pin,
        )
        self._open.add(loader)
        return loader

    def close(self) -> None:
        """End the loaders' worker processes."""
        for loader in list(self._open):
            loader.close()
        self._open.clear()

    def workers(self) -> int:
        """Return the number of loader processes on this device."""
        number = self.processing.num_workers
        if number != "auto":
            return number
        if self.in_memory:
            return 0
        return max(1, min(16, cores() - 1))

    def _position(self) -> Position:
        trainer = self.trainer
        assert trainer is not None
        loop = trainer.fit_loop.epoch_loop
        epoch = 0 if self.overfit else trainer.current_epoch  # the same augmentation, too
        return Position(epoch, loop.batch_progress.current.ready)
