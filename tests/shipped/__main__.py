"""Check or renew the shipped files, or run a command where they are in place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from tests.shipped import differing, renew, run_in_copy

USAGE = "usage: python -m tests.shipped check | renew | run COMMAND..."


def main(arguments: Sequence[str]) -> int:
    """Answer the command line; return the exit status."""
    match list(arguments):
        case ["check"]:
            names = differing()
            for name in names:
                print(f"{name}: differs from tests/shipped/files/{name} (make shipped renews it)")
            return int(bool(names))
        case ["renew"]:
            renew()
            return 0
        case ["run", *command] if command:
            if differing():
                return run_in_copy(command)
            return subprocess.run(command, check=False).returncode
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
