"""What is said of a metric that nothing logs, and which name is offered for it."""

from __future__ import annotations

import pytest

from mlmodeldev.callbacks.logged_names import nearest_metric, not_logged

OF_LOADERS = [f"val/{name}/dataloader_idx_{i}" for name in ("accuracy", "loss") for i in (0, 1)]


@pytest.mark.parametrize("name", ["val/loss", "val/los", "val_loss", "Val/Loss"])
def test_the_first_of_several_loaders_is_offered(name: str) -> None:
    assert nearest_metric(name, OF_LOADERS) == "; did you mean 'val/loss/dataloader_idx_0'?"


def test_a_loaders_number_is_looked_at_where_it_is_given() -> None:
    hint = nearest_metric(
        "val/loss/dataloader_idx_1", [*OF_LOADERS[:3], "val/loss/dataloader_idx_1"]
    )
    assert "idx_1" in hint
    assert nearest_metric("f1", OF_LOADERS) == ""
    assert nearest_metric("val/los", ["val/loss", "val/loss/dataloader_idx_0"]) == (
        "; did you mean 'val/loss'?"
    )


def test_the_line() -> None:
    assert not_logged("val/loss", [*OF_LOADERS[2:], "time/step", "cka/x"]) == (
        "training.monitor=val/loss: the model logs no such metric in validation; did you mean"
        " 'val/loss/dataloader_idx_0'? (logged: val/loss/dataloader_idx_0,"
        " val/loss/dataloader_idx_1)"
    )
