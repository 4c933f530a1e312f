"""The lint: each trap in a file of its own, with its line; and files that have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlmodeldev.settings.composition import refusal
from mlmodeldev.sweep import check
from mlmodeldev.sweep.__main__ import main
from mlmodeldev.sweep.invocation import ARGUMENTS

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "optimizer.lr": 0.001,
    "optimizer.name": str,
    "processing.batch_size": int,
    "model.bias": True,
    "model.dropout": None,
}
GOOD = """\
# Command: python slurm/SlurmTrain.py
# Expected best value: val/accuracy 0.97
# Cost: 4 trials of a minute
program: trainer.py
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {values: [0.001, 0.01]}
  optimizer.name: {values: [sgd, adamw]}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


def change(old, new):
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def line_of(lr="{values: [0.001, 0.01]}", name="{values: [sgd, adamw]}"):
    return GOOD.replace("{values: [0.001, 0.01]}", lr).replace("{values: [sgd, adamw]}", name)


def foreign(name):
    """Of a program that sees its values as text only."""
    return line_of(name=name).replace("trainer.py", "main.py")


NESTED = change("optimizer.lr:", "optimizer: {parameters: {lr:").replace("0.01]}", "0.01]}}}")
MISTAKES = {
    "float as text": (line_of("{values: [1e-5, 0.1]}"), 8, "error", "1e-5 is text in YAML 1.1"),
    "float as a bound": (line_of("{min: 1e-5, max: 0.1}"), 8, "error", "write 1.0e-5"),
    "continuous in a grid": (line_of("{min: 0.1, max: 0.2}"), 8, "error", "cannot list uniform"),
    "nested with args": (
        NESTED.replace("trainer.py", "main.py"),
        8,
        "warning",
        "dotted names such as optimizer.lr",
    ),
    "text as text, another program": (
        line_of("{values: [1e-5, 0.1]}").replace("trainer.py", "main.py"),
        8,
        "warning",
        "write 1.0e-5; each engine hands it to the program as it stands",
    ),
    "macro": (change("${env}", "${envv}"), 10, "error", "did you mean 'env'"),
    "macro inside": (
        change('"${args_no_hyphens}"', '"--lr=${optimizer.lr}", "${args_no_hyphens}"'),
        10,
        "error",
        "${optimizer.lr} is no macro of W&B",
    ),
    "macro not alone": (change("${args_no_hyphens}", "-- ${args}"), 10, "error", "stands alone"),
    "no arguments": (
        change(', "${args_no_hyphens}"', ""),
        10,
        "error",
        "the program would never see its values",
    ),
    "no program": (change("program: trainer.py\n", ""), 4, "warning", "will not know what to run"),
    "metric, near": (change("name: val/accuracy", "name: val/acc"), 6, "warning", "val/accuracy"),
    "metric, far": (change("name: val/accuracy", "name: my/f1"), 6, "warning", "by your model"),
    "no setting": (change("optimizer.lr", "optimizer.lrr"), 8, "error", "mean 'optimizer.lr'"),
    "type": (line_of("{values: [fast]}"), 8, "error", "'fast' is refused: optimizer.lr takes a"),
    "bool for text": (line_of(name="{values: [on]}"), 9, "warning", "on is read as true"),
    "bool is refused": (line_of(name="{values: [on]}"), 9, "error", "True is refused"),
    "null": (foreign("{values: [null]}"), 9, "error", "reads as the text 'None'"),
    "text list": (foreign('{values: ["a,b"]}'), 9, "error", "which Hydra cannot read"),
    "text number": (foreign('{values: ["10"]}'), 9, "warning", "as the number 10, not as the"),
    "mapping": (foreign("{values: [{a: 1}]}"), 9, "error", "which Hydra cannot read"),
    "octal": (line_of("{values: [010]}"), 8, "warning", "read as octal, which is 8"),
    "base 60": (line_of("{values: [1:30]}"), 8, "warning", "base 60, which is 90"),
    "value twice": (line_of("{values: [1, 1.0]}"), 8, "warning", "lists a value twice"),
    "upper bound": (
        line_of("{distribution: q_uniform, min: 0.0, max: 1.0, q: 0.5}"),
        8,
        "warning",
        "leaves out max 1.0",
    ),
    "exponents": (
        line_of("{distribution: log_uniform, min: -9, max: -1}").replace("grid", "random"),
        8,
        "warning",
        "log_uniform_values takes the bounds",
    ),
    "no end": (change("method: grid", "method: random"), 5, "warning", "has no end"),
    "no header": (GOOD.replace("# Cost", "# cast"), 1, "warning", "missing here: '# Cost:'"),
    "no point": (
        GOOD + "controller: {type: cloud, constraints: [optimizer.lr > 1]}\n",
        11,
        "error",
        "no point fits",
    ),
    "rule": (
        GOOD + "controller: {type: cloud, constraints: [optimizer.lr > optimizer.name]}\n",
        11,
        "error",
        "cannot be worked out",
    ),
    "seed": (
        change("method: grid", "method: random\nrun_cap: 3").replace("optimizer.lr", "data.seed"),
        9,
        "warning",
        "controller.replicates",
    ),
}


def refuse_one_value(key, value, choices):
    """Stand in for a settings package that answers by itself."""
    return f"no {key}" if key == "optimizer.lr" and value == 0.01 else None


@pytest.mark.parametrize("trap", MISTAKES)
def test_a_trap_is_reported_with_its_line(trap, write):
    text, line, severity, message = MISTAKES[trap]
    settings = None if trap == "seed" else SETTINGS
    problems = check(write(text), settings)
    matches = [(p.line, p.severity) for p in problems if message in p.message]
    assert (line, severity) in matches, problems


def test_a_good_file_has_no_problem(write):
    assert check(write(GOOD), SETTINGS) == []


@pytest.mark.parametrize("macro", ARGUMENTS)
def test_the_trainer_takes_its_values_in_every_form(macro, write):
    assert check(write(change("${args_no_hyphens}", f"${{{macro}}}")), SETTINGS) == []
    assert check(write(GOOD[: GOOD.index("command:")]), SETTINGS) == []


def test_settings_may_be_a_function(write):
    (problem,) = check(write(GOOD), refuse_one_value)
    assert (problem.line, problem.key) == (8, "parameters.optimizer.lr")
    assert problem.message == "no optimizer.lr"


def test_metrics_may_be_given(write):
    text = change("name: val/accuracy", "name: val/f1")
    assert check(write(text), SETTINGS, metrics=["val/f1"]) == []


@pytest.mark.parametrize("name", ["val/matthews", "cka/towers/mean", "val_loss", "val/acc"])
def test_any_metric_is_taken(name, write):
    problems = check(write(change("name: val/accuracy", f"name: {name}")), SETTINGS)
    assert [problem.severity for problem in problems] == ["warning"] * (
        name in ("val_loss", "val/acc")
    )


def test_the_trainer_reads_values_that_no_command_line_can_say(write):
    text = line_of(name='{values: [null, {a: 1}, "a,b", "10"]}')
    assert check(write(text)) == []


def test_ties_are_not_taken_for_values(write):
    assert check(write(line_of(name='{value: "${optimizer.lr}"}')), SETTINGS) == []


def test_json_arguments_keep_everything(write):
    text = change("${args_no_hyphens}", "${args_json}")
    text = text.replace("{values: [sgd, adamw]}", "{values: [null, {a: 1}]}")
    assert check(write(text)) == []


def test_all_mistakes_are_listed_at_once(write):
    text = "method: gird\nrun_cap: -1\nparameters:\n  a: {values: []}\n  b: {min: 2, max: 1}\n"
    assert [p.line for p in check(write(text)) if p.severity == "error"] == [1, 2, 4, 5]


def test_what_cannot_be_read_is_a_problem_too(tmp_path):
    (problem,) = check(tmp_path / "none.yaml")
    assert problem.severity == "error"
    assert "No such file" in problem.message


@pytest.mark.parametrize("path", sorted((ROOT / "sweep").glob("*.yaml")), ids=lambda p: p.name)
def test_the_sweeps_that_come_along_are_clean(path):
    assert check(path) == []


GROUPS = change("  optimizer.lr:", "  model.encoder: {value: google/bert}\n  optimizer.lr:")
CHOSEN = GROUPS.replace("parameters:\n", "parameters:\n  model: {values: MODELS}\n")
WHERE = 'controller: {type: cloud, conditions: {model.encoder: model == "text_classifier"}}\n'


@pytest.mark.parametrize(
    ("text", "fixed", "message"),
    [
        (GROUPS, [], "model.encoder: no such setting"),
        (GROUPS, ["model=text_classifier"], None),
        (CHOSEN.replace("MODELS", "[text_classifier]"), [], None),
        (CHOSEN.replace("MODELS", "[text_clasifier]"), [], "did you mean 'text_classifier'"),
        (CHOSEN.replace("MODELS", "[dual_encoder, text_classifier]"), [], "model=dual_encoder]"),
        (CHOSEN.replace("MODELS", "[dual_encoder, text_classifier]") + WHERE, [], None),
        (GROUPS.replace("google/bert", "3"), ["model=text_classifier"], "valid string"),
    ],
)
def test_keys_are_those_of_the_chosen_files(text, fixed, message, tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    status = main(["check", str(file), *fixed], settings=refusal)
    output = capsys.readouterr().out
    assert status == (2 if message else 0), output
    assert (message or "ok, grid") in output
    if message:
        assert f"{file}:" in output
        assert "parameters.model" in output


def test_thousands_of_keys_are_not_looked_at_one_by_one(tmp_path):
    file = tmp_path / "sweep.yaml"
    wide = "".join(f"  model.w{i}: {{values: [{i}, {i + 1}]}}\n" for i in range(2000))
    file.write_text(f"program: trainer.py\nmethod: random\nrun_cap: 3\nparameters:\n{wide}")
    composed = []

    def refused(key, value, beside):
        given = [*beside, f"{key}={value}"]
        composed.append(len(given))
        wrong = [item for item in given if item in ("model.w7=8", "model.w1500=1500")]
        return f"{wrong[0]}: no" if wrong else None

    errors = [problem for problem in check(file, refused) if problem.severity == "error"]
    assert [(each.line, each.message) for each in errors] == [
        (12, "model.w7=8: no"),
        (1505, "model.w1500=1500: no"),
    ]
    assert len(composed) < 100


def test_the_trainer_takes_nested_parameters_by_any_macro(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(NESTED)
    assert check(file, SETTINGS) == []


@pytest.mark.parametrize(
    "spec",
    [
        "{min: 1e-5, max: 0.1}",
        "{min: 1e-5, max: 0.1, distribution: log_uniform_values}",
        "{values: [1, 2], probabilities: [1e-1, 0.9]}",
        "{min: 0.1, max: 0.2, distribution: q_uniform, q: 1e-2}",
    ],
)
@pytest.mark.parametrize("program", ["trainer.py", "main.py"])
def test_a_bound_that_yaml_reads_as_text_is_one_mistake(program, spec, tmp_path):
    file = tmp_path / "sweep.yaml"
    (tmp_path / "main.py").touch()
    text = line_of(spec).replace("trainer.py", str(tmp_path / program)).replace("grid", "random")
    file.write_text(f"{text}run_cap: 3\n")
    errors = [each.message for each in check(file) if each.severity == "error"]
    assert len(errors) == 1 and "is text in YAML 1.1, not a number: write 1.0e-" in errors[0]


def test_a_grid_that_can_not_be_listed_says_so(tmp_path: Path) -> None:
    ranges = "".join(
        f"  {name}: {{min: 1, max: 2000, distribution: int_uniform}}\n" for name in "ab"
    )
    text = f"program: other.py\nmethod: grid\nparameters:\n{ranges}"
    file = tmp_path / "sweep.yaml"

    def caps() -> list[str]:
        return [problem.message for problem in check(file) if problem.key == "run_cap"]

    file.write_text(text)
    assert caps() == ["missing: of 4,000,000 points at most 2,000,000 are listed without it"]
    file.write_text(f"run_cap: 5\n{text}")
    assert caps() == []
