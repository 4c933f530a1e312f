"""Look for keys in files: ``python -m mlmodeldev.secrets [--staged] [FILE ...]``.

    python -m mlmodeldev.secrets                 what git tracks
    python -m mlmodeldev.secrets --staged        what the next commit adds (the commit hook)
    python -m mlmodeldev.secrets runs/first      files and folders

Exit status: 0 none, 2 one was found; file and line are told, the key is not shown.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError
from mlmodeldev.project import git_output
from mlmodeldev.secrets.refusal import LARGEST, refuse_in_text, refuse_secrets, text_of


def main() -> int:
    """Look, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlmodeldev.secrets", description=__doc__)
    parser.add_argument("--staged", action="store_true", help="what the next commit would hold")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    args = parser.parse_args()
    try:
        if args.staged:
            for name, text in _staged_files():
                refuse_in_text(text, name)
        else:
            refuse_secrets(args.files or [Path(name) for name in _git_names("ls-files", "-z")])
    except UsageError as error:
        print(f"{error}", file=sys.stderr)
        print("a line that only looks like it may end with '# key-guard: allow'", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _staged_files() -> Iterator[tuple[str, str]]:
    """Yield the staged text files: their names and their contents in the index."""
    for name in _git_names("diff", "--cached", "--name-only", "--diff-filter=ACMRT", "-z"):
        content = b""
        with contextlib.suppress(UsageError):  # a submodule has no content here
            content = git_output(Path.cwd(), "show", f":{name}")
        text = text_of(content) if len(content) <= LARGEST else None
        if text is not None:
            yield name, text


def _git_names(*arguments: str) -> list[str]:
    return [name for name in git_output(Path.cwd(), *arguments).decode().split("\0") if name]


if __name__ == "__main__":
    sys.exit(main())
