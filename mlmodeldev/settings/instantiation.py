"""Objects that settings describe: Hydra's ``_target_``, ``_partial_``, ``_args_``, ``_convert_``.

Example::

    instantiate("model.backbone", {"_target_": "torch.nn.Linear", "in_features": 2, ...})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.targets import check_arguments

INSTRUCTIONS = ("_target_", "_args_", "_partial_", "_convert_", "_recursive_")
"""Keys that say how an object is made; all others are its arguments."""


def has_target(value: Any) -> bool:
    """Whether a value is, or holds somewhere, a mapping with ``_target_``."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(has_target, value.values()))
    return isinstance(value, list | tuple) and any(map(has_target, value))


def instantiated(group: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a class, with an object in place of each mapping with ``_target_``.

    Values that hold no such mapping are returned as they are, not as OmegaConf's containers.

    Args:
        group: dotted name of the place, such as ``model``, for messages.
        arguments: plain; ``_recursive_: false`` among them leaves all as it is.

    Raises:
        UsageError: a target can't be imported, or does not take its arguments.
    """
    if arguments.get("_recursive_") is False:
        return dict(arguments)
    return {
        name: instantiate(f"{group}.{name}", value) if has_target(value) else value
        for name, value in arguments.items()
    }


def instantiate(place: str, value: Any) -> Any:
    """Return what a mapping with ``_target_`` (or a list of such) describes.

    An error from inside of the class keeps its traceback.

    Args:
        place: dotted key of the mapping.
        value: plain; ``_convert_`` is ``all`` unless given: objects get plain lists and mappings.

    Raises:
        UsageError: a target can't be imported, does not take its arguments, or may run programs
            (`mlmodeldev.settings.targets`).
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as make
    from omegaconf import OmegaConf

    from mlmodeldev.settings.lightning_names import accept_both_names

    accept_both_names()
    check_arguments(place, value)
    try:
        if isinstance(value, Mapping):
            return make(OmegaConf.create({"_convert_": "all", **value}))
        return make(OmegaConf.create(value), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error.__context__
        if cause is not None and _is_from_inside(cause):
            raise cause from None
        raise UsageError(f"{_place(place, str(error))}: {_reason(error, cause)}") from None


def _is_from_inside(error: BaseException) -> bool:
    """Whether an error was raised in the class's code: the researcher wants to see where."""
    frames, trace = [], error.__traceback__
    while trace:
        frames.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return not frames[-1].startswith(("hydra.", "importlib", "<frozen"))


def _place(place: str, text: str) -> str:
    """Return the dotted key of the part of a value that Hydra names at the end of its message."""
    _, mark, inner = text.rpartition("full_key: ")
    return f"{place}.{inner.strip()}" if mark else place


def _reason(error: Exception, cause: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "full_key:" not in line]
    text = " ".join(line for line in lines if line)
    text = text.replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", "")
    if cause is not None and str(cause) and str(cause) not in text:
        text += f": {' '.join(str(cause).split())}"
    return text
