"""Compose settings from overrides without a command line: for launchers, notebooks and tests.

Example::

    settings = compose_settings(["optimizer.lr=0.003", "logger=csv"])
    result = trainer.train(settings)
"""

from __future__ import annotations

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
        compose_settings(to_overrides({key: value}))
    except UsageError as error:
        return str(error).removesuffix(" [command line]")
    return None
