"""Places that take a user's own names: callbacks, Trainer arguments, groups; and typos in them."""

from __future__ import annotations

import inspect
import json
import shutil

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.project import project_root
from mlmodeldev.settings import composition
from mlmodeldev.settings.composition import compose_settings, refusal, unset
from mlmodeldev.settings.identity import identity
from mlmodeldev.settings.open_places import open_overrides
from mlmodeldev.settings.trainer_arguments import PASSED_ON, REFUSED
from mlmodeldev.slurm.command_line import main as slurm_train
from mlmodeldev.sweep.__main__ import main as check

EMA = "callbacks.ema={_target_: zoo.EMA, decay: 0.9}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's settings, to be changed."""
    root = tmp_path / "project"
    shutil.copytree(project_root() / "conf", root / "conf")
    for name in ("model.py", "datamodule.py"):
        shutil.copy(project_root() / name, root)
    monkeypatch.setenv("MLMODELDEV_PROJECT", str(root))
    return root


def refused(*overrides: str) -> str:
    with pytest.raises(UsageError) as error:
        compose_settings(overrides)
    text = str(error.value)
    assert "\n" not in text
    return text


# --- callbacks


def test_a_callback_is_added_and_changed_by_name():
    settings = compose_settings([EMA, "callbacks.ema.decay=0.5"])
    assert settings.callbacks.added == {"ema": {"_target_": "zoo.EMA", "decay": 0.5}}
    assert settings.overrides["callbacks.ema.decay"] == 0.5
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings


def test_with_or_without_a_plus_it_is_the_same_trial():
    both = [compose_settings([f"{plus}{EMA}"]).overrides for plus in ("", "+", "++")]
    assert len({identity(overrides) for overrides in both}) == 1
    assert identity(both[0]) != identity({})


def test_a_callback_of_a_file_takes_arguments_that_the_file_lacks(project):
    file = project / "conf/callbacks/mine.yaml"
    file.parent.mkdir()
    file.write_text("ema:\n  _target_: zoo.EMA\n")
    settings = compose_settings(["callbacks=mine", "callbacks.ema.decay=0.5"])
    assert settings.callbacks.added == {"ema": {"_target_": "zoo.EMA", "decay": 0.5}}
    assert compose_settings(["callbacks=mine", "callbacks.ema=null"]).callbacks.added == {}


def test_a_callback_of_the_projects_own_is_checked_against_its_class(project):
    (project / "zoo.py").write_text("class EMA:\n    def __init__(self, decay: float): ...\n")
    assert compose_settings([EMA]).callbacks.added
    assert refused(EMA, "callbacks.ema.decay=x") == (
        "callbacks.ema.decay='x': must be a valid number [command line]"
    )
    assert "did you mean 'decay'?" in refused(EMA, "callbacks.ema.decy=1")


@pytest.mark.parametrize(
    "override",
    ["callbacks.cak.enabled=false", "callbacks.cak=3", "callbacks.cak={enabled: true}"],
)
def test_a_name_without_a_target_is_a_typo(override):
    text = refused(override)
    assert "callbacks.cak" in text
    assert "no such setting; did you mean 'cka'?" in text
    assert text.endswith("[command line]")


def test_a_sweep_may_set_them():
    assert refusal("callbacks.ema", {"_target_": "zoo.EMA"}) is None
    assert refusal("callbacks.ema.decay", 0.5, [EMA]) is None
    assert "no such setting" in (refusal("callbacks.ema.decay", 0.5) or "")
    assert refusal("training.trainer.min_epochs", 2) is None


# --- the Trainer's arguments


def test_every_argument_of_the_trainer_is_listed_once():
    from pytorch_lightning import Trainer

    names = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert {*PASSED_ON, *REFUSED} == names
    assert not set(PASSED_ON) & set(REFUSED)


@pytest.mark.parametrize(
    "override",
    ["training.trainer={val_check_interval: 0.5}", "training.trainer.val_check_interval=0.5"],
)
def test_an_argument_of_the_trainer(override):
    settings = compose_settings([override])
    assert settings.training.trainer == {"val_check_interval": 0.5}
    assert identity(settings.overrides) == identity({"training.trainer.val_check_interval": 0.5})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_epochs", "is the setting training.max_epochs"),
        ("fast_dev_run", "is debug=fast here"),
        ("callbacks", "callbacks.NAME={_target_: ...}"),
        ("logger", "trackers are chosen by logger="),
        ("use_distributed_sampler", "shared out already"),
        ("val_check_intervall", "did you mean 'val_check_interval'?"),
    ],
)
def test_an_argument_that_has_a_setting_or_breaks_a_promise(name, message):
    text = refused(f"training.trainer.{name}=1")
    assert text.startswith(f"training.trainer.{name}: ")
    assert message in text


def test_a_name_among_the_settings_is_there():
    fields = type(compose_settings().training).model_fields
    named = [text.rpartition("training.")[2] for text in REFUSED.values() if "training." in text]
    assert [name for name in named if name.split()[0] not in fields] == []


@pytest.mark.parametrize("name", ["ddp_spawn", "ddp_fork", "ddp_notebook", "deepspeed_stage_2"])
def test_a_strategy_that_can_not_be_says_why(name):
    assert name in refused(f"training.strategy={name}")
    assert "must be one of" not in refused(f"training.strategy={name}")


# --- groups and settings of one's own


def test_a_group_and_a_setting_of_ones_own(project):
    (project / "conf/mine").mkdir()
    (project / "conf/mine/default.yaml").write_text("size: 5\n")
    (project / "conf/mine/large.yaml").write_text("size: 50\n")
    config = project / "conf/config.yaml"
    text = config.read_text().replace("  - _self_\n", "  - mine: default\n  - _self_\n")
    config.write_text(f"{text}\nheads: 2\nmodel:\n  hidden_size: ${{mine.size}}\n")
    settings = compose_settings()
    assert settings.model["hidden_size"] == 5
    assert settings.model_dump()["mine"] == {"size": 5}
    assert settings.model_dump()["heads"] == 2
    changed = compose_settings(["mine=large", "heads=3"])
    assert (changed.model["hidden_size"], changed.model_dump()["heads"]) == (50, 3)
    assert compose_settings(["+mine.more=1"]).model_dump()["mine"] == {"size": 5, "more": 1}
    assert refusal("mine.size", 6) is None
    assert "did you mean 'mine'?" in refused("mien.size=3")
    assert "did you mean 'size'?" in refused("mine.sise=3")


def test_a_name_like_a_group_of_ours_is_doubted(project, capsys):
    config = project / "conf/config.yaml"
    config.write_text(f"{config.read_text()}\noptimizr:\n  lr: 0.5\n")
    compose_settings()
    assert (
        "optimizr is kept as a setting of your own; is optimizer meant?" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("_target_: mine.Net\ninner: {deep: ???}\n", 2, "expected the node content, but found '?'"),
        ("a: 1\n\tb: 2\n", 2, "found character '\\t' that cannot start any token"),
        ("a: [1\n", 2, "expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_file_that_is_no_yaml_is_one_line(text, line, problem, project):
    file = project / "conf/model/broken.yaml"
    file.write_text(text)
    assert refused("model=broken") == f"{file}:{line}: {problem}"


# --- what is mandatory


def test_a_mandatory_setting_must_be_set(project):
    file = project / "conf/data/digits.yaml"
    file.write_text(file.read_text().replace("val_fraction: ", "val_fraction: ??? # "))
    assert refused() == (
        "data.val_fraction: is mandatory (???) and not set; set data.val_fraction=VALUE"
        " [conf/data/digits.yaml]"
    )
    assert compose_settings(["data.val_fraction=0.5"]).data["val_fraction"] == 0.5
    assert refusal("optimizer.lr", 0.1) is None  # another parameter of the sweep may set it
    assert "must be greater than 0" in (refusal("data.val_fraction", -1.0) or "")
    assert compose_settings(partial=True).training.max_epochs


def test_what_is_tied_to_a_mandatory_setting_is_as_mandatory(project):
    config = project / "conf/config.yaml"
    config.write_text(config.read_text() + "\nsize: ???\n")
    digits = project / "conf/data/digits.yaml"
    digits.write_text(digits.read_text().replace("val_fraction: ", "val_fraction: ${size} # "))
    assert refused() == "size: is mandatory (???) and not set; set size=VALUE [command line]"
    assert compose_settings(["size=0.25"]).data["val_fraction"] == 0.25
    assert compose_settings(partial=True).training.max_epochs
    assert list(unset()) == ["size"]
    assert list(unset(["data.val_fraction=0.5"])) == ["size"]
    assert refusal("size", 0.25) is None
    assert refusal("optimizer.lr", 0.1) is None
    assert "must be greater than 0" in (refusal("size", -1.0) or "")


MANDATORY = """\
# Command: none. Expected best value: none. Cost: none
program: trainer.py
name: mine
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  model: {value: own}
  model.units: {values: [8, 16]}
  training.patience: {values: [null, 3]}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


@pytest.mark.parametrize("tied", [False, True])
def test_a_sweep_sets_what_is_mandatory_and_null(project, capsys, tied):
    (project / "mine.py").write_text(OWN)
    text = "_target_: mine.Net\nunits: ???\n" + "levels: ${model.units}\n" * tied
    (project / "conf/model/own.yaml").write_text(text)
    (project / "trainer.py").write_text("")
    file = project / "mine.yaml"
    file.write_text(MANDATORY)
    assert check(["check", str(file)], settings=refusal) == 0, capsys.readouterr().out
    capsys.readouterr()
    assert slurm_train(["plan", "--json", "--sweep", str(file), "cluster=local"]) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    given = [
        (each["overrides"]["model.units"], each["overrides"]["training.patience"])
        for each in trials
    ]
    assert sorted(given, key=str) == [(16, 3), (16, None), (8, 3), (8, None)]


BY_CONDITION = """\
controller:
  type: local
  conditions: {model.units: training.patience == 3}
"""


@pytest.mark.parametrize(
    ("change", "words", "line"),
    [
        (("  model.units: {values: [8, 16]}\n", ""), [], "model.units"),
        (("model.units: {values: [8, 16]}", "model.units: {value: '???'}"), [], "model.units"),
        (("model.units", "model.units"), ["model=own", "optimizer.lr=???"], "optimizer.lr"),
        (("{values: [null, 3]}\n", "{values: [2, 3]}\n" + BY_CONDITION), [], "model.units"),
        (("  model.units: {values: [8, 16]}\n", ""), ["model=own", "model.units=8"], None),
        (
            ("  model.units: {values: [8, 16]}\n", "  model.inner: {value: {deep: 1}}\n"),
            ["model=two"],
            None,
        ),
        (("{value: own}", "{values: [own, two]}"), [], "model.inner.deep"),
    ],
)
def test_what_no_trial_of_a_sweep_is_given_is_one_line(change, words, line, project, capsys):
    """Before anything is submitted: each trial would have failed of it."""
    (project / "mine.py").write_text(OWN)
    (project / "conf/model/own.yaml").write_text("_target_: mine.Net\nunits: ???\n")
    two = "_target_: mine.Passing\nunits: 3\ninner:\n  deep: ???\n"
    (project / "conf/model/two.yaml").write_text(two)
    (project / "trainer.py").write_text("")
    file = project / "mine.yaml"
    text = MANDATORY.replace(*change)
    file.write_text(text.replace("  model: {value: own}\n", "") if words else text)
    message = f"parameters: {line}: is mandatory (???) and not set; set {line}=VALUE"
    assert check(["check", str(file), *words], settings=refusal) == (2 if line else 0)
    printed = capsys.readouterr().out
    assert printed.count(message) == bool(line), printed
    for action in ("plan", "submit"):
        if line is None and action == "submit":
            continue
        runs = [f"artefacts.runs_dir={project}/runs", "cluster=local"]
        assert slurm_train([action, "--sweep", str(file), *runs, *words]) == (2 if line else 0)
        printed = capsys.readouterr().err
        assert printed.count(message) == bool(line), printed
        assert not (project / "runs").exists()


def test_other_settings_are_named_as_they_are_given():
    assert open_overrides(["optimizer.lr=1", "-m", "callbacks=none", "~callbacks.x", "x"]) == [
        *("optimizer.lr=1", "-m", "callbacks=none", "~callbacks.x", "x")
    ]


def test_an_argument_that_no_file_lists_is_taken():
    words = ["model=text_classifier", "model.vocab_size=7"]
    settings = compose_settings(words)
    assert settings.model["vocab_size"] == 7
    assert settings.overrides == {"model": "text_classifier", "model.vocab_size": 7}
    plus = [words[0], f"+{words[1]}"]
    assert identity(settings.overrides) == identity(compose_settings(plus).overrides)
    assert refusal("model.vocab_size", 7, [words[0]]) is None
    text = refused("model=text_classifier", "model.vocab_sise=7")
    assert text.startswith("model.vocab_sise: no such setting; did you mean 'vocab_size'?")


OWN = """\
import torch


class Net:
    def __init__(self, units: int = 3, *, levels: int = 1): ...


class Passing(Net):
    def __init__(self, dropout: float = 0.1, **kwargs): ...


class Linear(torch.nn.Linear): ...
"""


def test_arguments_of_ones_own_classes(project):
    (project / "mine.py").write_text(OWN)
    (project / "conf/model/own.yaml").write_text("_target_: mine.Net\n")

    def taken(name, *overrides):
        return compose_settings(["model=own", *overrides]).model[name]

    assert taken("units", "model.units=5") == 5
    assert taken("levels", "model.levels=2", "model.units=5") == 2
    assert "must be a valid integer" in refused("model=own", "model.units=wide")
    line = refused("model=own", "model.unist=5")
    assert line.startswith("model.unist: no such setting; did you mean 'units'? (allowed in model:")
    assert "did you mean 'levels'?" in refused("model=own", "model.levles=5")
    # what is passed on can be anything, but no slip
    passing = ("model._target_=mine.Passing",)
    assert taken("units", *passing, "model.units=5") == 5
    assert taken("dropout", *passing, "model.dropout=0.5") == 0.5
    assert refused("model=own", *passing, "model.dropuot=0.5").startswith("model.dropuot: no such")


def test_arguments_of_a_librarys_class(project):
    (project / "conf/model/own.yaml").write_text("_target_: torch.nn.Linear\n")
    assert compose_settings(["model=own", "model.in_features=3"]).model["in_features"] == 3
    assert refused("model=own", "model.in_feature=3").startswith("model.in_feature: no such")


def test_thousands_of_own_arguments_are_not_composed_one_by_one(project, monkeypatch):
    (project / "zoo.py").write_text("class Net:\n    def __init__(self, **kwargs): ...\n")
    composed = []
    compose = composition._compose
    monkeypatch.setattr(composition, "_compose", lambda o: composed.append(1) or compose(o))
    own = {f"weight_of_{number}": number for number in range(300)}
    settings = compose_settings(
        ["model._target_=zoo.Net", *(f"model.{name}={value}" for name, value in own.items())]
    )
    assert own.items() <= settings.model.items()
    assert len(composed) <= 3
