"""Ten thousand spoilt sweep files: each gives trials or one clean line, soon."""

from __future__ import annotations

import copy
import itertools
import random
import time
from pathlib import Path

import pytest
import yaml

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep import check, loads
from mlmodeldev.sweep.parameters import FIELDS

pytestmark = pytest.mark.project

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
ROOT = Path(__file__).parents[2]
VALUES = [
    *(None, True, False, 0, 1, 2, -1, 3.5, 1e-5, 1e308, -1e308, 5e-324, 10**400, -(10**400)),
    *(
        float("inf"),
        float("nan"),
        "",
        "a",
        "b",
        "x y",
        "${a}",
        "${b}",
        "${f}",
        "a < 2",
        "d * e < 1",
    ),
    *([], {}, [[]], [1, 2], [0.25, 0.75], ["x", None], {"value": 1}, {"values": [1, 1.0, "1"]}),
    *({"min": 0, "max": 10**12}, {"min": 0.0, "max": 5e-324}, {"parameters": {"z": {"value": 3}}}),
    *({"distribution": name, "min": 1, "max": 3} for name in sorted(FIELDS)),
    *({"distribution": name, "mu": 9.0, "sigma": 300.0} for name in sorted(FIELDS)),
    *("grid", "random", "bayes", "hyperband", "cloud", "local", "maximize", *sorted(FIELDS)),
]
FULL = """\
name: all kinds
method: bayes
run_cap: 12
metric: {name: val/loss, goal: minimize, target: 0.1}
early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 3, strict: false}
controller: {type: cloud, replicates: seed, constraints: [b < 5], conditions: {c: b > 1}}
parameters:
  seed: {values: [1, 2]}
  a: {values: [x, null, {y: 1}], probabilities: [0.5, 0.25, 0.25]}
  b: {min: 1, max: 5}
  c: {distribution: q_log_normal, mu: 1, sigma: 0.5, q: 0.25}
  d: {distribution: beta, a: 2, b: 3}
  e: {distribution: normal}
  f: {value: "${b}"}
  g: {parameters: {h: {parameters: {i: {min: 0.0, max: 1.0}}}}}
"""
TOKENS = [
    *("null", "true", "0", "-1", "1e-5", "1.0e-5", "1e400", ".inf", ".nan", "1" * 400, "0x", "1:2"),
    *("[]", "{}", "[[]]", "{a: }", "[", "}", "- ", "? ", ": ", "&a", "*a", "<<: *a", "!!set", "|"),
    *(
        "${a}",
        "${optimizer.lr}",
        "${",
        "#",
        '"',
        "'",
        "\t",
        "\0",
        "é",
        "\ud83d\ude00",
        "2026-01-01",
    ),
    *("method", "values", "min", "max", "q", "distribution", "parameters", "constraints", "value"),
    *("grid", "random", "bayes", "normal", "q_beta", "int_uniform", "optimizer.lr > 1", "9**9**9"),
    *(
        "round(1, -9**9)",
        "1000000000000",
        "run_cap: 3",
        "conditions",
        "replicates",
        "probabilities",
    ),
]


def seeds():
    texts = [path.read_text() for path in sorted((ROOT / "sweep").glob("*.yaml"))]
    texts.append(texts[0].replace("method: bayes", "method: random"))
    return [*texts, FULL, FULL.replace("method: bayes", "method: random")]


def spoil(text, rng):
    """Return the text with one to four random changes."""
    for _ in range(rng.randint(1, 4)):
        lines = text.split("\n")
        at, kind = rng.randrange(len(lines)), rng.randrange(7)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif kind == 2:
            lines[at] = " " * rng.randint(0, 4) + lines[at].lstrip()
        elif kind == 3:
            head = lines[at].partition(":")[0]
            lines[at] = f"{head}: {rng.choice(TOKENS)}"
        elif kind == 4:
            words = lines[at].split(" ")
            words[rng.randrange(len(words))] = rng.choice(TOKENS)
            lines[at] = " ".join(words)
        elif kind == 5:
            cut = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + rng.choice(TOKENS) + lines[at][cut + rng.randint(0, 2) :]
        else:
            lines = lines[: at + 1]
        text = "\n".join(lines) or "\n"
    return text


def bend(text, rng):
    """Return the file with a few values exchanged or removed: YAML still, but what a sweep."""
    data = yaml.load(text, Loader=LOADER)
    for _ in range(rng.randint(1, 2)):
        keys = ["parameters"] if "parameters" in data and rng.random() < 0.8 else [*data]
        inside, key = data, rng.choice(keys)
        while isinstance(inside[key], dict | list) and inside[key] and rng.random() < 0.9:
            inside = inside[key]
            key = rng.randrange(len(inside)) if isinstance(inside, list) else rng.choice([*inside])
        if rng.random() < 0.15 and len(inside) > 1:
            del inside[key]
        else:
            inside[key] = copy.deepcopy(rng.choice(VALUES))
    return yaml.dump(data, Dumper=DUMPER)


def one_answer(text):
    """Return whether the text gave trials; anything but a clean refusal raises."""
    try:
        trials = loads(text).trials(count=3)
        for trial in itertools.islice(trials, 3):
            assert trial.id
            assert trial.name
    except UsageError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize("part", range(4))
def test_spoilt_files_are_answered(part, tmp_path):
    rng, texts, path = random.Random(part), seeds(), tmp_path / "sweep.yaml"
    accepted, slowest = 0, 0.0
    for i in range(2500):
        text = (spoil if i % 2 else bend)(rng.choice(texts), rng)
        begin = time.perf_counter()
        accepted += one_answer(text)
        if i % 10 == 0:
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
            assert all("\n" not in str(problem) for problem in check(path))
        slowest = max(slowest, time.perf_counter() - begin)
    assert 250 < accepted < 2000
    assert slowest < 5
