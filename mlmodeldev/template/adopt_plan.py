"""What is to be written into a repository, from its source and its constructors.

Example::

    adoption = plan(root, options)
    new_files(adoption)            # {"trainer.py": b"...", "conf/model/net.yaml": b"...", ...}
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.template.adopt_conf import Group, config_text, own_yaml
from mlmodeldev.template.adopt_find import DATA_MODULE, MODULE, find_classes
from mlmodeldev.template.adopt_rehearsal import environment
from mlmodeldev.template.adopt_sweep import parameters, sweep_text
from mlmodeldev.template.source import Answers, load_template

CONFIG, SWEEP = "conf/config.yaml", "sweep/config.yaml"
EPOCHS = 5
_COPIED = ("trainer.py", "inference.py", "tests/test_mine.py")
_REQUIRED = re.compile(r"trainer\.py|slurm/.*|conf/config\.yaml")
"""Without these of ours nothing runs; the others may be the repository's own."""
MONITOR = ("val/accuracy", "max")
"""As conf/training/default.yaml has it."""


@dataclass
class Adoption:
    """What is written into a repository, and what is told of it."""

    root: Path
    name: str
    model: Group
    data: Group
    files: dict[str, bytes]
    sweep: Mapping[str, list[Any]]
    kept: list[str] = field(default_factory=list)


def plan(root: Path, options: argparse.Namespace) -> Adoption:
    """Return what there is to write, from the repository's source and its classes.

    Raises:
        UsageError: a class isn't there, is one of several, can't be imported or refuses a value.
    """
    candidates = find_classes(root)
    chosen = [
        candidates.choose("--model", options.model),
        candidates.choose("--data", options.data),
    ]
    template = load_template()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip("-._") or "project"
    answers = Answers(name, options.cluster, options.tracker)
    template.check(answers)
    given = _given(options.values)
    rendered = template.render(answers)
    files = {
        name: content
        for name, content in rendered.items()
        if name in _COPIED or name.startswith("slurm/") or name == "conf/logger/wandb.yaml"
    }
    _refuse_foreign(root, [*files, CONFIG])
    model, data = _groups(root, chosen, given)
    config = config_text(rendered[CONFIG].decode(), model.name, data.name)
    sweep = parameters(
        {"model": model.values, "data": data.values}, model.described["makes_optimizer"]
    )
    text = sweep_text(answers.name, sweep, *MONITOR, EPOCHS)
    texts = {CONFIG: config, SWEEP: text, model.place: model.text(), data.place: data.text()}
    files |= {name: content.encode() for name, content in texts.items()}
    return Adoption(root, answers.name, model, data, files, sweep)


def _given(values: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the values of the command line by their group."""
    result: dict[str, dict[str, Any]] = {"model": {}, "data": {}}
    for item in values:
        key, mark, text = item.partition("=")
        group, _, name = key.partition(".")
        if not mark or group not in result or not name.isidentifier():
            raise UsageError(f"{item}: must be model.NAME=VALUE or data.NAME=VALUE")
        try:
            result[group][name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"{item}: the value is no YAML") from None
    return result


def _groups(
    root: Path, chosen: Sequence[str], given: Mapping[str, Mapping[str, Any]]
) -> tuple[Group, Group]:
    described = describe(root, chosen)
    wanted = (("--model", MODULE, "model"), ("--data", DATA_MODULE, "data"))
    groups = []
    for target, one, (option, kind, group) in zip(chosen, described, wanted, strict=True):
        if "error" in one:
            hint = nearest(target.rpartition(":")[2], one.get("names", ()))
            raise UsageError(f"{option} {target}: {one['error']}{_install(one)}{hint}")
        if kind not in one["kinds"]:
            raise UsageError(f"{option} {target}: is no {kind} ({', '.join(one['kinds'][1:3])})")
        filled = group == "model" and described[1].get("fills", False)
        own = own_yaml(root, target)
        groups.append(Group(group, target, one, own, given[group], filled))
        if name := groups[-1].unexpected():
            names = [each["name"] for each in one["arguments"]]
            raise UsageError(
                f"{group}.{name}: {target} takes no such argument{nearest(name, names)}"
            )
    return groups[0], groups[1]


def describe(root: Path, targets: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the constructors take; the repository is imported in another process."""
    with tempfile.TemporaryDirectory(prefix="adopt-") as folder:
        out = Path(folder) / "out.json"
        done = subprocess.run(
            [sys.executable, "-m", "mlmodeldev.template.adopt_signature", root, out, *targets],
            cwd=root,
            env=environment(root),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if not out.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise UsageError(f"{', '.join(targets)}: can't be imported: {lines[-1]}")
        result: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
        return result


def _install(described: Mapping[str, Any]) -> str:
    package = (described.get("missing") or "").partition(".")[0]
    if not package or importlib.util.find_spec(package) is not None:
        return ""
    return f"; is it a package? python -m pip install {package}"


def _refuse_foreign(root: Path, names: Sequence[str]) -> None:
    """Refuse a repository that has something in a place that only ours can have.

    Raises:
        UsageError: naming the files.
    """
    foreign = []
    for name in filter(_REQUIRED.fullmatch, names):
        path = root / name
        if (path.exists() or path.is_symlink()) and not (
            path.is_file() and b"mlmodeldev" in path.read_bytes()
        ):
            foreign.append(name)
    if foreign:
        raise UsageError(
            f"{root}: has {', '.join(sorted(foreign))}, where mlmodeldev's must be: rename yours"
            " first; nothing was written"
        )


def new_files(adoption: Adoption) -> dict[str, bytes]:
    """Return the files that are not there yet; note those that the repository keeps."""
    new = {}
    for name, content in adoption.files.items():
        path = adoption.root / name
        if not path.exists() and not path.is_symlink():
            new[name] = content
        elif not path.is_file() or path.read_bytes() != content:
            adoption.kept.append(name)
    return new
