"""Make the DataModule and the model that the settings name.

Example::

    data = datamodule(settings, world)
    net = model(settings, data)
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningDataModule, LightningModule, seed_everything

from mlmodeldev.data.info import data_info
from mlmodeldev.data.loader import key
from mlmodeldev.data.module import ExactDataModule
from mlmodeldev.data.plain import OfTheModel, take_over
from mlmodeldev.data.randomness import seed_all
from mlmodeldev.errors import UsageError
from mlmodeldev.project import project_root, put_on_path
from mlmodeldev.settings.instantiation import INSTRUCTIONS, instantiated
from mlmodeldev.settings.lightning_names import accept_both_names
from mlmodeldev.settings.own_optimizer import unused_setting
from mlmodeldev.settings.renamed import with_old_names
from mlmodeldev.settings.targets import check_kind
from mlmodeldev.training.optimizer import attach

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.training.ranks import World

_KINDS = {"data": LightningDataModule, "model": LightningModule}
_PREPARE_SECONDS = 86400.0
"""20 GB of photographs take longer than the ten minutes that NCCL waits for a message."""


def datamodule(settings: Settings, world: World) -> LightningDataModule:
    """Make the DataModule; prepare its data and set it up, or take over one that Lightning will.

    Raises:
        UsageError: its class is no DataModule, or refuses its arguments.
    """
    seed_all(key(settings.training.seed, "data"))  # for what is drawn in __init__ already
    made: LightningDataModule = _construct("data", settings.data, {})
    if isinstance(made, OfTheModel):
        return made  # the model is not there yet
    if isinstance(made, ExactDataModule):
        made.attach(settings, world)
        world.on_rank_zero(made.prepare_data, patience=_PREPARE_SECONDS)
        made.setup("fit")
    else:
        take_over(made, settings, world)
        if hasattr(type(made), "info"):  # read before there is a Trainer to set the data up
            world.on_rank_zero(made.prepare_data, patience=_PREPARE_SECONDS)
            made.setup("fit")
    return made


def model(settings: Settings, data: LightningDataModule) -> LightningModule:
    """Make the model, its weights drawn from the seed, with arguments filled in from the data.

    Raises:
        UsageError: its class is no model, or refuses its arguments.
    """
    target = _locate("model", settings.model["_target_"])
    _check_optimizer(settings, target)
    _check_complete(settings, target, data)
    # Weights depend on the seed and on nothing that was drawn before.
    seed_everything(key(settings.training.seed, "weights") % 2**32, verbose=False)
    made: LightningModule = _construct("model", settings.model, data_info(data))
    attach(made, settings.optimizer)
    return made


def _check_optimizer(settings: Settings, target: Any) -> None:
    """Refuse settings of the optimizer that would be without effect."""
    own = getattr(target, "configure_optimizers", None)
    if own in (None, LightningModule.configure_optimizers):
        return
    names = inspect.signature(target).parameters
    line = unused_setting(settings.overrides, settings.model["_target_"], names)
    if line:
        raise UsageError(line)


def _check_complete(settings: Settings, target: Any, data: LightningDataModule) -> None:
    """Refuse a model with an argument that neither the settings nor the data give."""
    given = _arguments(target, settings.model, data_info(data))
    if "_args_" in given:
        return
    for name, parameter in inspect.signature(target).parameters.items():
        ordinary = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if ordinary and parameter.default is parameter.empty and name not in given:
            offered = ", ".join(data_info(data)) or "nothing"
            raise UsageError(
                f"model.{name}: is missing; {settings.model['_target_']} has no default for it,"
                f" and {settings.data['_target_']} gives {offered}"
            )


def model_arguments(settings: Settings, data: LightningDataModule) -> dict[str, Any]:
    """Return all arguments that the model was made with, for making it again.

    They are plain: a mapping with ``_target_`` stands for the object that is made from it
    (`mlmodeldev.settings.instantiation.instantiated`).
    """
    target = _locate("model", settings.model["_target_"])
    return _arguments(target, settings.model, data_info(data))


def _construct(group: str, chosen: Mapping[str, Any], metadata: Mapping[str, Any]) -> Any:
    target = _locate(group, chosen["_target_"])
    arguments = instantiated(group, _arguments(target, chosen, metadata))
    positional = arguments.pop("_args_", ())
    plain = {name: value for name, value in arguments.items() if name not in INSTRUCTIONS}
    try:
        return target(*positional, **plain)
    except (TypeError, ValueError) as error:
        if error.__traceback__ and error.__traceback__.tb_next:
            raise  # from inside the class: the researcher wants to see where
        raise UsageError(f"{group}: {error}") from None


def _locate(group: str, target: str) -> Any:
    from hydra.utils import get_class

    accept_both_names()
    put_on_path(project_root())
    kind = _KINDS[group]
    check_kind(group, target, (kind,), f"a {kind.__name__}")
    try:
        return get_class(target)
    except (ImportError, ValueError) as error:
        if error.__cause__ and not isinstance(error.__cause__, ImportError | AttributeError):
            raise
        raise UsageError(f"{group}._target_={target}: {error}") from None


def _arguments(
    target: Any, chosen: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the chosen arguments, and of the data's those that the class names."""
    named = inspect.signature(target).parameters
    filled = {name: value for name, value in with_old_names(metadata).items() if name in named}
    if "_args_" in chosen:  # each argument once: what is given by place has no need to be filled
        for name in list(named)[: len(chosen["_args_"])]:
            filled.pop(name, None)
    return {**filled, **{k: v for k, v in chosen.items() if k != "_target_"}}
