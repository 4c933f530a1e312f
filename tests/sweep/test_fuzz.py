"""Ten thousand spoilt sweep files: each gives trials or one clean line, soon."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep import check, load

ROOT = Path(__file__).parents[2]
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
    texts.append((Path(__file__).parent / "test_definition.py").read_text().split('"""')[3])
    return texts


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


def one_answer(path):
    """Return whether the file gave trials; anything but a clean refusal raises."""
    try:
        trials = load(path).trials(count=3)
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
        text = spoil(rng.choice(texts), rng)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        begin = time.perf_counter()
        accepted += one_answer(path)
        if i % 10 == 0:
            assert all("\n" not in str(problem) for problem in check(path))
        slowest = max(slowest, time.perf_counter() - begin)
    assert 100 < accepted < 2400
    assert slowest < 5
