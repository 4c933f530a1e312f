"""A model that makes its own optimizer: settings of ours would be without effect, so are refused.

Example::

    unused_setting({"optimizer.lr": 0.1}, "mine.Net", ["lr", "width"])
    # 'optimizer.lr=0.1: mine.Net makes its own optimizer; set model.lr'
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_LIKE = {
    "lr": ("lr", "learning_rate", "base_lr", "max_lr"),
    "weight_decay": ("weight_decay", "wd"),
    "betas": ("betas", "adam_betas"),
    "momentum": ("momentum",),
    "schedule": ("schedule", "scheduler", "lr_scheduler"),
    "warmup_fraction": ("warmup_fraction", "warmup", "warmup_steps", "num_warmup_steps"),
    "name": ("optimizer", "optimizer_name", "opt"),
    "": ("optimizer", "optimizer_name", "opt"),
}
"""What a model may call a setting of the group ``optimizer``."""


def unused_setting(
    overrides: Mapping[str, Any], target: str, arguments: Collection[str]
) -> str | None:
    """Return the line that refuses the first ``optimizer`` setting that was asked for, or None.

    Args:
        overrides: flat, what was asked beyond the defaults.
        target: the model's class.
        arguments: names of its constructor's.
    """
    for key, value in overrides.items():
        group, _, name = key.lstrip("~").partition(".")
        if group != "optimizer":
            continue
        own = next((one for one in _LIKE.get(name, (name,)) if one in arguments), None)
        hint = f"set model.{own}" if own else f"it has no argument like '{name or group}'"
        return f"{key}={value}: {target} makes its own optimizer; {hint}"
    return None
