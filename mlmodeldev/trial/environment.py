"""What a trial runs in: Python, all installed packages with their versions, the hardware.

The trial's folder keeps it as ``environment.json``; ``environment-N.json`` is that of attempt N,
where a later one had another.

Example::

    keep_environment(folder, attempt=1, ranks=1)
    read_environment(folder)["packages"]["numpy"]       # "2.4.1"
    environment_of("/opt/venv/bin/python")["python"]    # another interpreter's

As a program, ``python -P environment.py`` prints the environment of its interpreter, which needs no
package for it; ``-P``, for the modules of this folder have names of others'.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ENVIRONMENT = "environment.json"
"""File of a trial's folder."""

LIBRARY_NAME = "mlmodeldev"

_SECONDS = 60.0
"""How long another interpreter may take to answer."""


def keep_environment(folder: Path, attempt: int, ranks: int) -> None:
    """Write what this attempt runs in; what a former attempt wrote keeps its number.

    Args:
        folder: the trial's.
        attempt: number of this attempt, from 1.
        ranks: processes that train the trial together.
    """
    from mlmodeldev.atomic import write_json

    here = {**environment(), "machine": machine(ranks)}
    before = read_environment(folder)
    if before == here:
        return
    file = folder / ENVIRONMENT
    if before and attempt > 1:
        file.replace(file.with_name(f"{file.stem}-{attempt - 1}{file.suffix}"))
    write_json(file, here)


def read_environment(folder: Path) -> dict[str, Any]:
    """Return what a trial ran in; an empty one where it kept none, as earlier versions did."""
    try:
        kept = json.loads((folder / ENVIRONMENT).read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def environment() -> dict[str, Any]:
    """Return Python and the packages of this interpreter.

    ``origins`` has those that no index gave, where there are some.
    """
    kept = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages(),
    }
    own = origins()
    return {**kept, "origins": own} if own else kept


def packages() -> dict[str, str]:
    """Return the version of each installed package, by its normalized name (PEP 503).

    The names of the metadata's folders are read, not what lies in them: that takes a millisecond
    in place of half a second.
    """
    result: dict[str, str] = {}
    for entry in _metadata():
        stem, _, kind = entry.name.rpartition(".")
        name, _, version = stem.partition("-")
        version = version.partition("-py")[0] if kind == "egg-info" else version
        result.setdefault(normalized(name), version)
    return dict(sorted(result.items()))


def origins() -> dict[str, str]:
    """Return where packages come from that no index gave: a folder, or an address for pip.

    PEP 610 says how that is kept. The library, whose digest is recorded, is not among them.
    """
    result: dict[str, str] = {}
    for entry in _metadata():
        name, file = normalized(entry.name.partition("-")[0]), entry / "direct_url.json"
        if name != LIBRARY_NAME and file.is_file():
            result.setdefault(name, _origin(file))
    return {name: origin for name, origin in sorted(result.items()) if origin}


def _metadata() -> Iterator[Path]:
    """Yield the folders with the metadata of all packages, those first that are imported first."""
    for place in filter(Path.is_dir, map(Path, sys.path)):
        for entry in place.iterdir():
            stem, _, kind = entry.name.rpartition(".")
            if kind in ("dist-info", "egg-info") and "-" in stem:
                yield entry


def _origin(file: Path) -> str:
    """Return the folder or the address of one package; of a build that is gone: an empty text."""
    try:
        kept = json.loads(file.read_text())
        url, version = str(kept["url"]), kept.get("vcs_info")
        if version:
            below = f"#subdirectory={kept['subdirectory']}" if kept.get("subdirectory") else ""
            return f"{version['vcs']}+{url}@{version['commit_id']}{below}"
        if "dir_info" in kept:  # conda's name the folder that they were built in
            is_edited = kept["dir_info"].get("editable")
            return unquote(urlsplit(url).path) if is_edited else ""
        return url if url.startswith("http") else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def normalized(name: str) -> str:
    """Return a package's name as all of its spellings share it (PEP 503)."""
    return "-".join(filter(None, name.lower().replace("_", "-").replace(".", "-").split("-")))


def machine(ranks: int) -> dict[str, Any]:
    """Return what may change the last bits of a sum: processor, threads, processes, GPUs.

    torch is imported: it is called where torch is at work anyway.
    """
    import torch

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "cpu": _processor(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "gpus": sorted({torch.cuda.get_device_name(index) for index in gpus}),
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    """Return the processor's name as Linux tells it, else its kind."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line)
    return next(names, platform.processor())


def environment_of(python: str, isolated: bool = False) -> dict[str, Any]:
    """Return Python and the packages of an interpreter.

    Args:
        python: the interpreter.
        isolated: whether packages that ``PYTHONPATH`` names do not count.

    Raises:
        UsageError: it can't be run.
    """
    from mlmodeldev.errors import UsageError

    if python == sys.executable:
        return environment()
    try:
        flag = "-I" if isolated else "-P"
        done = subprocess.run(
            [python, flag, __file__], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        return dict(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no Python"
        raise UsageError(f"--python {python}: does not run ({reason})") from None


def requirements(kept: Mapping[str, Any]) -> str:
    """Return the packages of an environment as pip's requirements; the library is not among them.

    Builds that an index of their own has, such as ``torch==2.13.0+cpu``, are kept as they are.
    """
    versions: Mapping[str, str] = kept.get("packages") or {}
    named = (f"{name}=={version}\n" for name, version in versions.items() if name != LIBRARY_NAME)
    return f"# Python {kept.get('python')}\n" + "".join(named)


if __name__ == "__main__":
    print(json.dumps(environment()))
