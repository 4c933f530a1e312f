"""Targets that people write by hand: sweep files, expressions, overrides."""

from __future__ import annotations

import ast
import itertools
import math
import os
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import yaml

from tests.fuzz.mutation import ODD_VALUES, WORDS, spoiled_text, spoiled_tree
from tests.fuzz.target import Target, assert_line, may_refuse
from tests.sweep.test_fuzz import TOKENS, VALUES, bend, seeds, spoil

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
        plain = yaml.safe_load(text)
        assert sweep.document is not None
        assert _same(sweep.document.data, plain), "read otherwise than by PyYAML"
        assert len({trial.id for trial in trials}) == len(trials), "a point twice"
        for trial in trials:
            _points_are_declared(trial.overrides, plain["parameters"])
    if len(given) % 10 == 0:
        (folder / "sweep.yaml").write_bytes(given)
        for problem in check(folder / "sweep.yaml"):
            assert_line(str(problem))


def _same(ours: Any, plain: Any) -> bool:
    if isinstance(ours, dict) and isinstance(plain, dict):
        return ours.keys() == plain.keys() and all(_same(v, plain[k]) for k, v in ours.items())
    if isinstance(ours, list) and isinstance(plain, list):
        return len(ours) == len(plain) and all(map(_same, ours, plain))
    if isinstance(ours, float) and math.isnan(ours):
        return isinstance(plain, float) and math.isnan(plain)
    return type(ours) is type(plain) and ours == plain


def _points_are_declared(point: dict[str, Any], parameters: dict[str, Any]) -> None:
    for name, value in point.items():
        entry = parameters.get(name)
        if not isinstance(entry, dict) or (isinstance(value, str) and "${" in str(entry)):
            continue
        if isinstance(entry.get("values"), list):
            assert any(_same(each, value) or each == value for each in entry["values"]), name
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
    if any(isinstance(node, ast.Tuple) for node in ast.walk(tree)):
        return  # is a list here
    wanted = eval(compile(tree, "<e>", "eval"), {"__builtins__": allowed}, names)
    wanted = list(wanted) if isinstance(wanted, tuple) else wanted
    if isinstance(value, bool) and isinstance(tree.body, ast.BoolOp):
        wanted = bool(wanted)  # `and` and `or` give truth values here
    assert _same(value, wanted) or value == wanted or _has_bool_inside(tree), (value, wanted)


def _has_bool_inside(tree: ast.Expression) -> bool:
    inner = (node for node in ast.walk(tree) if node is not tree.body)
    return any(isinstance(node, ast.BoolOp) for node in inner)


# --- overrides: to text and back, and composed

_KEYS = (
    *("optimizer.lr", "training.max_epochs", "model", "data", "logger", "debug", "experiment"),
    *("callbacks.cka.enabled", "callbacks.cka.compare", "processing.batch_size", "training.trainer"),
    *("model.hidden_size", "artefacts.trial", "artefacts.runs_dir", "optimizer.lrr", "x", "a.b.c"),
    *("+model.new", "++optimizer.lr", "~optimizer.lr", "~logger", "hydra.run.dir", "hydra/launcher"),
    *("cluster.mem_gb", "cluster.sbatch", "model._target_", "+data", "logger@x", "/model", "a/b@c"),
)
_TEXTS = (
    *("1", "0.1", "1e-3", "true", "null", "csv", "cola", "fast", "[1,2]", "{a:1}", "'x y'", '"q"'),
    *("", "???", "${optimizer.lr}", "${oc.env:HOME}", "${a", "1,2", "range(1,3)", "glob(*)", "inf"),
    *("{_target_:os.system,command:x}", "{_target_: subprocess.Popen, args: [x]}", "nan", "[[[", "}"),
    *("choice(a,b)", "extend_list(1)", "int('3')", "\\", "a=b", "$x", "../x", "/tmp/x", "[a,{b:c}]"),
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
        assert _same(again, parsed), (parsed, again)
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
                assert _same(parse_overrides(own)[key], entry["value"]), word


def _odd(value: Any) -> bool:
    return isinstance(value, dict | list | float) or (isinstance(value, str) and not value.isascii())


TARGETS = [
    Target("sweep files", ("mlmodeldev.sweep.yaml_reader", "mlmodeldev.sweep.document",
           "mlmodeldev.sweep.definition", "mlmodeldev.sweep.parameters", "mlmodeldev.sweep.space",
           "mlmodeldev.sweep.lint"), make_sweep, check_sweep),  # fmt: skip
    Target("expressions", ("mlmodeldev.sweep.expression",), make_expression, check_expression,
           fills=False),  # fmt: skip
    Target("overrides", ("mlmodeldev.settings.overrides", "mlmodeldev.settings.identity"),
           make_overrides, check_overrides, fills=False),  # fmt: skip
    Target("settings", ("mlmodeldev.settings.composition", "mlmodeldev.settings.command_line",
           "mlmodeldev.settings.validation", "mlmodeldev.settings.open_places",
           "mlmodeldev.settings.added_arguments"), make_overrides, check_composed,
           fills=False),  # fmt: skip
    Target("agent's words", ("mlmodeldev.settings.overrides",), make_agent_words,
           check_agent_words),  # fmt: skip
]
