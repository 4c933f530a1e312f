"""Load an exported model again, in any process and from any working directory.

Example::

    model = mlmodeldev.load("runs/single/ab12cd34/best")       # in eval mode, on the CPU

The class comes from the project that the folder lies in, or that ``MLMODELDEV_PROJECT`` names.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.callbacks.export_files import ARGUMENTS, ARRAY, CONFIG, EXTRA, WEIGHTS
from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.project import PROJECT_VARIABLE, project_root, put_on_path
from mlmodeldev.settings.instantiation import INSTRUCTIONS, instantiated
from mlmodeldev.settings.lightning_names import accept_both_names
from mlmodeldev.settings.renamed import current_arguments, current_target
from mlmodeldev.tracking.registry import SCHEME, model_folder

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule
    from torch import nn

STATE = "training_state.json"


def load(folder: str | Path, **arguments: Any) -> LightningModule:
    """Return the model of an export, in eval mode, on the CPU.

    Args:
        folder: ``best/`` or ``last/`` of a trial, or the trial's folder: its best then; or
            ``models:/NAME@champion`` of the registry in ``runs/``, or that which
            ``MLMODELDEV_REGISTRY`` names (`mlmodeldev.tracking.registry`).
        arguments: of the constructor, instead of the stored ones.

    Raises:
        UsageError: no export, no such class, or weights that do not fit it.
    """
    if str(folder).startswith(SCHEME):
        folder = model_folder(str(folder), Path("runs"))
    folder = export_folder(Path(folder).expanduser().absolute())
    state = read_state(folder)
    config = _read_config(folder)
    kind = find_class(folder, config.get("class") or state["settings"]["model"]["_target_"])
    stored = config.get("arguments", state["model_arguments"])
    stored = {**stored, **_stored_tensors(folder, ARGUMENTS), **arguments}
    stored = current_arguments(stored, signature(kind).parameters)
    if "class" not in config and hasattr(kind, "load"):
        model: LightningModule = kind.load(folder, stored)
        return model.eval()
    missing = {n: t for n, t in config.get("arguments_not_stored", {}).items() if n not in stored}
    if missing:
        name, type_name = next(iter(missing.items()))
        raise UsageError(
            f"{folder}: the argument {name} (a {type_name}) could not be stored; give it:"
            f" mlmodeldev.load(folder, {name}=...)"
        )
    made = _made(kind, stored, folder)
    _fill(made, folder)
    return made.eval()


def export_folder(folder: Path) -> Path:
    """Return the folder of an export: this one, or best/ of the trial that is named.

    Raises:
        UsageError: there is none.
    """
    for place in (folder, folder / "best"):
        if (place / STATE).is_file():
            return place
    raise UsageError(f"{folder}: no export here (a trial writes it when it is done)")


def read_state(folder: Path) -> dict[str, Any]:
    """Return what ``training_state.json`` tells.

    Raises:
        UsageError: it is damaged.
    """
    file = folder / STATE
    needed = {"settings", "model_arguments", "data"}
    try:
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if needed <= set(state) and "_target_" in state["settings"].get("model", {}):
            return state
        reason = f"it must have {', '.join(sorted(needed))}"
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        reason = str(error)
    raise UsageError(f"{file}: is damaged ({reason}); start the trial again to write it anew")


def _read_config(folder: Path) -> dict[str, Any]:
    """Return our config.json; an empty one where the model has written its own, or none."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) and "arguments_not_stored" in config else {}


# --- the class


def find_class(folder: Path, target: str) -> Any:
    """Return the class of an export, imported from its project.

    Raises:
        UsageError: there is no such module or class, or it is no model's; the line names the
            module and its file.
    """
    root = _project(folder)
    if root is not None:
        put_on_path(root)
        target = current_target(target, root)
    name, _, attribute = target.rpartition(".")
    file = (root or Path()) / f"{name.replace('.', '/')}.py"
    with contextlib.suppress(UsageError):  # a notebook may well have the other one
        accept_both_names()
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name
            and f"{name}.".startswith(f"{error.name}.")
        ):
            raise UsageError(
                f"{folder}: its model is {target}, and there is no module {name} ({file});"
                f" {PROJECT_VARIABLE} names the project that has it"
            ) from None
        raise UsageError(f"{folder}: {target} can't be imported ({file}): {error}") from None
    there = Path(getattr(module, "__file__", None) or file)
    if file.is_file() and there.resolve() != file.resolve():
        raise UsageError(
            f"{folder}: its model is {target} of {file}, but this process has imported {there} as"
            f" {name}; load it in a process of its own"
        )
    if not hasattr(module, attribute):
        raise UsageError(
            f"{folder}: its model is {target}, and {there} has no {attribute}"
            f"{nearest(attribute, vars(module))}"
        )
    import pytorch_lightning

    kind = getattr(module, attribute)
    if not (isinstance(kind, type) and issubclass(kind, pytorch_lightning.LightningModule)):
        raise UsageError(f"{folder}: its model is {target}, which must be a LightningModule")
    return kind


def _project(folder: Path) -> Path | None:
    if os.environ.get(PROJECT_VARIABLE):
        return project_root()
    for parent in folder.resolve().parents:
        if (parent / "conf" / "config.yaml").is_file():
            return parent
    try:
        return project_root()
    except UsageError:
        return None


# --- the module


def _made(kind: Any, arguments: Mapping[str, Any], folder: Path) -> LightningModule:
    """Return a module of the class; nested mappings with ``_target_`` are made by Hydra."""
    built = instantiated("model", arguments)
    positional = built.get("_args_", ())
    named = {name: value for name, value in built.items() if name not in INSTRUCTIONS}
    try:
        made: LightningModule = kind(*positional, **named)
    except (TypeError, ValueError) as error:
        name = getattr(kind, "__name__", kind)
        raise UsageError(f"{folder}: {name} refuses its arguments: {error}") from error
    if hasattr(made, "configure_model"):
        made.configure_model()
    return made


def _fill(module: nn.Module, folder: Path) -> None:
    """Give a module the weights of an export, in the number formats that they have there."""
    from safetensors import SafetensorError, safe_open
    from torch.nn.parameter import is_lazy

    file = folder / WEIGHTS
    try:
        with safe_open(file, "pt") as opened:
            state: dict[str, Any] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            shared = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{file}: can't be loaded ({error})") from None
    state |= {name: state[first] for name, first in shared.items() if first in state}
    state |= _stored_tensors(folder, EXTRA)
    _take_formats(module, state)
    unused = {name for name, value in module.state_dict().items() if is_lazy(value)} - set(state)
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UsageError(f"{file}: {' '.join(str(error).split())}") from None
    wrong = [name for name in missing if name not in unused] or unexpected
    if wrong and getattr(module, "strict_loading", True):
        how = "has not" if wrong is unexpected else "lacks in the file"
        raise UsageError(
            f"{file}: does not fit {type(module).__name__}, which {how} {', '.join(wrong[:3])}"
            f"{' and more' if len(wrong) > 3 else ''} (was its code changed?)"
        )


def _take_formats(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Give parameters the file's number formats, and buffers its shapes, too.

    Loading copies into what is there: weights in double precision would become single ones. A
    buffer may have grown in training, or have been None before it.
    """
    import torch
    from torch.nn.parameter import is_lazy

    for name, parameter in module.named_parameters():
        if name in state and not is_lazy(parameter):
            parameter.data = parameter.data.to(state[name].dtype)
    for path, part in module.named_modules():
        for name, buffer in part._buffers.items():
            value = state.get(f"{path}.{name}" if path else name)
            if value is not None and not (buffer is not None and is_lazy(buffer)):
                part._buffers[name] = torch.empty_like(value)


def _stored_tensors(folder: Path, name: str) -> dict[str, Any]:
    """Return what a file of the export holds beside the weights; nothing where there is none."""
    import torch

    file = folder / name
    if not file.is_file():
        return {}
    try:
        stored: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return {name: _as_given(value) for name, value in stored.items()}
    except Exception as error:  # of many kinds for damaged bytes, which may claim to be huge
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{file}: can't be loaded ({reason})") from None


def _as_given(value: Any) -> Any:
    is_array = isinstance(value, tuple) and len(value) == 2 and value[0] == ARRAY
    return value[1].numpy() if is_array else value
