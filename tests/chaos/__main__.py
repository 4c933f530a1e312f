"""``python -m tests.chaos --seed N --minutes 3|10|full`` (``make chaos``)."""

from __future__ import annotations

import argparse
import random
import sys

from tests.chaos.monkey import FAULTS
from tests.chaos.run import run
from tests.chaos.table import write_row
from tests.chaos.trials import SIZES
from tests.slurm.cluster import Missing


def main(arguments: list[str] | None = None) -> int:
    """Run; return 0 if nothing was lost or doubled, 1 otherwise, 2 where it can't be tried."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="replays the faults of an earlier run")
    parser.add_argument("--minutes", choices=SIZES, default="3", help="how many trials")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="these faults")
    parser.add_argument("--no-table", action="store_true", help="leave docs/reliability.md alone")
    parser.add_argument("--watchdog", action="store_true", help="what hangs is left to the library")
    parser.add_argument("--keep", action="store_true", help="leave the folder, to look at")
    args = parser.parse_args(arguments)
    seed = random.randrange(10**6) if args.seed is None else args.seed
    try:
        report = run(seed, args.minutes, args.only or (), args.keep, args.watchdog)
    except Missing as reason:
        print(f"make chaos: {reason}", file=sys.stderr)
        return 2
    print(report.text())
    if not args.no_table and not args.only:
        write_row(report)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
