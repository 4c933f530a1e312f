"""Any LightningDataModule, taken over: its loaders resume exactly, its splits are the seed's.

Nothing is asked of the class. Its hooks are wrapped on the instance: `prepare_data` and `setup` run
under the trial's seed, once for each stage; loaders are handed on as `mlmodeldev.data.takeover`
makes them. A model that brings loaders of its own is treated alike.

Example::

    takeover = TakenOver(PlainData(), settings, world)
    trainer.fit(model, datamodule=takeover.module)
    takeover.close()
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, IterableDataset

from mlmodeldev.data.loader import Position, Shard, key
from mlmodeldev.data.randomness import seed_all
from mlmodeldev.data.takeover import Place, ResumableLoader, StreamLoader
from mlmodeldev.errors import UsageError

if TYPE_CHECKING:
    from mlmodeldev.data.module import Ranks
    from mlmodeldev.settings.schema import Settings

log = logging.getLogger(__name__)

Module = LightningDataModule | LightningModule
LOADERS = {"train": "train_dataloader", "val": "val_dataloader", "test": "test_dataloader"}
"""The stages, and the hook that gives the loaders of each."""

_MOVES = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_OURS = ("batch_size", "num_workers", "prefetch_factor", "pin_memory")


class TakenOver:
    """The wrapped hooks of one module that gives loaders.

    Args:
        module: a DataModule, or a model with loaders of its own; its hooks are replaced.
        settings: of the trial.
        world: this process's place among those that train it.

    Raises:
        UsageError: the command line sets ``processing.batch_size``, which only the module knows.
    """

    def __init__(self, module: Module, settings: Settings, world: Ranks) -> None:
        self.module = module
        self._seed = settings.training.seed
        self._overfit = settings.training.overfit_batches > 0
        self._shard = Shard(world.rank, world.size)
        self._processing = _given(settings)
        # those in use: one that was made anew goes with its workers when nobody has it any more
        self._open: weakref.WeakSet[ResumableLoader | StreamLoader] = weakref.WeakSet()
        self._setups: set[str | None] = set()
        self._warnings: set[str] = set()
        self._moves = False
        _check_batch_size(settings, module)
        for stage, hook in LOADERS.items():
            if self.gives(stage):
                setattr(module, hook, self._wrapped(stage, getattr(module, hook)))
        if isinstance(module, LightningDataModule):
            self._wrap_preparation(module)

    def gives(self, stage: str) -> bool:
        """Whether the module has loaders for a stage: train, val or test."""
        is_model = isinstance(self.module, LightningModule)
        parent: type = LightningModule if is_model else LightningDataModule
        return is_overridden(LOADERS[stage], self.module, parent=parent)

    def meet(self, model: LightningModule) -> None:
        """Note whether the model or the data draw random numbers while a batch is moved."""
        parents = {LightningModule: model, LightningDataModule: self.module}
        self._moves = any(
            is_overridden(hook, each, parent=parent)
            for parent, each in parents.items()
            if isinstance(each, parent)
            for hook in _MOVES
        )

    def close(self) -> None:
        """End the loaders' worker processes."""
        for loader in list(self._open):
            loader.close()
        self._open.clear()

    # --- data prepared once, under the seed

    def _wrap_preparation(self, module: LightningDataModule) -> None:
        prepare, setup, teardown = module.prepare_data, module.setup, module.teardown

        @functools.cache
        def prepare_data() -> None:
            seed_all(key(self._seed, "prepare"))
            prepare()

        def set_up(stage: str | None = None) -> None:
            # many a module makes its validation set for "fit" only, and Lightning's own fit asks
            # for no more
            stage = "fit" if stage == "validate" else stage
            if stage in self._setups:
                return
            # one seed for all stages: a split drawn in each of them is the same split
            seed_all(key(self._seed, "setup"))
            setup(stage)  # type: ignore[arg-type]
            self._setups.add(stage)

        def tear_down(stage: str | None = None) -> None:
            self._setups.clear()
            teardown(stage)  # type: ignore[arg-type]

        if is_overridden("prepare_data", module, parent=LightningDataModule):
            module.prepare_data = prepare_data  # type: ignore[method-assign]
        if is_overridden("setup", module, parent=LightningDataModule):
            module.setup = set_up  # type: ignore[method-assign]
        if is_overridden("teardown", module, parent=LightningDataModule):
            module.teardown = tear_down  # type: ignore[method-assign]

    # --- loaders

    def _wrapped(self, stage: str, hook: Callable[[], Any]) -> Callable[[], Any]:
        def loaders() -> Any:
            if stage == "val" and self._overfit and self.gives("train"):
                return self._one_of_training(hook)
            return self._converted(hook(), stage)

        return loaders

    def _one_of_training(self, validation: Callable[[], Any]) -> Any:
        """Overfitting validates on what it trains on, if there is one loader of each."""
        own, training = validation(), getattr(self.module, LOADERS["train"])()
        single = isinstance(training, ResumableLoader) and not isinstance(own, list | tuple | dict)
        if not single:
            return self._converted(own, "val")
        return self._converted(training.loader, "val")

    def _converted(self, loaders: Any, stage: str) -> Any:
        if isinstance(loaders, CombinedLoader):
            names = range(len(loaders.flattened))
            loaders.flattened = [
                self._one(each, stage, str(n))
                for n, each in zip(names, loaders.flattened, strict=True)
            ]
            return loaders
        if isinstance(loaders, dict):
            return {name: self._nested(each, stage, str(name)) for name, each in loaders.items()}
        if isinstance(loaders, list | tuple):
            made = [self._nested(each, stage, str(n)) for n, each in enumerate(loaders)]
            return made if isinstance(loaders, list) else tuple(made)
        return None if loaders is None else self._one(loaders, stage, "")

    def _nested(self, loaders: Any, stage: str, name: str) -> Any:
        if isinstance(loaders, dict | list | tuple | CombinedLoader):
            return self._converted(loaders, f"{stage}/{name}")
        return self._one(loaders, stage, name)

    def _one(self, loader: Any, stage: str, name: str) -> Any:
        if isinstance(loader, ResumableLoader | StreamLoader) or _keeps_its_place(loader):
            return loader
        train = stage.partition("/")[0] == "train"
        full = "" if stage == "train" and not name else "/".join(filter(None, (stage, name)))
        place = Place(
            self._seed,
            full,
            train,
            self._shard,
            self._position if train else _at_the_start,
            self._overfit and stage.partition("/")[0] != "test",
            self._moves,
        )
        made: ResumableLoader | StreamLoader
        if _has_order(loader):
            made = ResumableLoader(loader, place, **self._processing)
        else:
            made = StreamLoader(loader, place)
            if train:
                self._warn_of_stream(loader)
        self._open.add(made)
        return made

    def _position(self) -> Position:
        trainer = self.module.trainer
        assert trainer is not None
        epochs: Any = trainer.fit_loop.epoch_progress.current
        epoch = max(epochs.processed, epochs.completed)  # restored from an epoch's end: processed
        if epochs.ready <= epoch:  # between two epochs the batches are those of the last one
            return Position(epoch, 0)
        return Position(epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    def _warn_of_stream(self, loader: Any) -> None:
        kind = type(getattr(loader, "dataset", loader))
        name = f"{kind.__module__}.{kind.__qualname__}"
        if self._shard.rank == 0 and name not in self._warnings:
            self._warnings.add(name)
            log.warning(
                "data: %s has no order that can be asked for: a trial that resumes within an epoch"
                " reads and drops what came before, which is exact if it draws from global"
                " generators only",
                name,
            )


class OfTheModel(LightningDataModule):
    """No data of its own: the loaders are methods of the model (``data=of_model``)."""

    def take_from(self, model: LightningModule, settings: Settings, world: Ranks) -> None:
        """Hand on the model's loaders, taken over.

        Raises:
            UsageError: the model has no ``train_dataloader``.
        """
        for hook in LOADERS.values():
            vars(self).pop(hook, None)  # of another model, that was rehearsed
            if is_overridden(hook, model, parent=LightningModule):
                setattr(self, hook, functools.partial(getattr(type(model), hook), model))
        if not is_overridden(LOADERS["train"], self, parent=LightningDataModule):
            kind = type(model)
            raise UsageError(
                f"data=of_model: {kind.__module__}.{kind.__qualname__} has no train_dataloader;"
                " choose data"
            )
        take_over(self, settings, world)


def take_over(module: Module, settings: Settings, world: Ranks) -> TakenOver:
    """Wrap the hooks of a module that gives loaders; `taken_over` returns the same again."""
    taken = TakenOver(module, settings, world)
    module.__dict__["_taken_over"] = taken
    return taken


def taken_over(module: Any) -> TakenOver | None:
    """Return how a module was taken over; None if it was not."""
    taken: TakenOver | None = vars(module).get("_taken_over")
    return taken


def _at_the_start() -> Position:
    return Position(0, 0)


def _has_order(loader: Any) -> bool:
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader).__iter__ is DataLoader.__iter__
    )


def _keeps_its_place(loader: Any) -> bool:
    """Whether a loader saves and restores its place itself, as Lightning lets it."""
    return callable(getattr(loader, "state_dict", None)) and callable(
        getattr(loader, "load_state_dict", None)
    )


def _given(settings: Settings) -> dict[str, Any]:
    """Return how to load, where the command line says so; else the user's loaders decide."""
    processing, given = settings.processing, _overridden(settings)
    chosen: dict[str, Any] = {}
    if "num_workers" in given and processing.num_workers != "auto":
        chosen["workers"] = processing.num_workers
    if "prefetch_factor" in given:
        chosen["prefetch"] = processing.prefetch_factor
    if "pin_memory" in given and processing.pin_memory != "auto":
        chosen["pin"] = processing.pin_memory
    return chosen


def _overridden(settings: Settings) -> set[str]:
    return {name for name in _OURS if f"processing.{name}" in settings.overrides}


def _check_batch_size(settings: Settings, module: Module) -> None:
    if "batch_size" not in _overridden(settings):
        return
    kind = type(module)
    group = "model" if isinstance(module, LightningModule) else "data"
    own = "batch_size" in getattr(kind.__init__, "__code__", _check_batch_size.__code__).co_varnames
    mend = f"set {group}.batch_size" if own else "change it there"
    raise UsageError(
        f"processing.batch_size={settings.processing.batch_size}: {kind.__module__}."
        f"{kind.__qualname__} makes its own loaders, whose batch size it decides; {mend}"
    )
