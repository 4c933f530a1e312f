"""Record the frozen set anew, all of it or some parts.

python -m tests.frozen record
python -m tests.frozen record identities plans
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from pathlib import Path

PARTS = ("identities", "plans", "error_lines", "runs", "digits")


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.frozen", description=__doc__)
    parser.add_argument("action", choices=["record"])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    for part in parser.parse_args().parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            importlib.import_module(f"tests.frozen.{part}").record(Path(folder))
        print(f"recorded: {part}")


if __name__ == "__main__":
    main()
