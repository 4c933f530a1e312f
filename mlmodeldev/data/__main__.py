"""Fetch a dataset by name, or list those that are known.

Example::

    python -m mlmodeldev.data list
    python -m mlmodeldev.data fetch cola --directory data
    python -m mlmodeldev.data fetch coco_2017 --only val2017.zip --remove-archives
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError, drop_output
from mlmodeldev.fetch.files import human


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 2 with one line on standard error."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _list(options) if options.command == "list" else _fetch(options)
        sys.stdout.flush()
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        drop_output()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlmodeldev.data", description="Datasets: fetched once, whole, verified."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("list", help="the datasets that are known, with sizes")
    table.add_argument("--json", action="store_true", help="as JSON")
    get = commands.add_parser("fetch", help="fetch, verify and unpack a dataset")
    get.add_argument("name", metavar="NAME", help="a name of 'list', or a manifest's .yaml file")
    get.add_argument(
        "--directory", default="data", help="the dataset goes to DIRECTORY/NAME (default: data)"
    )
    get.add_argument("--only", action="append", metavar="FILE", help="only this file (repeatable)")
    get.add_argument(
        "--offline", action="store_true", default=None, help="verify and use what is there"
    )
    get.add_argument(
        "--remove-archives", action="store_true", help="remove each archive once unpacked"
    )
    get.add_argument("--touch", action="store_true", help="renew all times (scratch purges by age)")
    get.add_argument("--parts", type=int, default=4, help="connections for a large file (4)")
    get.add_argument("--retries", type=int, default=5, help="rounds over all addresses (5)")
    return parser


def _fetch(options: argparse.Namespace) -> None:
    from mlmodeldev.fetch.manifest import prepare

    folder = prepare(
        options.name,
        options.directory,
        only=options.only,
        offline=options.offline,
        keep_archives=not options.remove_archives,
        touch=options.touch,
        parts=options.parts,
        retries=options.retries,
    )
    sys.stdout.write(f"{folder}\n")


def _list(options: argparse.Namespace) -> None:
    from mlmodeldev.fetch.manifest import load, names

    manifests = [load(name) for name in names()]
    if options.json:
        rows = [
            {
                "name": manifest.name,
                "title": manifest.title,
                "bytes": manifest.bytes,
                "files": [
                    {"name": entry.source.name, "bytes": entry.source.bytes}
                    for entry in manifest.entries
                ],
                "licence": manifest.licence,
                "homepage": manifest.homepage,
            }
            for manifest in manifests
        ]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    width = max(len(manifest.name) for manifest in manifests)
    sys.stdout.write(f"{'name':{width}}  {'download':>8}  files  title\n")
    for manifest in manifests:
        size = "unknown" if manifest.bytes is None else human(manifest.bytes)
        count = len(manifest.entries)
        sys.stdout.write(f"{manifest.name:{width}}  {size:>8}  {count:5}  {manifest.title}\n")


if __name__ == "__main__":
    sys.exit(main())
