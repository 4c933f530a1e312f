"""Machinery behind trainer.py, model.py and datamodule.py: imported by a researcher, not edited.

Nothing heavy is imported here, so that ``--help`` and configuration errors answer at once.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import CodeType, ModuleType
    from typing import Any

    from pytorch_lightning import LightningModule

__version__ = "0.2.0"


def load(folder: str | Path, **arguments: Any) -> LightningModule:
    """Return the model of a trial's ``best/`` or ``last/``, in eval mode, on the CPU.

    Args:
        folder: the export's folder, or the trial's: its best then.
        arguments: of the model's constructor, instead of the stored ones.

    Raises:
        UsageError: no export, no such class, or weights that do not fit it.
    """
    from importlib import import_module  # by name: the rooms below this file know none above them

    model: LightningModule = import_module("mlmodeldev.training.load").load(folder, **arguments)
    return model


def compose(*overrides: str) -> Any:
    """Return the settings that a command line of trainer.py would train with; for a notebook.

    The project is the one of the working directory, or that ``MLMODELDEV_PROJECT`` names; its
    modules can be imported afterwards.

    Args:
        overrides: as on the command line: ``"training.max_epochs=2"``, ``"data=cola"``.

    Returns:
        a `mlmodeldev.settings.Settings`, which ``trainer.train`` takes: typed groups, such as
        ``settings.training.max_epochs``.

    Raises:
        UsageError: no project, or a bad setting: naming the key, and what is allowed.

    Example::

        settings = mlmodeldev.compose("training.max_epochs=2", "logger=csv")
        result = importlib.import_module("trainer").train(settings)
    """
    from importlib import import_module

    project = import_module("mlmodeldev.project")
    project.put_on_path(project.project_root())
    composition = import_module("mlmodeldev.settings.composition")
    return composition.compose_settings(overrides)


OLD_MODULES = {
    "mlmodeldev.key_guard": "mlmodeldev.secrets",
}
"""Modules that were renamed: the old name goes on working, with what lies below it."""


class _OldModules:
    """Finds a module by its old name; asked last, so only where there is no file of that name."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec that leads to the new module; None for a name that was never one."""
        real = _real_spec(name)
        if real is None:
            return None
        from importlib.machinery import ModuleSpec

        is_package = real.submodule_search_locations is not None
        return ModuleSpec(name, self, origin=real.origin, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return None: an ordinary, empty module, whose names are looked up in the new one."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the module the names of the new one."""
        from importlib import import_module

        new = import_module(_new_name(module.__name__) or "")
        module.__dict__["__getattr__"] = lambda name: getattr(new, name)

    def get_code(self, name: str) -> CodeType | None:
        """Return the code of the new module, for ``python -m``."""
        real = _real_spec(name)
        return real.loader.get_code(real.name) if real else None  # type: ignore[union-attr]


def _real_spec(name: str) -> ModuleSpec | None:
    """Return the spec of the new module; None for a name that was never an old one's."""
    from importlib.util import find_spec

    new = _new_name(name)
    return find_spec(new) if new else None


def _new_name(name: str) -> str | None:
    """Return today's name of a module."""
    for old, new in OLD_MODULES.items():
        if name == old or name.startswith(old + "."):
            return new + name.removeprefix(old)
    return None


sys.meta_path.append(_OldModules())
