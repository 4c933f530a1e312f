"""A program that is no trainer: writes down what it is called with, a line of JSON a call."""

import json
import os
import sys
from pathlib import Path

import yaml


def called() -> dict[str, object]:
    """Return the arguments, what their JSON file holds, and what wandb.config would."""
    files = [word for word in sys.argv[1:] if word.endswith(".json")]
    text = Path(os.environ["WANDB_SWEEP_PARAM_PATH"]).read_text(encoding="utf-8")
    entries = yaml.safe_load(text)
    return {
        "argv": ["JSON_FILE" if word in files else word for word in sys.argv[1:]],
        "json": [json.loads(Path(file).read_text(encoding="utf-8")) for file in files],
        "config": {key: each["value"] for key, each in entries.items() if key != "wandb_version"},
        "mode": os.environ.get("CORPUS_MODE"),
    }


if __name__ == "__main__":
    with Path(os.environ["CORPUS_SEEN"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(called()) + "\n")
