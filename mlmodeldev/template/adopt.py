"""Make an existing repository run here: ``mlmodeldev adopt REPO``.

It writes trainer.py, inference.py, slurm/, conf/, sweep/ and tests/test_mine.py into the
repository, with settings of the constructors' own arguments; nothing that is there is changed. Then
it runs one batch of each stage, chooses the monitor among what is logged, and prints the plan of
the first sweep.

Example::

    mlmodeldev adopt their-repo --model net.model:Net --data net.data:Digits
    mlmodeldev adopt their-repo model.num_classes=10
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from mlmodeldev.arguments import OneLineParser
from mlmodeldev.atomic import write_text
from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError
from mlmodeldev.secrets import refuse_in_arguments
from mlmodeldev.template import adopt_rehearsal as rehearsal
from mlmodeldev.template.adopt_conf import with_monitor
from mlmodeldev.template.adopt_plan import (
    CONFIG,
    EPOCHS,
    MONITOR,
    SWEEP,
    Adoption,
    new_files,
    plan,
)
from mlmodeldev.template.adopt_sweep import sweep_text
from mlmodeldev.template.origin import requirement
from mlmodeldev.template.source import TRACKERS
from mlmodeldev.template.swap import FOLDER, finish, write_all


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        refuse_in_arguments(given)
        return _adopt(parser().parse_intermixed_args(given))
    except UsageError as error:
        print(f"mlmodeldev adopt: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, EOFError):
        print("mlmodeldev adopt: stopped", file=sys.stderr)
        return EXIT_BAD_INPUT


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = OneLineParser(
        prog="mlmodeldev adopt", description="Make an existing Lightning repository run here."
    )
    add = result.add_argument
    add("folder", metavar="REPO", type=Path, help="the repository; it may have any layout")
    add("values", metavar="KEY=VALUE", nargs="*", help="such as model.num_classes=10 data.size=8")
    add("--model", metavar="PKG.MOD:CLASS", help="the LightningModule (default: the only one)")
    add("--data", metavar="PKG.MOD:CLASS", help="the LightningDataModule (default: the only one)")
    add("--cluster", metavar="PROFILE", default="local", help="where trials run (default: local)")
    add("--tracker", default="csv", help=f"{', '.join(TRACKERS)} (default: csv)")
    add("--dry-run", action="store_true", help="print what would be written, write nothing")
    add("--yes", action="store_true", help="ask nothing")
    return result


def _adopt(options: argparse.Namespace) -> int:
    root: Path = options.folder.expanduser().resolve()
    if not root.is_dir():
        raise UsageError(f"{options.folder}: is no folder")
    with contextlib.suppress(NotADirectoryError):
        finish(root)
    adoption = plan(root, options)
    new = new_files(adoption)
    if options.dry_run:
        return _print_files(adoption, new)
    if sys.stdin.isatty() and sys.stdout.isatty() and not options.yes:
        print(f"{root}: to be written: {', '.join(sorted(new))}")
        if input("go on? [Y/n]: ").strip().lower() not in ("", "y", "yes"):
            raise UsageError("nothing was written")
    if new:
        write_all(root, new)
        with contextlib.suppress(OSError):  # ours alone, and empty; what init has written stays
            (root / FOLDER).rmdir()
    print(f"{root}: written: {', '.join(sorted(new)) or 'nothing new'}")
    _print_notes(adoption)
    return _try_out(adoption, options)


def _print_files(adoption: Adoption, new: Mapping[str, bytes]) -> int:
    for name in sorted(new):
        print(f"would write {name}")
    for name in (adoption.model.place, adoption.data.place, SWEEP):
        if name in new:
            print(f"\n--- {name}\n{new[name].decode()}", end="")
    print()
    _print_notes(adoption)
    return 0


def _print_notes(adoption: Adoption) -> None:
    """Say what was left as it is, what could not be written, and what is missing."""
    for name in adoption.kept:
        print(f"  kept as it is: {name}")
    for group in (adoption.model, adoption.data):
        for name, reason in group.unwritten.items():
            print(
                f"  could not write {group.group}.{name}: {reason}; the constructor's default holds"
            )
        if group.described["of_bases"]:
            names = ", ".join(one["name"] for one in group.described["of_bases"])
            print(f"  {group.place}: **kwargs may take {names}: uncomment what you need")
    for line in _missing_parts(adoption.root):
        print(f"  left alone: {line}")


def _missing_parts(root: Path) -> list[str]:
    """Return what the repository's own files lack, which only their owner can add."""
    lines = []
    places = ["requirements.txt", "requirements*.txt", "pyproject.toml", "environment*.y*ml"]
    places += ["setup.py", "setup.cfg"]
    files = [file for place in places for file in sorted(root.glob(place))]
    if not any("mlmodeldev" in file.read_text(errors="replace") for file in files):
        try:
            line = requirement()
        except UsageError:
            line = "mlmodeldev"
        where = files[0].name if files else "no requirements.txt or pyproject.toml"
        lines.append(f"{where}: does not ask for {line}")
    ignore = root / ".gitignore"
    if (root / ".git").exists() and "runs" not in (
        ignore.read_text(errors="replace") if ignore.is_file() else ""
    ):
        lines.append(".gitignore: has no line runs/, where trials will lie")
    return lines


def _try_out(adoption: Adoption, options: argparse.Namespace) -> int:
    """Run the rehearsal, choose a monitor if need be, print the plan."""
    for group in (adoption.model, adoption.data):
        text = (adoption.root / group.place).read_text(encoding="utf-8")
        missing = [name for name in group.missing if re.search(rf"(?m)^{name}: \?\?\?", text)]
        if missing:
            raise UsageError(
                f"{adoption.root / group.place}: {', '.join(missing)} without a default: fill in"
                f" what is ??? there, then again: mlmodeldev adopt {options.folder}"
                f" --model {adoption.model.target} --data {adoption.data.target}"
            )
    print("rehearsal: one batch of training, validation and test, exports and their reload ...")
    monitor, _ = _present_monitor(adoption.root)
    outcome = rehearsal.rehearse(adoption.root, monitor)
    if outcome.logged is not None:
        chosen = _take_monitor(adoption, outcome)
        if chosen is not None:
            outcome = rehearsal.rehearse(adoption.root, chosen)
    if outcome.status:
        print(
            f"mlmodeldev adopt: all files are written, the rehearsal failed: {outcome.reason}",
            file=sys.stderr,
        )
        print("  python trainer.py shows it whole; it is yours to change, then try that again")
        return outcome.status
    print(f"  passed in {outcome.seconds:.0f} seconds")
    return _print_plan(adoption.root, options.folder)


def _present_monitor(root: Path) -> tuple[str, str]:
    content = yaml.safe_load((root / CONFIG).read_text(encoding="utf-8"))
    training = content.get("training") or {}
    return training.get("monitor", MONITOR[0]), training.get("mode", MONITOR[1])


def _take_monitor(adoption: Adoption, outcome: rehearsal.Outcome) -> str | None:
    """Write the metric that the model is judged by into conf/ and sweep/, and say so."""
    logged = outcome.logged or ()
    present, _ = _present_monitor(adoption.root)
    chosen = rehearsal.choose_monitor(logged)
    listed = ", ".join(logged) or "nothing"
    if chosen is None:
        print(f"  {present} is not logged, and none that is ({listed}) is plainly good or bad:")
        print("  log one, self.log('val_loss', loss), or set training.monitor and training.mode")
        return None
    config, sweep = adoption.root / CONFIG, adoption.root / SWEEP
    text = config.read_text(encoding="utf-8")
    if re.search(r"(?m)^training:", text):
        print(f"  {CONFIG}: training.monitor={present} is not logged (logged: {listed})")
        return None
    write_text(config, with_monitor(text, *chosen))
    if sweep.read_bytes() == adoption.files[SWEEP]:
        write_text(sweep, sweep_text(adoption.name, adoption.sweep, *chosen, EPOCHS))
    where = "validation" if outcome.status else "training (nothing is validated)"
    print(
        f"  monitor: {chosen[0]} ({chosen[1]}), of what {where} logs; written to {CONFIG}, {SWEEP}"
    )
    rest = rehearsal.others(logged, chosen[0])
    if rest:
        name, mode = next(iter(rest.items()))
        print(f"  another: training.monitor={name} training.mode={mode} (all: {listed})")
    return chosen[0]


def _print_plan(root: Path, folder: Path) -> int:
    status, printed = rehearsal.output(root, "slurm/SlurmTrain.py", "plan")
    print(printed.rstrip())
    print(f"next:\n  cd {folder}")
    print("  python trainer.py                        one trial; again after a kill: it goes on")
    print("  python slurm/SlurmTrain.py               the sweep of sweep/config.yaml")
    print("  python -m pytest tests/test_mine.py      exact resume, exports, devices")
    return status


if __name__ == "__main__":
    sys.exit(main())
