"""Composition: what is given arrives, typed; groups, presets and ties between settings."""

from __future__ import annotations

import pytest

from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.conf_files import LIBRARY_CONF, conf_folders
from mlmodeldev.settings.identity import identity
from mlmodeldev.settings.schema import Settings


def test_defaults_compose_to_a_small_dual_encoder_of_digits():
    settings = compose_settings()
    assert settings.model["_target_"] == "model.DualEncoder"
    assert settings.data["_target_"] == "datamodule.Digits"
    assert settings.overrides == {}
    assert settings.logger.wandb is not None
    assert settings.logger.csv is None


def test_what_is_given_arrives_and_nothing_else_changes():
    plain = compose_settings().model_dump()
    given = compose_settings(["optimizer.lr=1e-3", "training.patience=3"]).model_dump()
    assert given["optimizer"].pop("lr") == 0.001
    assert given["training"].pop("patience") == 3
    assert given.pop("overrides") == {"optimizer.lr": 0.001, "training.patience": 3}
    assert plain["optimizer"].pop("lr") == 0.002
    assert plain["training"].pop("patience") is None
    assert plain.pop("overrides") == {}
    assert given == plain


def test_the_defaults_in_the_classes_are_those_of_the_files():
    composed = compose_settings().model_dump()
    bare = Settings(model=composed["model"], data=composed["data"]).model_dump()
    for group in ("artefacts", "optimizer", "processing", "training", "callbacks", "cluster"):
        assert bare[group] == composed[group], group


def test_every_setting_has_a_comment_in_its_file_and_words_in_its_class():
    lines = (LIBRARY_CONF / "training/default.yaml").read_text().splitlines()
    assert [line for line in lines if "  # " not in line] == []
    assert [line.partition(":")[0] for line in lines] == list(
        Settings.model_fields["training"].annotation.model_fields
    )
    fields = Settings.model_fields["training"].annotation.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


@pytest.mark.parametrize(
    "choice",
    [
        f"{folder.name}={file.stem}"
        for folder in sorted(f for conf in conf_folders() for f in conf.iterdir())
        if folder.is_dir()
        for file in sorted(folder.glob("*.yaml"))
    ],
)
def test_every_file_of_every_group_composes(choice):
    assert compose_settings([choice])


def test_presets_change_what_they_say():
    fast = compose_settings(["debug=fast"])
    assert (fast.training.max_epochs, fast.training.limit_train_batches) == (1, 3)
    overfit = compose_settings(["debug=overfit"])
    assert (overfit.training.overfit_batches, overfit.optimizer.schedule) == (2, "constant")
    assert compose_settings(["debug=profile"]).training.profiler == "simple"
    cola = compose_settings(["experiment=cola"])
    assert cola.model["_target_"] == "examples.text_classifier.TextClassifier"
    assert cola.data["_target_"] == "examples.cola.Cola"
    assert (cola.training.monitor, cola.optimizer.lr) == ("val/matthews", 0.0005)


def test_the_command_line_has_the_last_word_over_presets():
    both = compose_settings(["debug=fast", "experiment=cola", "training.max_epochs=7"])
    assert both.training.max_epochs == 7
    assert both.training.limit_train_batches == 3
    assert both.training.monitor == "val/matthews"


def test_several_loggers_at_once():
    logger = compose_settings(["logger=[csv,tensorboard]"]).logger
    assert (logger.wandb, logger.csv is None, logger.tensorboard is None) == (None, False, False)


def test_a_tie_between_groups_takes_the_other_ones_value():
    tie = "processing.batch_size=${training.max_epochs}"
    assert compose_settings([tie]).processing.batch_size == 12
    assert compose_settings([tie, "training.max_epochs=5"]).processing.batch_size == 5
    chained = compose_settings(
        [tie, "training.max_epochs=${model.hidden_size}", "model.hidden_size=32"]
    ).processing
    assert chained.batch_size == 32


def test_a_tie_is_kept_as_written_so_that_its_trial_has_one_identity():
    tie = "processing.batch_size=${training.max_epochs}"
    given = compose_settings([tie, "training.max_epochs=5"]).overrides
    assert given["processing.batch_size"] == "${training.max_epochs}"
    assert identity(given) == identity({"processing.batch_size": 5, "training.max_epochs": 5})


def test_numbers_keep_their_kind():
    settings = compose_settings(["optimizer.lr=1", "training.limit_val_batches=1.0"])
    assert isinstance(settings.optimizer.lr, float)
    assert isinstance(settings.training.limit_val_batches, float)
    assert isinstance(
        compose_settings(["training.limit_val_batches=1"]).training.limit_val_batches, int
    )


def test_settings_are_read_only_and_survive_json():
    settings = compose_settings(["optimizer.lr=1e-5", "callbacks=none", "logger=csv"])
    with pytest.raises(ValueError, match="frozen"):
        settings.optimizer.lr = 1.0
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
