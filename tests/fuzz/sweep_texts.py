"""Targets that people write by hand: sweep files, expressions."""

from __future__ import annotations

import ast
import itertools
import math
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.fuzz.mutation import (
    ODD_VALUES,
    WORDS,
    spoiled_text,
    spoiled_tree,
)
from tests.fuzz.target import Target, assert_line, may_refuse
from tests.sweep.test_fuzz import LOADER, TOKENS, VALUES, bend, seeds, spoil

ROOT = Path(__file__).parents[2]
SEEDS = seeds()

# --- sweep files


def make_sweep(rng: Random) -> bytes:
    """Return a sweep file: a shipped one, spoilt as text or as values; at times bytes of it."""
    text = rng.choice(SEEDS)
    kind = rng.randrange(12)
    if kind < 5:
        return bend(text, rng).encode("utf-8", "surrogatepass")
    if kind < 10:
        return spoil(text, rng).encode("utf-8", "surrogatepass")
    if kind == 10:
        return spoiled_text(rng, text, (*WORDS, *TOKENS)).encode("utf-8", "surrogatepass")
    tree = spoiled_tree(rng, yaml.safe_load(text), (*ODD_VALUES[:50], *VALUES))
    return yaml.safe_dump(tree, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def check_sweep(given: bytes, folder: Path) -> None:
    """PyYAML's reading of an accepted file is ours; points are of their lists; problems are lines."""
    from mlmodeldev.sweep import check, loads

    text = given.decode("utf-8", "replace")
    with may_refuse() as refused:
        sweep = loads(text)
        trials = list(itertools.islice(sweep.trials(count=3), 3))
    if not refused:
        plain = yaml.load(text, Loader=LOADER)
        assert sweep.document is not None
        assert same(sweep.document.data, plain), "read otherwise than by PyYAML"
        assert len({trial.id for trial in trials}) == len(trials), "a point twice"
        for trial in trials:
            _points_are_declared(trial.overrides, plain["parameters"])
    if len(given) % 10 == 0:
        (folder / "sweep.yaml").write_bytes(given)
        for problem in check(folder / "sweep.yaml"):
            assert_line(str(problem))


def same(ours: Any, plain: Any) -> bool:
    if isinstance(ours, dict) and isinstance(plain, dict):
        return ours.keys() == plain.keys() and all(same(v, plain[k]) for k, v in ours.items())
    if isinstance(ours, list) and isinstance(plain, list):
        return len(ours) == len(plain) and all(map(same, ours, plain))
    if isinstance(ours, float) and math.isnan(ours):
        return isinstance(plain, float) and math.isnan(plain)
    return type(ours) is type(plain) and ours == plain


def _points_are_declared(point: dict[str, Any], parameters: dict[str, Any]) -> None:
    for name, value in point.items():
        entry = parameters.get(name)
        if not isinstance(entry, dict) or "${" in str(entry):
            continue
        if isinstance(entry.get("values"), list):
            assert any(same(each, value) or each == value for each in entry["values"]), name
        elif {*entry} == {"min", "max"} and isinstance(value, int | float):
            assert entry["min"] <= value <= entry["max"], name


# --- expressions

NAMES = ("a", "b.c", "lr", "seed")
_ATOMS = (
    *NAMES,
    *("0", "1", "-2", "3.5", "1e308", "1e-5", "9**9**9", "'x'", '"a b"', "true", "null", "True"),
    *("[1, 2]", "[a, 'x']", "10**400", "x", "a.b", "None", "1" * 400, "''", "a[0]", "{}", "(1, 2)"),
    *("__import__('os').system('x')", "lambda: 1", "a := 1", "f'{a}'", "b'x'", "1j", "...", "~a"),
)
_JOINTS = ("+", "-", "*", "/", "//", "%", "**", "<", "<=", "==", "!=", ">", ">=", "in", "not in",
           "and", "or", "is", "@", "<<", "&", ",", " ", "=")  # fmt: skip
_CALLS = ("min", "max", "abs", "round", "len", "sum", "open", "eval", "a.upper", "not ", "-")


def make_expression(rng: Random) -> tuple[str, dict[str, Any]]:
    """Return an expression by a small grammar, right or wrong, and a point."""

    def part(depth: int) -> str:
        kind = rng.randrange(10) if depth else 0
        if kind < 4:
            return rng.choice(_ATOMS if rng.random() < 0.3 else _ATOMS[:20])
        if kind < 7:
            return f"({part(depth - 1)} {rng.choice(_JOINTS[:17])} {part(depth - 1)})"
        if kind == 7:
            inner = ", ".join(part(depth - 1) for _ in range(rng.randrange(4)))
            return f"{rng.choice(_CALLS[:5] if rng.random() < 0.8 else _CALLS)}({inner})"
        if kind == 8:
            return f"({part(depth - 1)} if {part(depth - 1)} else {part(depth - 1)})"
        return f"{part(depth - 1)} {rng.choice(_JOINTS)} {part(depth - 1)}"

    text = part(rng.randrange(5))
    if rng.random() < 0.1:
        text = spoiled_text(rng, text)
    values = (0, 1, -1, 2.5, "x", None, True, [1, 2], 1e308, 10**30, float("nan"), "")
    return text, {name: rng.choice(values) for name in NAMES}


def check_expression(given: tuple[str, dict[str, Any]], folder: Path) -> None:
    """The value is Python's own, where both have one."""
    from mlmodeldev.sweep.expression import Expression

    text, point = given
    with may_refuse() as refused:
        value = Expression.parse(text, NAMES).value(point)
    if refused or "**" in text:  # powers are floats here
        return
    nodes = {"b": type("Dotted", (), {"c": point["b.c"]})()}
    names = {**point, **nodes, "true": True, "false": False, "null": None}
    allowed = {"min": min, "max": max, "abs": abs, "round": round, "len": len}
    tree = ast.parse(text.strip(), mode="eval")
    if any(isinstance(node, ast.Tuple) for node in ast.walk(tree)) or _has_bool_inside(tree):
        return  # a tuple is a list here, and `and` and `or` give truth values
    wanted = eval(compile(tree, "<e>", "eval"), {"__builtins__": allowed}, names)
    wanted = list(wanted) if isinstance(wanted, tuple) else wanted
    if isinstance(value, bool) and isinstance(tree.body, ast.BoolOp):
        wanted = bool(wanted)
    assert same(value, wanted) or value == wanted, (value, wanted)


def _has_bool_inside(tree: ast.Expression) -> bool:
    inner = (node for node in ast.walk(tree) if node is not tree.body)
    return any(isinstance(node, ast.BoolOp) for node in inner)


TARGETS = [
    Target(
        "sweep files",
        (
            "mlmodeldev.sweep.yaml_reader",
            "mlmodeldev.sweep.document",
            "mlmodeldev.sweep.definition",
            "mlmodeldev.sweep.parameters",
            "mlmodeldev.sweep.space",
            "mlmodeldev.sweep.lint",
        ),
        make_sweep,
        check_sweep,
    ),
    Target(
        "expressions",
        ("mlmodeldev.sweep.expression",),
        make_expression,
        check_expression,
        fills=False,
    ),
]
