"""The trials of the sweep files under ``sweeps/``: identities, values, names and their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlmodeldev.sweep import load
from tests.frozen.commands import FROZEN, Place

SWEEPS = FROZEN / "sweeps"
FILE = FROZEN / "identities.json"
SEEDS = {"random": (0, 3), "distributions": (0, 11), "steps": (0,), "exhausted": (5,)}
"""Seeds of the draws, for the files of method random; other files have no use for one."""
SEARCHED = ("bayes", "kept_search")


def drawn() -> list[tuple[str, int]]:
    """Return each file's name with each of its seeds."""
    names = [file.stem for file in sorted(SWEEPS.glob("*.yaml")) if file.stem not in SEARCHED]
    return [(name, seed) for name in names for seed in SEEDS.get(name, (0,))]


def loaded(name: str, seed: int) -> list[dict[str, Any]]:
    """Return a file's trials as Python gives them."""
    trials = load(SWEEPS / f"{name}.yaml").trials(seed=seed)
    return [{"id": trial.id, "overrides": trial.overrides} for trial in trials]


def listed(name: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Return a file's trials as the command line lists them, with names and groups."""
    file = f"tests/frozen/sweeps/{name}.yaml"
    done = Place(folder).run(f"python -m mlmodeldev.sweep list --json --seed {seed} {file}")
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def record(folder: Path) -> None:
    """Write the file anew."""
    sets = [
        {"sweep": name, "seed": seed, "trials": listed(name, seed, folder)}
        for name, seed in drawn()
    ]
    lines = [
        f'{{"sweep": "{each["sweep"]}", "seed": {each["seed"]}, "trials": [\n'
        + ",\n".join(json.dumps(trial, ensure_ascii=False) for trial in each["trials"])
        + "]}"
        for each in sets
    ]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
