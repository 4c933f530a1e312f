"""From a command line to `Settings`, and from any error to a line and an exit status.

Hydra composes; this file validates what it composed and translates its errors. Exit status: 0
done, 2 bad input, 75 interrupted, 1 anything else (with a traceback, for it is a defect or the
user's own code; of a trial that another process has taken over, a line).

Example::

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def main(config): call(train, config)

    run(main, train)
"""

from __future__ import annotations

import copy
import difflib
import functools
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mlmodeldev.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    TrialInterrupted,
    UsageError,
    drop_output,
    nearest,
)
from mlmodeldev.lease import LostLease
from mlmodeldev.machine import keep_from_others, share_cores
from mlmodeldev.output import keep_going_without_output, open_streams
from mlmodeldev.project import PROJECT_VARIABLE, project_root
from mlmodeldev.secrets import guard_output, refuse_in_arguments, refuse_in_values
from mlmodeldev.settings.added_arguments import add_argument, argument_names, compose_groups
from mlmodeldev.settings.composition_errors import (
    first_lines,
    is_composition_error,
    read_file,
    unreadable,
)
from mlmodeldev.settings.conf_files import choices_of, file_of_choice, groups
from mlmodeldev.settings.open_places import open_overrides
from mlmodeldev.settings.renamed import current_overrides, current_target, warn_once

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlmodeldev.settings.schema import Settings


T = TypeVar("T")

_NO_NAME = "Config group override must be a string"

SETTINGS_VARIABLE = "MLMODELDEV_SETTINGS"
"""Holds the settings, as JSON, for a process that another process of the same trial starts."""


_programs: list[str] = []


def is_program() -> bool:
    """Whether this process does nothing but train: it is trainer.py, no script that calls it."""
    return bool(_programs)


def run(main: Callable[[], Any], train: Callable[[Settings], Any]) -> None:
    """Call a ``hydra.main`` function and end the process with the status that fits.

    A process that belongs to a trial of several gets its settings ready-made, past Hydra, and
    calls ``train`` with them.
    """
    share_cores()
    open_streams()
    guard_output()
    keep_from_others()
    _programs.append(sys.argv[0])
    if not _WITHOUT_TRAINING & set(sys.argv[1:]):
        keep_going_without_output()
    _let_help_list_groups()
    given = os.environ.pop(SETTINGS_VARIABLE, None)
    # Hydra then raises to us what it would print; its own way exits 1 for a typo.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if given is None:
            sys.argv[1:] = open_overrides(current_overrides(_from_agent(sys.argv[1:])))
            refuse_in_arguments(sys.argv[1:])
            if {"-m", "--multirun"} & set(sys.argv[1:]):  # a launcher's workers run no trainer.py
                os.environ[PROJECT_VARIABLE] = str(project_root())
            _compose_and_train(main)
        else:
            train(_from_json(given))
    except (UsageError, TrialInterrupted, LostLease) as error:
        _exit(_status(error), str(error))
    except BrokenPipeError:
        if not _WITHOUT_TRAINING & set(sys.argv[1:]):
            raise
        drop_output()
    except Exception as error:
        if not is_composition_error(error):
            raise
        _exit(EXIT_BAD_INPUT, translate(error, sys.argv[1:]))


_WITHOUT_TRAINING = {"--cfg", "-c", "--info", "-i", "--help", "-h"}
"""Hydra's options that show settings and train nothing."""


def _compose_and_train(main: Callable[[], Any]) -> None:
    """Call a ``hydra.main`` function; again, where it refuses what the user's class takes."""
    from hydra.core.global_hydra import GlobalHydra

    while True:
        try:
            main()
            return
        except Exception as error:
            added = add_argument(error, sys.argv[1:]) if is_composition_error(error) else None
            if added is None:
                raise
            sys.argv[1:] = added
            GlobalHydra.instance().clear()


def _let_help_list_groups() -> None:
    """Hydra's own list for ``--help`` leaves out what its search path adds to ``conf/``."""
    from omegaconf import OmegaConf

    from mlmodeldev.settings.conf_files import list_groups

    OmegaConf.register_new_resolver("groups_of_settings", list_groups, replace=True)


def call(train: Callable[[Settings], T], config: DictConfig) -> T:
    """Check a composed configuration and train; used inside of a ``hydra.main`` function.

    Bad input and interruption end the process here: Hydra would write a line of its own. In the
    worker processes of a launcher they are raised, for the launcher to pass on.
    """
    try:
        return train(from_hydra(config))
    except (UsageError, TrialInterrupted, LostLease) as error:
        if multiprocessing.parent_process() is not None:
            raise
        _exit(_status(error), str(error))


def _from_agent(arguments: list[str]) -> list[str]:
    """Return the arguments, with types kept where a W&B agent has handed them over."""
    if "WANDB_SWEEP_ID" not in os.environ:
        return arguments
    from mlmodeldev.settings.overrides import typed

    return typed(arguments)


def _status(error: Exception) -> int:
    if isinstance(error, LostLease):
        return 1  # nothing to correct, and nothing to come back for: another has the trial
    return EXIT_INTERRUPTED if isinstance(error, TrialInterrupted) else EXIT_BAD_INPUT


def _from_json(text: str) -> Settings:
    from mlmodeldev.settings.schema import Settings

    return Settings.model_validate_json(text)


def _exit(status: int, text: str) -> NoReturn:
    sys.stdout.flush()
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr)
    sys.exit(status)


def from_hydra(config: DictConfig) -> Settings:
    """Resolve and check the configuration of a ``hydra.main`` function.

    Raises:
        UsageError: naming the key, where it was given and what is allowed.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    # As written: a tie between two settings, lr=${...}, is part of what was asked.
    overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return from_composed(config, overrides, dict(hydra.runtime.choices))


def from_composed(
    config: DictConfig, overrides: list[str], choices: dict[str, Any], partial: bool = False
) -> Settings:
    """Resolve and check a composed configuration.

    Args:
        config: what Hydra composed.
        overrides: as they were given.
        choices: the file that was chosen of each group.
        partial: whether more settings are to come, so that what is mandatory may be missing.

    Raises:
        UsageError: naming the key, where it was given and what is allowed.
    """
    from mlmodeldev.settings.overrides import parse_overrides
    from mlmodeldev.settings.validation import validate

    names = [str(name) for name in config if name != "hydra"]
    if "overrides" in names:
        raise UsageError("overrides: is made of the command line, and can't be set on it")
    _check_own(names, overrides)
    place = functools.partial(_origin, overrides=overrides, choices=choices)
    container, tied = _resolved(config, names)
    missing = [key for key in _missing(container) if key not in tied]
    if missing and not partial:
        raise UsageError(_unset_line(missing[0], place))
    container = _without_missing(container)
    for group in ("model", "data"):
        if isinstance(container.get(group), dict) and "_target_" in container[group]:
            target = current_target(container[group]["_target_"], project_root())
            container[group]["_target_"] = target
    refuse_in_arguments(overrides)
    for group, values in container.items():
        refuse_in_values({group: values}, f"conf/{group}/{choices.get(group)}.yaml")
    return validate(
        {**container, "overrides": parse_overrides(overrides)},
        project_root(),
        place,
        partial,
    )


def _check_own(names: list[str], overrides: list[str]) -> None:
    """Take groups and settings of one's own from files, none that only the command line names.

    Raises:
        UsageError: with the nearest name that there is.
    """
    from mlmodeldev.settings.schema import Settings

    own = [name for name in names if name not in Settings.model_fields]
    added = {re.split(r"[.@=]", item)[0].lstrip("+") for item in overrides if item[0] == "+"}
    for name in own:
        if name in added and name not in compose_groups(overrides):
            raise UsageError(_unknown_key(name, overrides))
        close = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.85)
        if close:
            warn_once(f"conf/: {name} is kept as a setting of your own; is {close[0]} meant?")


def _resolved(config: DictConfig, names: list[str]) -> tuple[Any, set[str]]:
    """Return these parts of a configuration as plain data, and the keys that are tied to others.

    What is tied (``${...}``) to a setting that is yet to be set is yet to be set as well.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    tied: set[str] = set()
    part = OmegaConf.masked_copy(config, names)
    while True:
        try:
            return OmegaConf.to_container(part, resolve=True), tied
        except InterpolationToMissingValueError as error:
            if not tied:
                part = copy.deepcopy(part)
            tied.add(str(error.full_key))
            OmegaConf.update(part, str(error.full_key), "???")
        except OmegaConfBaseException as error:
            raise UsageError(first_lines(error)) from None


def unset_settings(
    config: DictConfig, overrides: list[str], choices: dict[str, Any]
) -> dict[str, str]:
    """Return the settings that are mandatory and not set, each with the line that says so.

    Args:
        config: what Hydra composed.
        overrides: as they were given.
        choices: the file that was chosen of each group.
    """
    container, tied = _resolved(config, [str(name) for name in config if name != "hydra"])
    place = functools.partial(_origin, overrides=overrides, choices=choices)
    return {key: _unset_line(key, place) for key in _missing(container) if key not in tied}


def _unset_line(key: str, place: Callable[[str], str]) -> str:
    return f"{key}: is mandatory (???) and not set; set {key}=VALUE [{place(key)}]"


def _missing(value: Any) -> Iterator[str]:
    """Yield the dotted keys of what is yet to be set (``???``), in their order."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if inner == "???":
            yield str(key)
        for below in _missing(inner):
            yield f"{key}.{below}"


def _without_missing(value: Any) -> Any:
    """Return nested mappings without what is yet to be set (``???``)."""
    if not isinstance(value, dict):
        return value
    return {key: _without_missing(inner) for key, inner in value.items() if inner != "???"}


def _origin(key: str, overrides: list[str], choices: dict[str, Any]) -> str:
    names = [item.lstrip("+~").partition("=")[0] for item in overrides]
    dotted = [name for name in names if "." in name]
    if any(key == name or key.startswith(f"{name}.") for name in dotted):
        return "command line"
    if any(name.startswith(f"{key}.") for name in dotted) and key.count("."):
        return "command line"
    group, _, leaf = key.partition(".")
    for source in ("debug", "experiment"):  # the groups that may set keys of others
        file = file_of_choice(source, choices.get(source))
        if file and re.search(rf"(?m)^\s+{re.escape(leaf.split('.')[-1])}\s*:", file.read_text()):
            return f"conf/{source}/{file.name}"
    choice = choices.get(group)
    return f"conf/{group}/{choice}.yaml" if choice else "command line"


def translate(error: Exception, overrides: Sequence[str]) -> str:
    """Say Hydra's error in one line, with the nearest name that exists."""
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1], overrides)
    if match := re.search(r"Could not find '([^']+)'", text):
        return _unknown_choice(match[1])
    if text.startswith(_NO_NAME):
        return _no_choice(overrides)
    if line := unreadable(error):
        return line
    file = read_file(error)
    reason = first_lines(error) or type(error).__name__
    return f"{file}{reason}" if file else f"{reason} [command line]"


def _unknown_choice(path: str) -> str:
    group, _, name = path.rpartition("/")
    names = choices_of(group)
    if not names:
        return f"{path}: no such configuration in conf/"
    listed = ", ".join(names)
    return (
        f"{group}={name}: no such choice{nearest(name, names)} (allowed: {listed}) [command line]"
    )


def _no_choice(overrides: Sequence[str]) -> str:
    from mlmodeldev.settings.overrides import parse_overrides

    given = {key: value for key, value in parse_overrides(overrides).items() if choices_of(key)}
    wrong = ((k, v) for k, v in given.items() if not isinstance(v, str | list | dict))
    key, value = next(wrong, (None, None))
    if key is None:
        return "a group of conf/ must be set to names of its files [command line]"
    return f"{key}={value}: must be one of {', '.join(choices_of(key))} [command line]"


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    """Walk the composed configuration down to the part of the key that is not there."""
    from omegaconf import DictConfig, OmegaConf

    node: Any = compose_groups(overrides)
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if isinstance(node, DictConfig) and part in node:
            node = OmegaConf.select(node, part)
            continue
        allowed = sorted(map(str, node)) if isinstance(node, DictConfig) else []
        if depth == 1 and "_target_" in allowed:
            target = str(OmegaConf.select(node, "_target_"))
            allowed = sorted({*allowed, *argument_names(target)})
        if not depth:
            allowed = sorted({*allowed, *groups()})
        where = ".".join(parts[:depth]) or "the settings"
        listed = f" (allowed in {where}: {', '.join(allowed)})" if allowed else ""
        return f"{key}: no such setting{nearest(part, allowed)}{listed} [command line]"
    return f"{key}: can't be set this way [command line]"
