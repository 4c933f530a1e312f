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
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

    from mlmodeldev.settings.schema import Settings


def compose_settings(overrides: Sequence[str] = (), partial: bool = False) -> Settings:
    """Compose the files of ``conf/`` and these overrides, and check the outcome.

    Args:
        overrides: as on the command line of trainer.py.
        partial: whether more settings are to come, so that what is mandatory may be missing.

    Raises:
        UsageError: naming the key, where it was given and what is allowed.
    """
    from mlmodeldev.settings.command_line import from_composed

    config, overrides = _composed(overrides)
    return from_composed(config, overrides, dict(config.hydra.runtime.choices), partial)


def unset(overrides: Sequence[str] = ()) -> dict[str, str]:
    """Return the settings that are mandatory (``???``) and not set, with the line that says so.

    Args:
        overrides: as on the command line of trainer.py.

    Raises:
        UsageError: these can't be composed.
    """
    from mlmodeldev.settings.command_line import unset_settings

    config, overrides = _composed(overrides)
    return unset_settings(config, overrides, dict(config.hydra.runtime.choices))


def _composed(overrides: Sequence[str]) -> tuple[Any, list[str]]:
    """Return what Hydra composes, and the overrides as it took them."""
    from mlmodeldev.settings.added_arguments import add_argument
    from mlmodeldev.settings.command_line import translate
    from mlmodeldev.settings.composition_errors import is_composition_error
    from mlmodeldev.settings.open_places import open_overrides
    from mlmodeldev.settings.renamed import current_overrides

    overrides = open_overrides(current_overrides(overrides))
    config: Any = None
    while config is None:
        try:
            config = _compose(overrides)
        except Exception as error:
            if not is_composition_error(error):
                raise
            added = add_argument(error, overrides)
            if added is None:
                raise UsageError(translate(error, overrides)) from None
            overrides = added
    return config, overrides


def _compose(overrides: list[str]) -> DictConfig:
    """Compose as Hydra does; only the choice of files is work, and that is kept.

    Hydra composes the files that group overrides choose, then sets values. Trials of a sweep
    differ in values alone: 0.01 s instead of 0.1 s for each.
    """
    from mlmodeldev.settings.conf_files import newest

    values = _plain_values(overrides)
    if values is None:
        return _from_files(tuple(overrides))
    chosen = tuple(item for item in overrides if "." not in item.partition("=")[0])
    config = copy.deepcopy(_kept(chosen, newest()))
    return config if _set_values(config, values) else _from_files(tuple(overrides))


def _set_values(config: DictConfig, values: Sequence[Override]) -> bool:
    """Set values in what the files gave; False where one does not fit, which Hydra words."""
    from omegaconf import OmegaConf

    try:
        for each in values:
            key, value = each.key_or_group, each.value()
            there = OmegaConf.select(config, key, throw_on_missing=False) is not None
            if each.is_add() and there and not isinstance(value, dict | list):
                return False
            adds = each.is_add() or each.is_force_add()
            OmegaConf.update(config, key, value, merge=True, force_add=adds)
    except Exception:  # OmegaConf has many kinds
        return False
    return True


def _plain_values(overrides: Sequence[str]) -> list[Override] | None:
    """Return the overrides that set a value by a dotted key; None where Hydra must see them all."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except (HydraException, ValueError):
        return None  # which says what is wrong
    plain = all(
        each.type is not OverrideType.DEL
        and not each.is_sweep_override()
        and each.package is None
        and not each.key_or_group.startswith("hydra")
        for each in parsed
    )
    return [each for each in parsed if "." in each.key_or_group] if plain else None


@functools.lru_cache(maxsize=8)
def _kept(chosen: tuple[str, ...], newest: tuple[str, int, int]) -> DictConfig:
    return _from_files(chosen)


def _from_files(overrides: tuple[str, ...]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from mlmodeldev.project import project_root

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(project_root() / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def refusal(key: str, value: Any, among: Sequence[str] = ()) -> str | None:
    """Return what is wrong with one override, or None; for checking sweep files.

    Args:
        key: dotted, or a group of ``conf/``.
        value: any.
        among: the other overrides, which choose files of ``conf/`` for instance.

    >>> refusal("optimizer.lrr", 0.1)    # doctest: +ELLIPSIS
    "optimizer.lrr: no such setting; did you mean 'lr'? ..."
    """
    from mlmodeldev.settings.overrides import to_overrides

    try:
        changed = None if len(among) > _MOST_KEPT else _with(key, value, tuple(among))
        if changed is None:
            compose_settings([*among, *to_overrides({key: value})], partial=True)
        else:
            _check(changed)
    except UsageError as error:
        return str(error).removesuffix(" [command line]")
    return None


_MOST_KEPT = 50
"""Settings of more overrides than this are not kept: they are met once."""


def _with(key: str, value: Any, among: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the settings with one value replaced; None where Hydra must compose anew."""
    *path, leaf = key.split(".")
    if not path:
        return None  # it chooses a file, which the others may need
    defaults = copy.deepcopy(_settings(among))
    node: Any = defaults
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node or "${" in str(value):
        return None
    node[leaf] = defaults["overrides"][key] = value
    return defaults


@functools.lru_cache(maxsize=64)
def _settings(overrides: tuple[str, ...]) -> dict[str, Any]:
    return compose_settings(overrides, partial=True).model_dump()


def _check(container: dict[str, Any]) -> None:
    from mlmodeldev.project import project_root
    from mlmodeldev.settings.validation import validate

    validate(container, project_root(), partial=True)
