"""Bad input through composition: one line that names the key, what is allowed, the nearest name."""

from __future__ import annotations

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings, refusal

# override -> what the one line must hold
REFUSED = {
    # names
    "optimizer.lrr=1": ["optimizer.lrr: no such setting", "did you mean 'lr'?", "weight_decay"],
    "optimzer.lr=1": ["optimzer.lr: no such setting", "did you mean 'optimizer'?"],
    "optimzer=adamw": ["optimzer: no such setting", "did you mean 'optimizer'?"],
    "experimnt=cola": ["did you mean 'experiment'?"],
    "debgu=fast": ["did you mean 'debug'?"],
    "callbacks.cka.estimatr=biased": ["did you mean 'estimator'?", "callbacks.cka"],
    "logger.wandb.projct=x": ["did you mean 'project'?", "allowed in logger.wandb"],
    "+optimizer.lrr=1": ["optimizer.lrr: no such setting", "did you mean 'lr'?"],
    "+loger.x=1": ["loger: no such setting", "did you mean 'logger'?"],
    "+overrides.x=1": ["overrides", "command line"],
    # choices
    "optimizer=adamx": ["optimizer=adamx: no such choice", "did you mean 'adamw'?", "adamw, sgd"],
    "experiment=colla": ["did you mean 'cola'?"],
    "debug=fats": ["did you mean 'fast'?", "fast, overfit, profile"],
    "training=null": ["training=None: must be one of default"],
    "optimizer=5": ["optimizer=5: must be one of adamw, sgd"],
    # model and data, known from the signature of the class
    "model.hiden_size=8": ["model.hiden_size: no such setting", "did you mean 'hidden_size'?"],
    "+model.lr=8": ["model.lr: no such setting", "hidden_size"],
    "model.hidden_size=abc": ["model.hidden_size='abc': must be a valid integer"],
    "model.hidden_size=1.5": ["model.hidden_size=1.5: must be a valid integer"],
    "model.hidden_size=true": ["model.hidden_size=True: must be a valid integer"],
    "model.num_layers=0": ["model.num_layers=0: must be greater than or equal to 1"],
    "model.dropout=1": ["model.dropout=1: must be less than 1"],
    "model.image=3": ["model.image=3: must be a valid string"],
    "data.val_fraction=0": ["data.val_fraction=0: must be greater than 0"],
    "data.augment=1": ["data.augment=1: must be a valid boolean"],
    "model._target_=model.DualEncodr": ["no such class", "did you mean 'DualEncoder'?"],
    "data._target_=Digits": ["data._target_='Digits': must name a class"],
    # how it is written
    "optimizer.lr": ["'optimizer.lr'", "EQUAL"],
    "optimizer.lr=[1": ["[1"],
    "optimizer.lr=1,2": ["optimizer.lr=1,2"],
    "processing.batch_size=${training.nope}": ["training.nope", "processing.batch_size"],
    "processing.batch_size=${optimizer.lr}": ["processing.batch_size=0.002: must be a valid int"],
}


def refused(*overrides: str) -> str:
    with pytest.raises(UsageError) as error:
        compose_settings(overrides)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("override", REFUSED)
def test_one_line_with_key_and_remedy(override):
    text = refused(override)
    assert [part for part in REFUSED[override] if part not in text] == []


@pytest.mark.parametrize("other", ["estimator=biased", "kernel=rbf"])
def test_a_correction_that_has_no_formula_is_refused_before_anything_begins(other):
    text = refused("callbacks.cka.feature_correction=true", f"callbacks.cka.{other}")
    assert text.startswith("callbacks.cka: feature_correction=true goes with estimator=unbiased ")
    assert other in text.partition("not ")[2]


def test_the_line_names_where_the_value_was_given():
    assert refused("optimizer.lr=-1").endswith("[command line]")
    assert refused("debug=fast", "training.log_every_n_steps=0").endswith("[command line]")
    # debug=fast limits the batches to 3, which is no share
    text = refused("debug=fast", "training.limit_val_batches=1.5")
    assert text.startswith("training.limit_val_batches=1.5")


def test_a_bad_value_in_a_file_is_traced_to_that_file(tmp_path, monkeypatch):
    import shutil

    from mlmodeldev.project import project_root
    from mlmodeldev.settings.conf_files import LIBRARY_CONF

    root = tmp_path / "project"
    shutil.copytree(project_root() / "conf", root / "conf")
    for name in ("model.py", "datamodule.py"):
        shutil.copy(project_root() / name, root)
    monkeypatch.setenv("MLMODELDEV_PROJECT", str(root))
    sgd = root / "conf/optimizer/sgd.yaml"
    sgd.parent.mkdir()
    library = LIBRARY_CONF / "optimizer/sgd.yaml"
    sgd.write_text(library.read_text().replace("lr: 0.1", "lr: 0"))
    assert refused("optimizer=sgd").endswith("[conf/optimizer/sgd.yaml]")
    cola = root / "conf/experiment/cola.yaml"
    cola.write_text(cola.read_text().replace("lr: 0.0005", "lr: fast"))
    assert refused("experiment=cola") == (
        "optimizer.lr='fast': must be a valid number [conf/experiment/cola.yaml]"
    )
    fast = root / "conf/debug/fast.yaml"
    shutil.copytree(LIBRARY_CONF / "debug", fast.parent)
    fast.write_text(fast.read_text().replace("max_epochs: 1", "max_epochs: 0"))
    assert refused("debug=fast").endswith("[conf/debug/fast.yaml]")
    digits = root / "conf/data/digits.yaml"
    digits.write_text(digits.read_text() + "augmnt: true\n")
    text = refused()
    assert "did you mean 'augment'?" in text
    assert text.endswith("[conf/data/digits.yaml]")


def test_refusal_judges_one_override_and_is_silent_about_a_good_one():
    assert refusal("optimizer.lr", 0.01) is None
    assert refusal("model", "text_classifier") is None
    wrong = refusal("optimizer.lr", "0.01")
    assert wrong == "optimizer.lr='0.01': must be a valid number"
    assert "did you mean 'lr'?" in (refusal("optimizer.lrr", 0.1) or "")


def test_the_first_error_does_not_spoil_the_next_composition():
    refused("optimizer.lrr=1")
    refused("optimizer=adamx")
    assert compose_settings(["optimizer.lr=0.5"]).optimizer.lr == 0.5
