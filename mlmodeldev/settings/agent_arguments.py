"""The parameters that a W&B agent hands over, with their types.

The agent writes values on the command line as Python prints them: null becomes ``None``, text with
``=`` or ``,`` breaks. It also leaves them in a file, from which they are taken instead; so every
process of a trial, whatever the ``command`` of the sweep, gets the same.

Example::

    typed(["training.patience=None"])     # ["training.patience=null"]
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.overrides import to_overrides

FILE_VARIABLE = "WANDB_SWEEP_PARAM_PATH"

_ARGUMENT = re.compile(r"(?:--)?(\+{0,2})([^=\s]+)=.*", re.DOTALL)


def typed(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with an agent's values in Hydra's spelling; without an agent as given.

    ``key=value``, ``--key=value`` and one JSON object (``${args_json}``) are understood.

    Raises:
        UsageError: the agent's file is not there, or holds no parameters.
    """
    file = os.environ.get(FILE_VARIABLE)
    if not file or not os.environ.get("WANDB_SWEEP_ID"):
        return list(arguments)
    given = read_parameters(Path(file))
    result: list[str] = []
    for argument in arguments:
        match = _ARGUMENT.fullmatch(argument)
        if argument.startswith("{"):
            result += to_overrides(given)
        elif match and match[2] in given:
            result += [match[1] + each for each in to_overrides({match[2]: given[match[2]]})]
        else:
            result.append(argument)
    return result


def read_parameters(file: Path) -> dict[str, Any]:
    """Return the values of an agent's parameter file."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text())
        return {name: entry["value"] for name, entry in found.items() if name != "wandb_version"}
    except (OSError, yaml.YAMLError, AttributeError, TypeError, KeyError):
        raise UsageError(
            f"{FILE_VARIABLE}={file}: is no file of parameters that an agent has written"
        ) from None
