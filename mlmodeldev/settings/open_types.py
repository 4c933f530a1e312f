"""Types of the settings that take names from outside: Trainer arguments, strategies, callbacks."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticKnownError

from mlmodeldev.settings.trainer_arguments import refused_argument


def _passed_on(name: str) -> str:
    if reason := refused_argument(name):
        raise ValueError(reason)
    return name


def _starts_no_processes(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    if re.match(r"ddp_(spawn|fork|notebook)", name):
        raise ValueError(
            f"{name} starts processes of its own, past those that claim the trial's folder; ddp"
            " with training.devices=N computes the same"
        )
    if name.startswith("deepspeed"):
        raise ValueError(f"{name} writes checkpoints that no trial can go on from; fsdp shards too")
    return name


def _a_callback(value: Any) -> Any:
    """Take a mapping with ``_target_``, or null for one that is left out."""
    if value is None or (isinstance(value, dict) and "_target_" in value):
        return value
    raise PydanticKnownError("extra_forbidden")


TrainerArguments = dict[Annotated[str, AfterValidator(_passed_on)], Any]
Strategy = Annotated[
    Literal[
        "auto",
        "ddp",
        "ddp_find_unused_parameters_true",
        "ddp_find_unused_parameters_false",
        "fsdp",
    ],
    BeforeValidator(_starts_no_processes),
]
AddedCallback = Annotated[dict[str, Any] | None, BeforeValidator(_a_callback)]
