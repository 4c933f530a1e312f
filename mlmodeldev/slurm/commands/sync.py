"""``SlurmTrain.py sync``: upload to W&B what trials could not send themselves."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "upload to W&B the trials that ran without a network, or whose server was gone"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--follow", action="store_true", help="go on until the trials have ended that run now"
    )
    parser.add_argument("--name", metavar="SWEEP", help="of this folder of runs/ alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="artefacts.runs_dir=...")


def run(asked: argparse.Namespace) -> int:
    """Upload; the exit status is 1 where something is not wholly up."""
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.tracking.account import host, key_for
    from mlmodeldev.tracking.sync import NO_KEY, sync, wanting

    runs_dir = Path(compose_settings(asked.overrides).artefacts.runs_dir).expanduser()
    folders = list(wanting(runs_dir, asked.name))
    if folders and not key_for(host()):
        raise NO_KEY
    up = sync(folders, asked.follow, quiet=asked.json)
    lacking = [str(folder) for folder, complete in up.items() if not complete]
    if asked.json:
        complete = [str(folder) for folder, whole in up.items() if whole]
        print(json.dumps({"uploaded": complete, "lacking": lacking}))
    elif not up:
        print(f"{runs_dir}: everything that wants to be in W&B is there")
    return 1 if lacking else 0
