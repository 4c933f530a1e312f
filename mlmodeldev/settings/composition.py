"""Compose settings from overrides without a command line: for launchers, notebooks and tests.

Example::

    settings = compose_settings(["optimizer.lr=0.003", "logger=csv"])
    result = trainer.train(settings)
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings


def compose_settings(overrides: Sequence[str] = ()) -> Settings:
    """Compose the files of ``conf/`` and these overrides, and check the outcome.

    Args:
        overrides: as on the command line of trainer.py.

    Raises:
        UsageError: naming the key, where it was given and what is allowed.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from mlmodeldev.settings.cli import config_root, from_composed, is_composition_error, translate

    conf = config_root() / "conf"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        try:
            config: Any = compose("config", overrides=list(overrides), return_hydra_config=True)
        except Exception as error:
            if not is_composition_error(error):
                raise
            raise UsageError(translate(error, overrides)) from None
    return from_composed(config, list(overrides), dict(config.hydra.runtime.choices))


def refusal(key: str, value: Any) -> str | None:
    """Return what is wrong with one override, or None; for checking sweep files.

    >>> refusal("optimizer.lrr", 0.1)    # doctest: +ELLIPSIS
    "optimizer.lrr: no such setting; did you mean 'lr'? ..."
    """
    from mlmodeldev.trial.overrides import to_overrides

    try:
        changed = _with(key, value)
        if changed is None:
            compose_settings(to_overrides({key: value}))
        else:
            _check(changed)
    except UsageError as error:
        return str(error).removesuffix(" [command line]")
    return None


def _with(key: str, value: Any) -> dict[str, Any] | None:
    """Return the defaults with one value replaced; None where Hydra must compose anew."""
    defaults = copy.deepcopy(_defaults())
    *path, leaf = key.split(".")
    node: Any = defaults
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not path or not isinstance(node, dict) or leaf not in node or "${" in str(value):
        return None
    node[leaf] = value
    return defaults


@functools.cache
def _defaults() -> dict[str, Any]:
    return compose_settings().model_dump()


def _check(container: dict[str, Any]) -> None:
    from mlmodeldev.settings.cli import config_root
    from mlmodeldev.settings.validation import validate

    validate(container, config_root())
