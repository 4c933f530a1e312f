"""``mlmodeldev trial prepare``: fetch and make the data that settings name, and say which they are.

Example::

    add_prepare_options(parser)
    run_prepare(parser.parse_args(["data=cola", "--digests", "runs/cola.json"]))
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

PREPARE_HELP = "fetch and make the data that settings name"


def add_prepare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; nothing heavy is imported."""
    parser.description = (
        "Fetch and make the data that settings name, as a trial does before it trains."
    )
    add = parser.add_argument
    add(
        "settings",
        metavar="SETTING",
        nargs="*",
        help="as for trainer.py: data=cola, experiment=...",
    )
    add(
        "--digests",
        type=Path,
        metavar="FILE",
        help="write their settings and SHA-256 into this file of JSON (printed)",
    )


def run_prepare(args: argparse.Namespace) -> int:
    """Prepare the data; print or write their digests; return the exit status.

    Raises:
        UsageError: bad input, or the data can't be had.
    """
    from mlmodeldev.atomic import write_json, writing_to
    from mlmodeldev.settings.composition import compose_settings

    settings = compose_settings(args.settings)
    result = {"data": settings.data, "inputs": _prepare(settings)}
    if args.digests is None:
        print(json.dumps(result, indent=1))
        return 0
    with writing_to(args.digests):
        args.digests.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.digests, result)
    return 0


def _prepare(settings: Any) -> dict[str, str]:
    from mlmodeldev.data.module import ExactDataModule
    from mlmodeldev.training import build
    from mlmodeldev.training.quiet import quiet
    from mlmodeldev.training.ranks import World
    from mlmodeldev.training.session import close

    quiet()
    data = build.datamodule(settings, World())
    try:
        if not isinstance(data, ExactDataModule) and not hasattr(type(data), "info"):
            data.prepare_data()  # Lightning would, in a trial
        return dict(getattr(data, "inputs", {}))
    finally:
        close(data)
