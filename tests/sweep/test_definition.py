"""Reading a sweep file: what W&B's schema allows, and one clear line for what it does not."""

from __future__ import annotations

import re

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep import check, load
from mlmodeldev.sweep.definition import Hyperband, Metric
from mlmodeldev.sweep.loading import pruning
from mlmodeldev.sweep.stopping import bands

FULL = """\
    program: trainer.py
    project: p
    entity: e
    name: a full sweep
    description: 1e-5 is text here, and that is fine
    method: bayes
    run_cap: 12
    metric: {name: val/loss, goal: minimize, target: 0.1}
    early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 3, strict: false}
    command: ["${env}", "python3", "${program}", "${args_no_hyphens}", 7]
    controller: {type: cloud}
    parameters:
      constant: {value: [1, 2]}
      words: {values: [a, null, {x: 1}]}
      chances: {values: [a, b], probabilities: [0.3, 0.7]}
      integer: {min: 1, max: 5}
      real: {min: 0.0, max: 1.0}
      named: {distribution: uniform, min: 0, max: 1}
      nested:
        parameters:
          deep: {parameters: {leaf: {distribution: beta, a: 2}}}
"""


def test_all_of_the_schema_is_read(sweep):
    definition = sweep(FULL).definition
    assert definition.metric == Metric("val/loss", "minimize", 0.1)
    assert definition.early_terminate == Hyperband(None, 27, 2, 3, False)
    assert (definition.method, definition.run_cap) == ("bayes", 12)
    assert definition.command[-1] == "7"
    assert definition.texts["name"] == "a full sweep"
    parsed = {p.name: (p.distribution, p.fields) for p in definition.parameters}
    assert parsed["words"] == ("categorical", {"values": ["a", None, {"x": 1}]})
    assert parsed["integer"] == ("int_uniform", {"min": 1, "max": 5})
    assert parsed["real"] == ("uniform", {"min": 0.0, "max": 1.0})
    assert parsed["named"] == ("uniform", {"min": 0, "max": 1})
    assert parsed["nested.deep.leaf"] == ("beta", {"a": 2, "b": 1.0})


def parameter(spec, method="random"):
    """Return a sweep file with one parameter, in line 4."""
    return f"method: {method}\nrun_cap: 3\nparameters:\n  lr: {spec}\n"


BAD = {
    "empty file": ("", 1, "no sweep file"),
    "no sweep": ("a: 1\nb: 2\n", 1, "no sweep file"),
    "a list": ("- 1\n- 2\n", 1, "no sweep file"),
    "no YAML": ("method: grid\nparameters: {a: [}\n", 2, "no valid YAML"),
    "two documents": ("method: grid\n---\nmethod: grid\n", 2, "no valid YAML"),
    "unknown key": ("method: grid\nparametres: {}\n", 2, "did you mean 'parameters'"),
    "method": ("method: gird\nparameters: {a: {values: [1]}}\n", 1, "did you mean 'grid'"),
    "no method": ("parameters: {a: {values: [1]}}\n", 1, "method: missing; allowed: grid"),
    "no parameters": ("method: grid\n", 1, "parameters: must be a mapping"),
    "empty parameters": ("method: grid\nparameters: {}\n", 2, "must be a mapping"),
    "key twice": (
        "method: grid\nmethod: grid\nparameters: {a: {value: 1}}\n",
        2,
        "first in line 1",
    ),
    "boolean key": (parameter("{off: 1}"), 4, "the key off is read as a boolean"),
    "scalar": (parameter("0.1"), 4, "must be a mapping, such as {value: 1}"),
    "nothing": (parameter("{}"), 4, "needs one of: value"),
    "typo": (
        parameter("{value: 1, valeus: [1]}"),
        4,
        "not a field of constant; allowed: distribution, value",
    ),
    "only a typo": (parameter("{vals: [1, 2]}"), 4, "did you mean 'values'"),
    "empty grid": (parameter("{values: []}", "grid"), 4, "must be a list with a value in it"),
    "values no list": (parameter("{values: 3}"), 4, "must be a list"),
    "min above max": (parameter("{min: 3, max: 1}"), 4, "min 3 must be less than max 1"),
    "min is max": (parameter("{min: 1.0, max: 1.0}"), 4, "must be less than"),
    "mixed bounds": (parameter("{min: 0, max: 1.0}"), 4, "both as integers or both with a decimal"),
    "boolean bounds": (parameter("{min: false, max: true}"), 4, "must be numbers"),
    "infinite": (parameter("{distribution: uniform, min: 0, max: .inf}"), 4, "finite number"),
    "no max": (parameter("{distribution: uniform, min: 0}"), 4, "uniform needs 'max'"),
    "distribution": (parameter("{distribution: unifrom, min: 0, max: 1}"), 4, "mean 'uniform'"),
    "log of zero": (parameter("{distribution: log_uniform_values, min: 0, max: 1}"), 4, "than 0"),
    "step": (parameter("{distribution: q_uniform, min: 0, max: 1, q: 0}"), 4, "q 0 must be"),
    "sigma": (parameter("{distribution: normal, sigma: -1}"), 4, "must not be negative"),
    "beta": (parameter("{distribution: beta, a: 0}"), 4, "must be greater than 0"),
    "foreign field": (parameter("{min: 0, max: 1, mu: 1}"), 4, "not a field of int_uniform"),
    "probabilities": (parameter("{values: [1, 2], probabilities: [0.5, 0.6]}"), 4, "sum to 1.1"),
    "too few": (parameter("{values: [1, 2], probabilities: [1]}"), 4, "1 probabilities for 2"),
    "negative": (parameter("{values: [1, 2], probabilities: [2, -1]}"), 4, "numbers from 0 to 1"),
    "float as text": (parameter("{values: [1.0, 1e-5]}"), 4, "1e-5 is text in YAML 1.1"),
    "date": (parameter("{values: [2026-01-01]}"), 4, "read as a date"),
    "object": (
        parameter("!!python/object:os.system {}"),
        4,
        "tag:yaml.org,2002:python/object:os.system is not",
    ),
    "continuous grid": (parameter("{min: 0.0, max: 1.0}", "grid"), 4, "cannot list uniform"),
    "chances in a grid": (
        parameter("{values: [1], probabilities: [1]}", "grid"),
        4,
        "no use for probabilities",
    ),
    "endless axis": (parameter("{min: 0, max: 10000000000000000}", "grid"), 4, "more than 1e+15"),
    "name": ("method: grid\nparameters:\n  +lr: {value: 1}\n", 3, "args_append_hydra"),
    "dotted and nested": (
        "method: grid\nparameters:\n  a.b: {value: 1}\n  a: {parameters: {b: {value: 2}}}\n",
        4,
        "a.b is set twice, first in line 3",
    ),
    "inside a mapping": (
        "method: grid\nparameters:\n  a.b: {value: 1}\n  a: {values: [{b: 2}]}\n",
        4,
        "sets a.b, which is a parameter of its own",
    ),
    "swept place": (
        "method: grid\nparameters:\n  cluster.gpus: {values: [1, 2]}\n",
        3,
        "says where a trial runs",
    ),
    "bayes without metric": ("method: bayes\nparameters: {a: {value: 1}}\n", 1, "needs a 'metric'"),
    "hyperband without metric": (
        "method: random\nearly_terminate: {type: hyperband, min_iter: 2}\n"
        "parameters: {a: {value: 1}}\n",
        2,
        "needs a 'metric'",
    ),
    "hyperband": (
        "method: grid\nmetric: {name: a}\nearly_terminate: {type: hyperband}\n"
        "parameters: {a: {value: 1}}\n",
        3,
        "needs 'min_iter'",
    ),
    "goal": ("method: grid\nmetric: {name: a, goal: max}\nparameters: {a: {value: 1}}\n", 2, "max"),
    "run cap": ("method: grid\nrun_cap: 0\nparameters: {a: {value: 1}}\n", 2, "at least 1"),
    "circle": (
        'method: grid\nparameters: {a: {value: "${b}"}, b: {value: "${a}"}}\n',
        2,
        "a -> b -> a",
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_one_line_with_its_place(mistake, write):
    text, line, message = BAD[mistake]
    path = write(text)
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        load(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(error.value)


def extended(text):
    """Return a sweep file with two parameters and something of ours, in line 4."""
    return (
        "method: grid\n"
        "parameters: {a: {values: [1, 2]}, b: {values: [x, y]}, s: {values: [0, 1]}, "
        "big: {min: 1, max: 1000000000000}}\n"
        f"controller:\n  {{type: cloud, {text}}}\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("constraint: []", "did you mean 'constraints'"),
        ("constraints: {a: 1}", "must be a list of expressions"),
        ("constraints: [aa < 1]", "'aa' is no parameter here; did you mean 'a'"),
        ("constraints: [a <]", "is no expression"),
        ("constraints: [1]", "must be an expression"),
        ("constraints: ['__import__(\"os\")']", "Call is not allowed"),
        ("constraints: ['a.__class__']", "'a.__class__' is no parameter here"),
        ("constraints: ['[i for i in a]']", "ListComp is not allowed"),
        ("constraints: ['(lambda: 1)()']", "is not allowed"),
        ("conditions: [a]", "must map a parameter"),
        ("conditions: {c: a > 1}", "is no parameter here"),
        ("conditions: {a: a > 1}", "depends on itself"),
        ("conditions: {a: b == 'x', b: a > 1}", "depends on itself: a -> b -> a"),
        ("replicates: seed", "'seed' is no parameter here"),
        ("replicates: big", "has more than 10000 values to repeat each point by"),
        ("replicates: s, constraints: [s > a]", "s is a replicate"),
        ("replicates: s, conditions: {a: s > 1}", "s is a replicate"),
    ],
)
def test_our_extensions_are_checked(text, message, write):
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        load(write(extended(text)))
    assert ":4: controller" in str(error.value)


def test_a_missing_type_under_controller_is_refused(write):
    text = "method: grid\nparameters: {a: {value: 1}}\ncontroller: {constraints: []}\n"
    with pytest.raises(UsageError, match=re.escape("controller.type: missing; allowed: cloud")):
        load(write(text))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x00\x01", b"a" * 4_000_001, b"[" * 9999])
def test_what_is_no_text_is_refused(content, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(str(path))):
        load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml:1: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_aliases_that_explode_or_contain_themselves_are_refused(write):
    doubling = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    for text in (f"a0: &a0 [x]\n{doubling}", "method: &m [*m]\n"):
        with pytest.raises(UsageError, match="expands to too much"):
            load(write(text))


def test_anchors_and_merges_are_read(sweep):
    text = """\
        method: random
        run_cap: 1
        parameters:
          a: &log {distribution: log_uniform_values, min: 0.1, max: 1}
          b: *log
          c: {<<: *log, max: 10}
        """
    fields = {p.name: p.fields for p in sweep(text).definition.parameters}
    assert fields["b"] == {"min": 0.1, "max": 1}
    assert fields["c"] == {"min": 0.1, "max": 10}


SEARCHED = """\
    method: {method}
    run_cap: 3
    metric: {{name: loss}}
    early_terminate: {{type: hyperband, {rule}}}
    parameters: {{a: {spec}}}
"""


@pytest.mark.parametrize(
    ("method", "rule", "spec", "message"),
    [
        ("bayes", "min_iter: 1", "{value: 1}", "bayes needs a parameter to search"),
        (
            *("random", "min_iter: 1"),
            "{distribution: categorical, values: [x, y], probabilities: [0.5, 0.5]}",
            "W&B takes none with categorical",
        ),
        (
            *("random", "min_iter: 1"),
            "{distribution: categorical_w_probabilities, values: [x, y]}",
            "needs 'probabilities'",
        ),
        ("random", "min_iter: 3, max_iter: 27", "{values: [1, 2]}", "needs 's' beside it"),
        ("random", "min_iter: 2.5", "{values: [1, 2]}", "must be an integer of at least 1"),
    ],
)
def test_what_wandbs_engine_refuses_is_refused(method, rule, spec, message, write):
    with pytest.raises(UsageError, match=re.escape(message)):
        load(write(SEARCHED.format(method=method, rule=rule, spec=spec)))


@pytest.mark.parametrize(
    ("rule", "expected", "warning"),
    [
        ("min_iter: 3, max_iter: 27, s: 2, eta: 3", [3, 9], "is of no account beside 'max_iter'"),
        ("min_iter: 2.0, eta: 2", [2, 4, 8], None),
        ("max_iter: 27.0, s: 1", [9], None),
        ("max_iter: 27, s: 0", [], "stops nothing"),
        ("max_iter: 27, s: -1", [], "stops nothing"),
    ],
)
def test_what_wandbs_engine_takes_is_read_as_it_does(rule, expected, warning, write):
    """The bands are those of `hyperband_stop_runs` in `sweeps` 0.3.0."""
    path = write(SEARCHED.format(method="random", rule=rule, spec="{values: [1, 2]}"))
    sweep = load(path)
    assert bands(sweep.definition.early_terminate)[: len(expected) or 9] == expected
    assert bool(pruning(sweep)) == bool(expected)
    stated = [p.message for p in check(path) if p.key.startswith("early_terminate")]
    assert (warning in stated[0]) if warning else not stated
