"""The long form: very many inputs for each target, and a table of what came of it.

    python -m tests.fuzz --examples 100000                     every target; writes docs/reliability.md
    python -m tests.fuzz --target archives --examples 5000     one
    python -m tests.fuzz --target archives --input 4711        one input again, with its traceback

An input is made from the target's name and its number, so a fault's number makes it again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "fuzz.json"
"""What each target came to when it was last run."""


def main() -> int:
    """Run the targets, each in a process of its own."""
    args = _arguments()
    os.environ.update(
        MLMODELDEV_PROJECT=str(ROOT), MLMODELDEV_CLUSTER="local", WANDB_MODE="offline"
    )
    if args.table:
        from tests.fuzz.table import write_table

        write_table(_kept())
        return 0
    if args.one is not None:
        print(json.dumps(_one(args.one, args.examples, args.coverage, args.first)))
        return 0
    from tests.fuzz.registry import TARGETS

    if args.input is not None:
        from tests.fuzz.run import folder_in_memory, made

        given = made(TARGETS[args.target[0]], args.input)
        print(repr(given)[:5000])
        with folder_in_memory() as folder:
            TARGETS[args.target[0]].try_one(given, folder, real=True)
        return 0
    faults = 0
    for name in args.target or TARGETS:
        count = args.processes if TARGETS[name].whole else args.examples
        result = _in_process(name, count, args.first)
        if not args.no_coverage:
            sample = min(count, 300 if TARGETS[name].whole else args.sample)
            result |= {"branches": _in_process(name, sample, 0, "--coverage").get("branches")}
        faults += len(result["faults"])
        print(f"{name}: {result['tried']} tried, {len(result['faults'])} faults, branches"
              f" {result.get('branches')} %, {result['seconds']:.0f} s", flush=True)  # fmt: skip
        for place, (number, text) in result["faults"].items():
            print(f"  {place}, input {number}:\n{text}", flush=True)
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps({**_kept(), name: result}, indent=1))
    if not args.target:
        from tests.fuzz.table import write_table

        write_table(_kept())
    return int(faults > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--examples", type=int, default=100_000, help="inputs of each target")
    parser.add_argument("--processes", type=int, default=2000, help="inputs of whole commands")
    parser.add_argument(
        "--target", action="append", metavar="NAME", help="this one; may be given again"
    )
    parser.add_argument("--input", type=int, metavar="NUMBER", help="try this input alone")
    parser.add_argument(
        "--first", type=int, default=0, metavar="NUMBER", help="number of the first input"
    )
    parser.add_argument(
        "--sample", type=int, default=3000, help="inputs for which branches are counted"
    )
    parser.add_argument("--no-coverage", action="store_true")
    parser.add_argument("--table", action="store_true", help="write the table of what was run last")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--coverage", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _kept() -> dict[str, Any]:
    return dict(json.loads(KEPT.read_text())) if KEPT.is_file() else {}


def _in_process(name: str, count: int, first: int, *more: str) -> dict[str, Any]:
    words = ["-m", "tests.fuzz", "--one", name, "--examples", str(count), "--first", str(first)]
    done = subprocess.run([sys.executable, *words, *more], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False)  # fmt: skip
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        fault = {f"process ended with {done.returncode}": (first, done.stdout[-2000:])}
        return {"tried": 0, "seconds": 0.0, "faults": fault}
    return dict(json.loads(lines[-1]))


def _one(name: str, count: int, coverage: bool, first: int) -> dict[str, Any]:
    """Run one target here; with coverage begun before the library is imported."""
    measured = _begin_coverage(name) if coverage else None
    from tests.fuzz.registry import TARGETS
    from tests.fuzz.run import limit_memory, run

    if measured is None:
        limit_memory()
    target = TARGETS[name]
    outcome = run(target, range(first, first + count), forks=measured is None)
    result: dict[str, Any] = {"tried": outcome.tried, "seconds": outcome.seconds,
                              "faults": outcome.faults}  # fmt: skip
    if measured is not None:
        measured.stop()
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            measured.json_report(outfile=file.name)
            totals = json.loads(Path(file.name).read_text())["totals"]
        result["branches"] = round(100 * totals["covered_branches"] / totals["num_branches"])
    return result


def _begin_coverage(name: str) -> Any:
    """Trace the target's modules; which they are is asked of another process: none is imported."""
    import coverage

    code = f"from tests.fuzz.registry import TARGETS; print(*TARGETS[{name!r}].modules)"
    question = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                           check=True)  # fmt: skip
    names = question.stdout.split()
    files = [f"{ROOT}/{each.replace('.', '/')}.py" for each in names]
    measured = coverage.Coverage(branch=True, include=files, data_file=None, config_file=False)
    measured.start()
    return measured


if __name__ == "__main__":
    sys.exit(main())
