"""Arguments of the user's classes that no file of ``conf/`` lists: they are set without ``+``.

Hydra refuses a key that no file has. Where it is an argument of the chosen class, it is added; a
typo is still refused, with the nearest name that there is.

Example::

    add_argument(error, ["model.vocab_size=7"])     # ["++model.vocab_size=7"]; None: no argument
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.project import project_root, put_on_path
from mlmodeldev.settings.conf_files import groups, newest
from mlmodeldev.settings.source import Keywords, read_class

if TYPE_CHECKING:
    from omegaconf import DictConfig

_REFUSED = re.compile(r"Could not override '((model|data)\.(\w+))'")
_TYPO = 0.75
"""How alike two names are of which one is a slip, where a class takes any name (``**kwargs``)."""


def add_argument(error: Exception, overrides: Sequence[str]) -> list[str] | None:
    """Return the overrides with Hydra's ``++`` before an argument that it has refused.

    Args:
        error: Hydra's.
        overrides: as they were given.

    Returns:
        None where the error is another, or the chosen class does not take the argument.
    """
    match = _REFUSED.search(str(error))
    if match is None:
        return None
    key, group, name = match.groups()
    node: Any = compose_groups(overrides).get(group)
    listed = [*map(str, node)] if hasattr(node, "keys") else []
    target = _target(group, overrides) or (node.get("_target_") if listed else None)
    if not target or not _takes(str(target), name, listed):
        return None
    # the group's other arguments at once, for there may be thousands
    others = {item.partition("=")[0] for item in overrides if item.startswith(f"{group}.")} - {key}
    taken = {key} | {
        other
        for other in others
        if (own := other.partition(".")[2]).isidentifier()
        and own not in listed
        and _takes(str(target), own, listed)
    }
    added = [f"++{item}" if item.partition("=")[0] in taken else item for item in overrides]
    return added if added != list(overrides) else None


def argument_names(target: str) -> Collection[str]:
    """Return the names that the source of a class gives its constructor's arguments."""
    module, _, name = target.rpartition(".")
    source = read_class(project_root(), module, name)
    return source.keywords.names if source and source.keywords else ()


def compose_groups(overrides: Sequence[str]) -> DictConfig:
    """Compose with only the group choices of this command line, which are known to exist.

    Not to be changed: the outcome is kept.
    """
    chosen = {*groups()}
    choices = [a for a in overrides if a.partition("=")[0] in chosen and "," not in a]
    return _composed(tuple(choices), newest())


@functools.lru_cache(maxsize=8)
def _composed(overrides: tuple[str, ...], newest: tuple[str, int, int]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(project_root() / "conf"), version_base="1.3"):
        try:
            return compose("config", overrides=list(overrides))
        except Exception:
            return compose("config")


def _target(group: str, overrides: Sequence[str]) -> str | None:
    """Return the class that the command line names itself, if it does."""
    keys = [item.lstrip("+").partition("=") for item in overrides]
    return next((v for k, _, v in reversed(keys) if k == f"{group}._target_"), None)


def _takes(target: str, name: str, listed: Collection[str]) -> bool:
    module, _, kind = target.rpartition(".")
    source = read_class(project_root(), module, kind)
    if source is not None and source.names is not None:
        return False  # there is no such class
    keywords = source.keywords if source else None
    if keywords is None and not _is_typo(name, listed):
        keywords = _of_imported(module, kind)
    if keywords is None:
        return False
    if name in keywords.names:
        return True
    return keywords.takes_any and not _is_typo(name, {*listed, *keywords.names})


def _is_typo(name: str, names: Collection[str]) -> bool:
    return bool(difflib.get_close_matches(name, names, n=1, cutoff=_TYPO))


def _of_imported(module: str, kind: str) -> Keywords | None:
    """Return what the class itself takes; the source text does not tell."""
    put_on_path(project_root())
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), kind)).parameters
    except Exception:  # whatever its module raises: that is said where it is made
        return None
    kinds = [parameter.kind for parameter in parameters.values()]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = tuple(n for n, parameter in parameters.items() if parameter.kind in named)
    return Keywords(names, inspect.Parameter.VAR_KEYWORD in kinds)
