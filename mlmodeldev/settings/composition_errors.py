"""Errors that Hydra meets while it reads and joins files of settings: which they are, and where.

Hydra raises its own classes, and whatever its parts raise: a number of 5,000 digits, a list where a
name should be, a file that is no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from mlmodeldev.settings.conf_files import conf_folders


def is_composition_error(error: Exception) -> bool:
    """Return whether settings can't be composed: such an error becomes a line, no traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    is_hydras = isinstance(error, HydraException | OmegaConfBaseException)
    return is_hydras or _comes_of_composing(error) or bool(unreadable(error))


def _comes_of_composing(error: BaseException) -> bool:
    """Whether Hydra has met it while it read or joined settings: it may be of any class there.

    What the job raises, which Hydra calls as well, is the job's.
    """
    places = [(f.f_globals.get("__name__", ""), f.f_code.co_name) for f in _frames(error)]
    if ("hydra.core.utils", "run_job") in places or isinstance(error, MemoryError):
        return False
    by_hydra = bool(places) and places[-1][0].startswith("hydra.")  # options that don't go together
    return by_hydra or any(module.startswith(_COMPOSING) for module, _ in places)


_COMPOSING = ("hydra._internal.config", "hydra._internal.defaults", "hydra.core.override_parser")


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def read_file(error: BaseException) -> str:
    """Return the file of settings that was being read, ``conf/model/x.yaml: ``; empty: none."""
    paths = [
        f.f_locals.get("config_path") for f in _frames(error) if f.f_code.co_name == "load_config"
    ]
    return (
        f"conf/{paths[-1].removesuffix('.yaml')}.yaml: "
        if paths and isinstance(paths[-1], str)
        else ""
    )


def unreadable(error: Exception) -> str:
    """Return where a file of settings is no YAML, and why; empty where the error is another.

    The user's own code may read YAML as well, whose errors keep their traceback.
    """
    mark = getattr(error, "problem_mark", None)
    file = Path(str(getattr(mark, "name", "")))
    if mark is None or not any(file.is_relative_to(folder) for folder in conf_folders()):
        return ""
    problem = " ".join(str(getattr(error, "problem", None) or "is no YAML").split())
    return f"{file}:{mark.line + 1}: {problem}"


def first_lines(error: Exception) -> str:
    """Return what an error says in its first two lines, as one."""
    return " ".join(line.strip() for line in str(error).splitlines()[:2] if line.strip())
