"""``lightning.pytorch`` and ``pytorch_lightning`` as one: classes from either are taken.

The two packages hold the same code twice, and a model from one does not train with the Trainer of
the other. So the names of the first are made to mean the modules of the second, whether or not the
package ``lightning`` is installed.

Example::

    accept_both_names()
    from lightning.pytorch import LightningModule     # pytorch_lightning.LightningModule
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from mlmodeldev.errors import UsageError

_SAME = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}
_OF_THE_TOP = ("Callback", "LightningDataModule", "LightningModule", "Trainer", "seed_everything")


def accept_both_names() -> None:
    """From now on ``lightning.pytorch`` means ``pytorch_lightning``, in this process.

    Raises:
        UsageError: the other package has been imported already.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if "lightning.pytorch" in sys.modules:
        raise UsageError(
            "lightning.pytorch was imported before the settings were read, so its classes are not"
            " those of pytorch_lightning, which trains here: import it in the files of the model"
            " and the data only, or write 'pytorch_lightning' there"
        )
    sys.meta_path.insert(0, _Finder())


def of_the_other(made: type) -> str:
    """Return ``" of pytorch_lightning"`` with the cause, if a class is of the other package."""
    if not any(kind.__module__.startswith("lightning.") for kind in made.__mro__):
        return ""
    return " of pytorch_lightning; it is one of lightning.pytorch, imported too early"


class _Finder(MetaPathFinder):
    """Answers for ``lightning``, ``lightning.pytorch`` and ``lightning.fabric``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "lightning":
            installed = PathFinder.find_spec(fullname)
            spec = ModuleSpec(fullname, _Top(), is_package=True)
            places = installed.submodule_search_locations if installed else None
            spec.submodule_search_locations = list(places or ())
            return spec
        package = ".".join(fullname.split(".")[:2])
        if package not in _SAME:
            return None
        real = _SAME[package] + fullname.removeprefix(package)
        return ModuleSpec(fullname, _Alias(real)) if _exists(real) else None


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class _Alias(Loader):
    """Loads a module by another name: the very same object."""

    def __init__(self, real: str) -> None:
        self._real = real
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._real)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importing it again has put the other name there


class _Top(Loader):
    """Loads ``lightning`` itself, which has a few names of its own."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = _of_the_top


def _of_the_top(name: str) -> Any:
    if name in _OF_THE_TOP:
        return getattr(importlib.import_module("pytorch_lightning"), name)
    if f"lightning.{name}" in _SAME:
        return importlib.import_module(f"lightning.{name}")
    if name == "Fabric":
        return importlib.import_module("lightning_fabric").Fabric
    if name == "__version__":
        return importlib.import_module("pytorch_lightning").__version__
    raise AttributeError(f"module 'lightning' has no attribute {name!r}")
