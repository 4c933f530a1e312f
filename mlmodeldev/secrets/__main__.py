"""Look for keys in files: ``python -m mlmodeldev.secrets [--staged] [FILE ...]``.

    python -m mlmodeldev.secrets                 what git tracks
    python -m mlmodeldev.secrets --staged        what the next commit adds (the commit hook)
    python -m mlmodeldev.secrets runs/first      files and folders

Exit status: 0 none, 2 one was found; file and line are told, the key is not shown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError
from mlmodeldev.secrets.refusal import LARGEST, refuse_in_text, refuse_secrets


def main() -> int:
    """Look, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlmodeldev.secrets", description=__doc__)
    parser.add_argument("--staged", action="store_true", help="what the next commit would hold")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    asked = parser.parse_args()
    try:
        if asked.staged:
            for name, text in _staged():
                refuse_in_text(text, name)
        else:
            refuse_secrets(asked.files or [Path(name) for name in _git("ls-files", "-z")])
    except UsageError as error:
        print(f"{error}", file=sys.stderr)
        print("a line that only looks like it may end with '# key-guard: allow'", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _staged() -> Iterator[tuple[str, str]]:
    """Yield the staged files: their names and their contents in the index."""
    for name in _git("diff", "--cached", "--name-only", "--diff-filter=ACMRT", "-z"):
        shown = subprocess.run(["git", "show", f":{name}"], capture_output=True, check=False)
        content = shown.stdout
        if shown.returncode == 0 and len(content) <= LARGEST and b"\0" not in content[:8000]:
            yield name, content.decode("utf-8", "replace")


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode:
        raise UsageError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return [name for name in done.stdout.decode().split("\0") if name]


if __name__ == "__main__":
    sys.exit(main())
