"""A trainer that trains nothing: writes down the settings that it reads, a line of JSON a call."""

import json
import os
import sys
from pathlib import Path

from mlmodeldev.settings.identity import flatten, identity, resolve_ties, says_where
from mlmodeldev.settings.overrides import parse_overrides, typed


def train(settings: object) -> None:
    """Be what makes a program a trainer."""


def read(arguments: list[str]) -> dict[str, object]:
    """Return the settings of a command line, and the identity of the trial that they are."""
    given = resolve_ties(flatten(parse_overrides(typed(arguments))))
    settings = {key: value for key, value in given.items() if not says_where(key)}
    return {"settings": settings, "id": identity(settings), "mode": os.environ.get("CORPUS_MODE")}


if __name__ == "__main__":
    with Path(os.environ["CORPUS_SEEN"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(read(sys.argv[1:])) + "\n")
