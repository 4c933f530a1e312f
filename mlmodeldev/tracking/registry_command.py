"""Registered models: versions, aliases, and where each comes from.

    mlmodeldev registry register digits sweep/config.yaml    the sweep's best trial, as challenger
    mlmodeldev registry promote digits                       the challenger becomes champion
    mlmodeldev registry rollback digits                      the champion before is champion again
    mlmodeldev registry list
    mlmodeldev registry show digits@champion
    python inference.py models:/digits@champion seven.png
    mlmodeldev registry list --registry mlflow               another place: a folder, mlflow, wandb

Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlmodeldev.arguments import OneLineParser
from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError, drop_output
from mlmodeldev.machine import keep_from_others
from mlmodeldev.secrets import guard_output
from mlmodeldev.tracking.registry import (
    REGISTRY_VARIABLE,
    Aliases,
    Registry,
    Version,
    find_version,
    open_registry,
    promote,
    rollback,
)
from mlmodeldev.tracking.registry_place import is_folder, refuse_missing_folder

_PROG = "mlmodeldev registry"
_PLACES = "a folder, mlflow[:URI] or wandb[:PROJECT] (MLMODELDEV_REGISTRY, else RUNS/.registry)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    guard_output()
    keep_from_others()
    try:
        options = _parser().parse_args(arguments)
        actions = {
            "register": _register,
            "promote": _promote,
            "rollback": _rollback,
            "list": _list,
            "show": _show,
        }
        actions[options.action](options)
        sys.stdout.flush()
    except UsageError as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        drop_output()
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog=_PROG,
        description="Registered models: versions, aliases, and where each comes from.",
        epilog="models:/NAME@champion and models:/NAME/3 name a version for inference.py. Exit"
        " status: 0 done, 2 bad input.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("register", help="make a trial's model the next version")
    new.add_argument("name", metavar="NAME", help="of the model")
    new.add_argument("trial", metavar="TRIAL", help="a trial; a sweep or its file: the best one")
    new.add_argument("--weights", choices=["best", "last"], default="best")
    up = actions.add_parser("promote", help="make a version the champion")
    up.add_argument("name", metavar="NAME")
    up.add_argument("version", metavar="VERSION", nargs="?", type=int, help="(the challenger)")
    actions.add_parser("rollback", help="go back to the champion before").add_argument(
        "name", metavar="NAME"
    )
    actions.add_parser("list", help="the models, their versions and aliases")
    one = actions.add_parser("show", help="where a version comes from")
    one.add_argument("name", metavar="NAME[@ALIAS|/VERSION]", help="(the latest)")
    for each in actions.choices.values():
        each.add_argument("--registry", metavar="PLACE", help=_PLACES)
        each.add_argument("--runs-dir", type=Path, metavar="DIR", help="where sweeps lie (conf's)")
        each.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _runs_dir(options: argparse.Namespace) -> Path:
    if options.runs_dir is not None:
        return Path(options.runs_dir)
    from mlmodeldev.settings.composition import compose_settings

    return Path(compose_settings([], partial=True).artefacts.runs_dir)


def _registry(options: argparse.Namespace) -> Registry:
    place = options.registry or os.environ.get(REGISTRY_VARIABLE)
    if place and is_folder(place) and options.action != "register":
        refuse_missing_folder(place, "--registry" if options.registry else REGISTRY_VARIABLE)
    runs_dir = Path(place) if place and is_folder(place) else _runs_dir(options)
    return open_registry(runs_dir, place)


# --- the actions


def _register(options: argparse.Namespace) -> None:
    from mlmodeldev.tracking.registered_trial import register_trial, source_trial

    registry = _registry(options)
    folder = source_trial(options.trial, _runs_dir(options))
    version, is_new = register_trial(registry, options.name, folder, options.weights)
    if options.json:
        print(json.dumps({**_as_dict(registry, options.name, version), "new": is_new}, indent=1))
        return
    what = "is" if is_new else "is already"
    print(f"{folder.parent.name}/{folder.name} {what} models:/{options.name}/{version.number}")


def _promote(options: argparse.Namespace) -> None:
    registry = _registry(options)
    _print_aliases(options, promote(registry, options.name, options.version))


def _rollback(options: argparse.Namespace) -> None:
    registry = _registry(options)
    _print_aliases(options, rollback(registry, options.name))


def _print_aliases(options: argparse.Namespace, aliases: Aliases) -> None:
    if options.json:
        print(json.dumps({"name": options.name, **asdict(aliases)}, indent=1))
        return
    before = f" (before: {aliases.former[-1]})" if aliases.former else ""
    print(f"models:/{options.name}@champion is version {aliases.champion}{before}")


def _list(options: argparse.Namespace) -> None:
    registry = _registry(options)
    models = {
        name: _as_dicts(name, registry.versions(name), registry.aliases(name))
        for name in registry.names()
    }
    if options.json:
        print(json.dumps(models, indent=1))
        return
    if not models:
        print("no model is registered (mlmodeldev registry register NAME TRIAL)")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for head in ("model", "version", "aliases", "metric", "trial", "registered"):
        table.add_column(head, overflow="fold")
    for name, versions in models.items():
        for version in versions:
            tags, day = version["tags"], _day(version["created"])
            row = (name, str(version["number"]), ", ".join(version["aliases"]))
            table.add_row(*map(escape, (*row, _metric(tags), str(tags.get("trial", "")), day)))
    Console(emoji=False, highlight=False).print(table)


def _show(options: argparse.Namespace) -> None:
    registry = _registry(options)
    name, mark, wanted = options.name.removeprefix("models:/").partition(
        "@" if "@" in options.name else "/"
    )
    if mark and not wanted:
        raise UsageError(f"{options.name}: says no version; {name}@champion or {name}/3 would")
    version = find_version(registry, name, wanted or "latest")
    content = _as_dict(registry, name, version)
    if options.json:
        print(json.dumps(content, indent=1))
        return
    print(f"models:/{name}/{version.number}  {' '.join(content['aliases'])}".rstrip())
    print(f"registered: {_day(version.created)}")
    for key, value in version.tags.items():
        if value is not None:
            print(f"{key}: {_metric(version.tags) if key == 'metric' else value}")
    print(f"model: {content['model']}")


def _as_dict(registry: Registry, name: str, version: Version) -> dict[str, Any]:
    return _as_dicts(name, [version], registry.aliases(name))[0]


def _as_dicts(name: str, versions: Sequence[Version], aliases: Aliases) -> list[dict[str, Any]]:
    return [{"name": name, **asdict(v), "aliases": aliases.of(v.number)} for v in versions]


def _metric(tags: dict[str, Any]) -> str:
    metric = tags.get("metric") or {}
    value = metric.get("value")
    return "" if value is None else f"{metric.get('name')} {value:.4f}"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


if __name__ == "__main__":
    sys.exit(main())
