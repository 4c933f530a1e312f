"""Write the library's files of settings and the table in docs/settings.md from the schema.

python -m mlmodeldev.settings            # write them anew
python -m mlmodeldev.settings --check    # exit status 1 if one is not what the schema says
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mlmodeldev.project import project_root
from mlmodeldev.settings.rendering import rendered_files, with_table


def main() -> int:
    """Write, or compare, all of them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlmodeldev.settings", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args().check
    page = project_root() / "docs" / "settings.md"
    wanted = rendered_files()
    if page.is_file():
        wanted[page] = with_table(page.read_text(encoding="utf-8"))
    stale = [path for path, text in wanted.items() if _current(path) != text]
    for path in stale:
        print(path)
        if not check:
            path.write_text(wanted[path], encoding="utf-8")
    return int(check and bool(stale))


def _current(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
