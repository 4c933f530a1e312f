"""Write docs/public-modules.md from what came of each module of the list.

Example::

    python -m benchmarks.public_modules PROJECT                # try all modules in a new project
    python -m benchmarks.public_modules PROJECT --only NAME    # one of them
    python -m benchmarks.public_modules PROJECT --table        # write the page, run nothing

It wants an environment in which the wheels of the list are installed beside this library; none is
among the library's dependencies.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.public_modules.trials import PLACES, modules
from mlmodeldev.template import init

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "public-modules.md"
HEAD = """# Modules of others

LightningModules of public wheels, trained here as they are, on plain LightningDataModules
(`benchmarks/public_modules/random_data.py`; where a wheel brings data sets or collate functions,
these are used). Written by `python -m benchmarks.public_modules`, not by hand, from trials of
three epochs on a CPU.

| column | |
|---|---|
| resumed | of trials killed by `kill -9` and started again, those that ended with the weights of an undisturbed one, bit for bit ({places}) |
| swept | of a local sweep of two trials, those done |
| CKA | layers compared with the start of training |
| reloaded | `mlmodeldev.load` of `last/` in a fresh process: all weights equal, or not |

"""  # noqa: E501
TAIL = """
Not in the list: lightning-bolts imports names that Lightning 2.6 no longer has; RecTools wants
numpy 1; solo-learn 1.0.2 asks for versions that pip finds no set of.

## To run it

```bash
python -m venv env
for wheel in torchvision {wheels}; do env/bin/pip install "$wheel"; done
env/bin/pip install -e . "numpy>=2"
env/bin/python -m benchmarks.public_modules /tmp/others
```

One after the other, since they can't all be had by what they ask for: pytorch-tabular wants
torchmetrics before 1.9, and a dependency of pytorch-lifestream numpy 1. Both run with the later
ones that the last command brings.

It takes about a minute of CPU time for each module. `--only NAME` runs one, `--table` writes this
page from what is there.
"""


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.public_modules")
    parser.add_argument("project", type=Path)
    parser.add_argument("--only", choices=list(modules()))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    project: Path = options.project.absolute()
    if not project.exists():
        init.main([str(project), "--tracker", "csv", "--yes"])
    if not options.table:
        shutil.copy(Path(__file__).with_name("random_data.py"), project)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        for name in [options.only] if options.only else modules():
            print(name, flush=True)
            command = [sys.executable, "-m", "benchmarks.public_modules.trials", name, str(project)]
            subprocess.run(command, cwd=ROOT, env=environment, check=False)
    PAGE.write_text(page(project))


def page(project: Path) -> str:
    """Return the page for the outcomes that lie in a project."""
    columns = ["module", "of", "what is special", "lines changed", "trained", "resumed"]
    columns += ["swept", "CKA", "reloaded", "why not, or what it says"]
    rows = [columns, ["---"] * len(columns)]
    for name, entry in modules().items():
        file = project / "outcomes" / f"{name}.json"
        if file.exists():
            rows.append(row(entry, json.loads(file.read_text())))
    wheels = sorted({entry["wheel"] for entry in modules().values()})
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    head = HEAD.format(places=", ".join(PLACES))
    return head + table + "\n" + TAIL.format(wheels=" ".join(wheels))


def row(entry: dict[str, Any], outcome: dict[str, Any]) -> list[str]:
    """Return the cells of one module; what was not reached is a dash."""
    wheel = entry["wheel"]
    return [
        f"`{entry['model']['_target_'].rpartition('.')[2]}`",
        f"{wheel} {importlib.metadata.version(wheel)}",
        entry["shows"],
        "0",
        "yes" if outcome["trained"] else "no",
        outcome.get("resumed", "–"),
        _short(outcome.get("swept", "–")),
        outcome.get("cka", "–"),
        _short(outcome.get("reloaded", "–")),
        _note(outcome),
    ]


def _note(outcome: dict[str, Any]) -> str:
    """Return the last line of the error, or what was said about resuming."""
    lines = outcome.get("error", "").strip().splitlines()[-1:]
    lines += [line for line in outcome["notes"] if line.startswith("data: ")]
    other = [f"{place}: {text}" for place, text in outcome.get("places", {}).items()]
    return " ".join("; ".join(lines + other).split())[:240].replace("|", "/")


def _short(text: str) -> str:
    return text.partition(":")[0].replace("|", "/")


if __name__ == "__main__":
    main()
