"""Identity: what is one trial, what is two; and Hydra's overrides there and back."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import identity
from mlmodeldev.settings.overrides import parse_overrides, shell_text, to_overrides

BASE = {"optimizer.lr": 0.0001, "model": "mlp", "training.seed": 0, "a.list": [1, "x", None]}

SAME = {
    "order": {"a.list": [1, "x", None], "training.seed": 0, "model": "mlp", "optimizer.lr": 1e-4},
    "nested": {
        "optimizer": {"lr": 0.0001},
        "model": "mlp",
        "training": {"seed": 0},
        "a": {"list": [1, "x", None]},
    },
    "plus": {
        "++optimizer.lr": 0.0001,
        "model": "mlp",
        "training.seed": 0,
        "+a.list": [1, "x", None],
    },
    "tuple": {**BASE, "a.list": (1, "x", None)},
    "integral float": {**BASE, "training.seed": 0.0},
    "negative zero": {**BASE, "training.seed": -0.0},
    "numpy": {**BASE, "optimizer.lr": np.float64(1e-4), "training.seed": np.int64(0)},
    "omegaconf": {**BASE, "a.list": OmegaConf.create([1, "x", None])},
    "where it runs": {
        **BASE,
        "artefacts.runs_dir": "/x",
        "cluster": "hec",
        "hydra/launcher": "joblib",
    },
    "where, nested": {**BASE, "cluster": {"gpus": 2}, "hydra": {"run": {"dir": "."}}},
}

OTHER = {
    "seed": {**BASE, "training.seed": 1},
    "text for number": {**BASE, "optimizer.lr": "0.0001"},
    "text for integer": {**BASE, "training.seed": "0"},
    "boolean for integer": {**BASE, "training.seed": False},
    "null": {**BASE, "training.seed": None},
    "text null": {**BASE, "training.seed": "null"},
    "name": {**{k: v for k, v in BASE.items() if k != "model"}, "models": "mlp"},
    "missing": {k: v for k, v in BASE.items() if k != "model"},
    "list order": {**BASE, "a.list": ["x", 1, None]},
    "list nesting": {**BASE, "a.list": [[1, "x"], None]},
    "one bit": {**BASE, "optimizer.lr": float(np.nextafter(1e-4, 1))},
    "nan": {**BASE, "training.seed": float("nan")},
    "text nan": {**BASE, "training.seed": "NaN"},
    "infinity": {**BASE, "training.seed": float("inf")},
    "minus infinity": {**BASE, "training.seed": -float("inf")},
    "empty mapping": {**BASE, "training.seed": {}},
    "empty list": {**BASE, "training.seed": []},
    "a name like where": {**BASE, "clusters.gpus": 2},
}


@pytest.mark.parametrize("spelling", SAME)
def test_one_trial_in_many_spellings(spelling):
    assert identity(SAME[spelling]) == identity(BASE)


def test_other_trials_differ_from_each_other():
    identities = [identity(each) for each in (BASE, *OTHER.values())]
    assert len(set(identities)) == len(OTHER) + 1


def test_identities_never_change():
    # Folders on disk bear these names: a change here would make every finished trial run again.
    assert identity({}) == "y3wlt2po"
    assert identity({"optimizer.lr": 0.001, "training.seed": 0}) == "ykoe3zwp"
    assert identity({"a": [None, True, {"x": 1.5}], "b": "é", "c": float("nan")}) == "ljaxfzgy"


@given(st.dictionaries(st.text("abc.", min_size=1), st.integers() | st.text(), max_size=4))
def test_an_identity_is_short_and_never_a_number(overrides):
    name = identity(overrides)
    assert re.fullmatch(r"[a-z][a-z2-7]{7}", name)
    assert yaml.safe_load(name) == name
    assert OverridesParser.create().parse_override(f"a={name}").value() == name
    with pytest.raises(ValueError):
        float(name)


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: name not in {"true", "false", "null", "inf", "nan"}
)
TRICKY = [
    *("", " ", "null", "None", "True", "1e-5", "10", "1_0", "inf", "NaN", "infx", "-", "~", "0x1f"),
    *("a,b", "a=b", "a:b", "[1]", "{a:1}", "${x}", "${a.b}", "\\${x}", "$HOME", "`ls`", "; rm x"),
    *(
        "it's",
        '"',
        "\\",
        "\\\\",
        "\\'",
        "a'b\\",
        "\\\\'\\",
        "tab\t",
        "two\nlines",
        "é",
        "日本",
        "😀",
    ),
    *(
        " lead",
        "trail ",
        "a b",
        "(x)",
        "choice(1,2)",
        "range(3)",
        "#",
        "%",
        "!",
        "*",
        "@",
        "a/b.c-d",
    ),
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(TRICKY)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    | st.text("'\\\"${}a=, #:[]")
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
KEYS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_overrides_keep_their_types_through_hydra(overrides):
    parser = OverridesParser.create()
    parsed = [parser.parse_override(item) for item in to_overrides(overrides)]
    # repr tells 1 from True and 1.0, and not-a-number is equal to itself in it.
    assert repr({each.key_or_group: each.value() for each in parsed}) == repr(overrides)
    assert repr(parse_overrides(to_overrides(overrides))) == repr(overrides)


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_text_comes_back(text):
    assert parse_overrides(to_overrides({"a.b": text, "c": [text]})) == {"a.b": text, "c": [text]}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, st.integers() | st.floats(allow_nan=False) | NAMES, max_size=4))
def test_a_command_line_has_the_identity_of_its_mapping(overrides):
    argv = [f"{key}={value}" for key, value in overrides.items()]
    assert identity(parse_overrides(argv)) == identity(overrides)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["optimizer.lr=1e-3"], {"optimizer.lr": 0.001}),
        (
            ["model=text_classifier", "+x.y=3", "++a=1"],
            {"model": "text_classifier", "x.y": 3, "a": 1},
        ),
        (["~a", "~b=1"], {"~a": None, "~b": 1}),
        (["a='x, y'", 'b="z"', "c=[1,two,null]"], {"a": "x, y", "b": "z", "c": [1, "two", None]}),
        (["a=1", "a=2"], {"a": 2}),
        (["hydra/launcher=joblib", "db@src=x"], {"hydra/launcher": "joblib", "db@src": "x"}),
        (["a=", "b={x:{y:1.5}}", "c=True"], {"a": "", "b": {"x": {"y": 1.5}}, "c": True}),
    ],
)
def test_what_hydra_reads(argv, expected):
    assert repr(parse_overrides(argv)) == repr(expected)


@pytest.mark.parametrize("item", ["a=1,2", "a=range(3)", "lr", "--multirun", "=1", "a=[1", "a=é"])
def test_what_is_no_override_is_refused_by_name(item):
    with pytest.raises(UsageError, match=re.escape(repr(item))):
        parse_overrides([item])


@pytest.mark.parametrize(
    "overrides",
    [{"a b": 1}, {"": 1}, {"a": "\0"}, {"a": {"1": 2}}, {"a": {"x y": 2}}, {"a": {1, 2}}],
)
def test_what_hydra_cannot_write_is_refused(overrides):
    with pytest.raises(UsageError):
        to_overrides(overrides)


def test_text_for_a_shell_is_read_by_a_shell_as_the_same_arguments():
    overrides = {f"k{i}": text for i, text in enumerate(TRICKY)}
    command = f"printf '%s\\0' {shell_text(overrides)}"
    seen = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout
    assert seen.decode().split("\0")[:-1] == to_overrides(overrides)


def test_a_tie_is_the_value_it_is_tied_to():
    assert identity({"a": 64, "b": "${a}"}) == identity({"a": 64, "b": 64})
    assert identity({"a": 64, "b": "w${a}"}) == identity({"a": 64, "b": "w64"})
    assert identity({"a": 64, "b": "${c}", "c": "${a}"}) == identity({"a": 64, "b": 64, "c": 64})
    assert identity({"a": 64, "b": "${other}"}) != identity({"a": 64, "b": 64})
    assert identity({"a": 64, "b": r"\${a}"}) != identity({"a": 64, "b": 64})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"a": {"b": 1}, "a.b": 2}, "'a.b' is set twice"),
        ({"a": "${b}", "b": "${a}"}, "a -> b -> a"),
        ({"a": object()}, "is a object"),
        ({1: 2}, "override 1"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        identity(overrides)
    assert "\n" not in str(error.value)
