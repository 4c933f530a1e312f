"""A program that does what careless research code does with its keys, and then trains."""

import os
import sys
from pathlib import Path
from typing import Any

from mlmodeldev.settings import Settings


def train(settings: Settings) -> Any:
    key = os.environ["WANDB_API_KEY"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    print("logging in with", key, ours)
    print(f"again: {key}", file=sys.stderr)
    import trainer

    trainer.train(settings)
    seen = [p for p in Path("/proc").glob("[0-9]*/cmdline") if key.encode() in _read(p)]
    print("command lines with the key:", len(seen))
    raise ValueError(f"could not log in with {key}")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
