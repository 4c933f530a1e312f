"""Which registry a name stands for: a folder, MLflow's, or W&B's.

====================================== =======================================================
``/shared/models``, ``./models``       a folder
``mlflow``                             where ``logger=mlflow`` writes to
``mlflow:sqlite:////shared/mlflow.db`` this database; ``mlflow:https://HOST``: this server
``wandb``                              W&B's registry for models, ``wandb-registry-model``
``wandb:ORG/wandb-registry-vision``    another one; ``wandb:ENTITY/PROJECT``: a project's own
====================================== =======================================================

Example::

    registry_at("mlflow", Path("runs")).names()
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.project import project_root

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Logger
    from mlmodeldev.tracking.registry import Registry

MLFLOW, WANDB = "mlflow", "wandb"

_ALLOWED = "a folder, mlflow[:URI], wandb[:ORG/wandb-registry-NAME] or wandb:ENTITY/PROJECT"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+-]*):(.*)")


def is_folder(place: str) -> bool:
    """Return whether a registry's name is that of a folder."""
    return place.partition(":")[0] not in (MLFLOW, WANDB)


def registry_at(place: str, runs_dir: Path) -> Registry:
    """Return the registry.

    Args:
        place: as in the table above.
        runs_dir: of the project.

    Raises:
        UsageError: it is none of these, or a package for it is not installed.
    """
    kind, colon, rest = place.partition(":")
    if colon and not rest:
        raise UsageError(f"registry {place!r}: nothing follows the colon ({_ALLOWED})")
    if kind == MLFLOW:
        from mlmodeldev.tracking.registry_mlflow import MlflowRegistry

        return MlflowRegistry.at(rest or None, runs_dir, _logger(MLFLOW).mlflow)
    if kind == WANDB:
        from mlmodeldev.tracking.registry_wandb import WandbRegistry

        return WandbRegistry.at(rest or None, runs_dir, _logger(WANDB).wandb)
    from mlmodeldev.tracking.registry_folder import FolderRegistry

    _check_folder(place)
    return FolderRegistry(Path(place))


def refuse_missing_folder(place: str, name: str) -> None:
    """Refuse a folder that is not there, where nothing is to be put into it.

    Raises:
        UsageError: it is no folder, or no registry by its look.
    """
    _check_folder(place)
    path = Path(place).expanduser()
    if not path.is_dir():
        there = [each.name for each in path.parent.glob("[!.]*") if each.is_dir()]
        raise UsageError(f"{name} {place}: there is no such folder{nearest(path.name, there)}")


def _check_folder(place: str) -> None:
    """Refuse an address, and a word that means another registry by its look.

    Raises:
        UsageError: it is one.
    """
    if Path(place).expanduser().is_dir():
        return
    if match := _SCHEME.fullmatch(place):
        written = match[1].startswith(("http", "sqlite", "postgresql", "mysql", "mssql"))
        hint = "; write mlflow: before it" if written else nearest(match[1], [MLFLOW, WANDB])
        raise UsageError(f"registry {_shown(place)}: is no registry ({_ALLOWED}){hint}")
    hint = nearest(place, [MLFLOW, WANDB]) if "/" not in place else ""
    if hint:
        raise UsageError(f"registry {place}: no such folder{hint} (a new folder: ./{place})")


def _shown(place: str) -> str:
    from mlmodeldev.settings.tracking_address import without_password

    return without_password(place)


def _logger(tracker: str) -> Logger:
    """Return what the project's settings say of a tracker; the defaults where is no project."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.settings.schema import Logger, MlflowLogger, WandbLogger

    try:
        project_root()
    except UsageError:  # a program that only loads a model
        return Logger(wandb=WandbLogger(), mlflow=MlflowLogger())
    return compose_settings([f"logger={tracker}"], partial=True).logger
