"""Targets that stand on a command line: overrides, settings composed of them, an agent's words."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import yaml

from tests.fuzz.mutation import (
    WORDS,
    spoiled_text,
    spoiled_tree,
)
from tests.fuzz.sweep_texts import same
from tests.fuzz.target import Target, may_refuse

_KEYS = (
    *("optimizer.lr", "training.max_epochs", "model", "data", "logger", "debug", "experiment"),
    *(
        "callbacks.cka.enabled",
        "callbacks.cka.compare",
        "processing.batch_size",
        "training.trainer",
    ),
    *("model.hidden_size", "artefacts.trial", "artefacts.runs_dir", "optimizer.lrr", "x", "a.b.c"),
    *(
        "+model.new",
        "++optimizer.lr",
        "~optimizer.lr",
        "~logger",
        "hydra.run.dir",
        "hydra/launcher",
    ),
    *("cluster.mem_gb", "cluster.sbatch", "model._target_", "+data", "logger@x", "/model", "a/b@c"),
)
_TEXTS = (
    *("1", "0.1", "1e-3", "true", "null", "csv", "cola", "fast", "[1,2]", "{a:1}", "'x y'", '"q"'),
    *("", "???", "${optimizer.lr}", "${oc.env:HOME}", "${a", "1,2", "range(1,3)", "glob(*)", "inf"),
    *(
        "{_target_:os.system,command:x}",
        "{_target_: subprocess.Popen, args: [x]}",
        "nan",
        "[[[",
        "}",
    ),
    *(
        "choice(a,b)",
        "extend_list(1)",
        "int('3')",
        "\\",
        "a=b",
        "$x",
        "../x",
        "/tmp/x",
        "[a,{b:c}]",
    ),
)


def make_overrides(rng: Random) -> list[str]:
    """Return one to four words of a command line."""
    words = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        key, text = rng.choice(_KEYS), rng.choice(_TEXTS)
        kind = rng.randrange(12)
        if kind == 0:
            text = rng.choice(WORDS)
        elif kind == 1:
            key = rng.choice(WORDS)
        elif kind == 2:
            text = spoiled_text(rng, text or "x")
        elif kind == 3:
            key = spoiled_text(rng, key)
        words.append(key if key.startswith("~") or kind == 4 else f"{key}={text}")
    return words


def check_overrides(given: list[str], folder: Path) -> None:
    """What Hydra's parser reads comes back from our spelling of it, types included."""
    from mlmodeldev.settings.identity import identity
    from mlmodeldev.settings.overrides import parse_overrides, to_overrides

    with may_refuse() as refused:
        parsed = parse_overrides(given)
        name = identity(parsed)  # which refuses ties in a circle
    if refused:
        return
    assert name.isalnum()
    with may_refuse() as refused:
        spelled = to_overrides(parsed)
    if not refused:
        again = parse_overrides(spelled)
        assert same(again, parsed), (parsed, again)
        assert identity(again) == name


def check_composed(given: list[str], folder: Path) -> None:
    """Settings that are composed hold the plain values that were asked for."""
    from mlmodeldev.settings.composition import compose_settings

    with may_refuse() as refused:
        settings = compose_settings(given, partial=True)
    if refused:
        return
    dumped = settings.model_dump()
    if given[-1].startswith("training.max_epochs=") and given[-1].partition("=")[2].isdecimal():
        assert dumped["training"]["max_epochs"] == int(given[-1].partition("=")[2])


# --- what an agent of W&B leaves for its trial

_FORMS = ("{k}={v}", "--{k}={v}", "--{k}", "+{k}={v}", "{{}}", "x.json", "sweep-config.json", "a=1")


def make_agent_words(rng: Random) -> tuple[list[str], bytes]:
    """Return a command line of `wandb agent`'s and its file of parameters, spoilt."""
    values = {rng.choice(_KEYS[:12]): rng.choice((0.1, 1, True, False, None, "x", "a b", [1], {}))
              for _ in range(3)}  # fmt: skip
    tree: Any = {"wandb_version": 1, **{k: {"value": v} for k, v in values.items()}}
    if rng.random() < 0.7:
        tree = spoiled_tree(rng, tree)
    text = yaml.safe_dump(tree)
    if rng.random() < 0.2:
        text = spoiled_text(rng, text)
    words = [rng.choice(_FORMS).format(k=k, v=v) for k, v in values.items()]
    return words, text.encode("utf-8", "surrogatepass")


def check_agent_words(given: tuple[list[str], bytes], folder: Path) -> None:
    """Every value of the file that a plain word names arrives with its type."""
    from mlmodeldev.settings.overrides import FILE_VARIABLE, parse_overrides, typed

    words, content = given
    file = folder / "sweep-config.yaml"
    file.write_bytes(content)
    with mock.patch.dict(os.environ, {FILE_VARIABLE: str(file), "WANDB_SWEEP_ID": "s"}):
        with may_refuse() as refused:
            result = typed(words)
        if refused:
            return
        values = yaml.safe_load(content)
        for word in words:
            key, mark, _ = word.removeprefix("--").partition("=")
            entry = values.get(key)
            if mark and "." in key and isinstance(entry, dict) and not _odd(entry["value"]):
                own = [each for each in result if each.startswith(f"{key}=")]
                assert same(parse_overrides(own)[key], entry["value"]), word


def _odd(value: Any) -> bool:
    return isinstance(value, dict | list | float) or (
        isinstance(value, str) and not value.isascii()
    )


TARGETS = [
    Target(
        "overrides",
        ("mlmodeldev.settings.overrides", "mlmodeldev.settings.identity"),
        make_overrides,
        check_overrides,
        fills=False,
    ),
    Target(
        "settings",
        (
            "mlmodeldev.settings.composition",
            "mlmodeldev.settings.command_line",
            "mlmodeldev.settings.validation",
            "mlmodeldev.settings.open_places",
            "mlmodeldev.settings.added_arguments",
        ),
        make_overrides,
        check_composed,
        fills=False,
    ),
    Target(
        "agent's words", ("mlmodeldev.settings.overrides",), make_agent_words, check_agent_words
    ),
]
