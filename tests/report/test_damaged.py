"""What lies in trials' folders is damaged, or the page can't be written: no command ends by it."""

from __future__ import annotations

import argparse
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlmodeldev.cli import slurm_train
from mlmodeldev.report.command import add_report_options, is_open
from mlmodeldev.report.matrices import read_matrices
from mlmodeldev.slurm.sweep_state import read_sweep_state
from mlmodeldev.trial.record import read_text_rows
from tests.report.made_up import MadeUpSweep, content_of

NAMES = np.array(["a", "b"])


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00" * 50,
        "epoch,step,val/accuracy\n0,²,0.5\n".encode(),
        b"epoch,step,val/accuracy\n0,1," + b"9" * 200_000 + b"\n",
    ],
    ids=["bytes", "superscript", "long"],
)
def test_a_damaged_table_of_metrics_has_no_rows(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "metrics.csv"
    file.write_bytes(content)
    assert [row for row in read_text_rows(file)[1] if "val/accuracy" in row] == []


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.zeros(3)},
        {"matrix": np.zeros(3), "rows": NAMES, "columns": NAMES},
        {"matrix": np.zeros((2, 2)), "rows": NAMES[:1], "columns": NAMES},
        {"matrix": np.array([["x", "y"]] * 2), "rows": NAMES, "columns": NAMES},
        {
            "matrix": np.zeros((2, 2)),
            "rows": NAMES,
            "columns": NAMES,
            "significant": np.zeros((3, 3), dtype=bool),
        },
    ],
    ids=["other", "flat", "names", "text", "significant"],
)
def test_a_matrix_that_is_none_is_left_out(tmp_path: Path, arrays: dict[str, Any]) -> None:
    place = tmp_path / "ab12cd34" / "cka" / "towers"
    place.mkdir(parents=True)
    np.savez(place / "epoch-0001.npz", **arrays)
    assert read_matrices([tmp_path / "ab12cd34"])[0] == {}


def test_a_value_that_is_not_finite_orders_nothing(tmp_path: Path) -> None:
    made = MadeUpSweep(tmp_path, [0.001, 0.01, 0.1], [16, 32, 48], [0])
    made.write()
    folder = made.runs / made.trials[0].id
    record = json.loads((folder / "trial.json").read_text())
    record["metric"]["value"] = math.nan
    (folder / "trial.json").write_text(json.dumps(record))
    for name in ("log.json", "metrics.csv"):
        (folder / name).unlink()
    content = content_of(made.report())
    assert "value" not in content["trials"][-1], "it comes last"
    assert content["trials"][-1]["id"] == made.trials[0].id
    assert content["head"]["best"]["mean"] == max(made.value(t.overrides) for t in made.trials)
    assert content["importance"], "of the other eight"


def test_whatever_is_wrong_with_the_page_status_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlmodeldev.report import content

    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    made.write()
    page = made.report()
    before = page.read_bytes()

    def gather(*_: Any) -> dict[str, Any]:
        raise KeyError("matrix")

    monkeypatch.setattr(content, "gather", gather)
    words = ["--sweep", str(made.file), f"artefacts.runs_dir={tmp_path}/runs", "logger=csv"]
    assert slurm_train(["status", *words]) == 0
    assert "the report was not renewed: KeyError" in capsys.readouterr().err
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--out", "FOLDER"], "a folder; name a file"),
        (["--out", "FOLDER/socket"], "not a file; name a file"),
        (["--watch", "inf"], "5 to 86400 seconds"),
        (["--watch", "nan"], "5 to 86400 seconds"),
    ],
)
def test_where_and_how_often_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    made.write()
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    words = ["--sweep", str(made.file), f"artefacts.runs_dir={tmp_path}/runs", "logger=csv"]
    given = [word.replace("FOLDER", str(tmp_path)) for word in given]
    assert slurm_train(["report", *words, *given]) == 2
    assert message in capsys.readouterr().err


def test_hundreds_of_layers_keep_their_last_epoch_and_what_has_no_room_is_counted(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "ab12cd34"
    for comparison, layers in {"huge": 600, "large": 400, "small": 2}.items():
        (folder / "cka" / comparison).mkdir(parents=True)
        names = np.array([str(i) for i in range(layers)])
        for epoch in (1, 2, 3):
            np.savez(
                folder / "cka" / comparison / f"epoch-{epoch:04d}.npz",
                matrix=np.zeros((layers, layers), dtype=np.float32),
                rows=names,
                columns=names,
                epoch=np.array(epoch),
            )
    read, without = read_matrices([folder])
    epochs = {name: [f["epoch"] for f in one["frames"]] for name, one in read[folder.name].items()}
    assert epochs == {"large": [3], "small": [1, 2, 3]}
    assert without == 1, "whose huge comparison is left out"


def test_a_search_that_still_draws_is_not_over(tmp_path: Path) -> None:
    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    made.write()
    text = json.loads(made.file.read_text())
    del text["parameters"]["training.seed"], text["controller"]
    open_ended = {"optimizer.lr": {"min": 0.001, "max": 0.1}, "model.hidden_size": {"value": 16}}
    text |= {"method": "bayes", "parameters": open_ended}
    words = ["--sweep", str(made.file), f"artefacts.runs_dir={tmp_path}/runs", "logger=csv"]
    for run_cap, still in ((3, True), (0, False)):
        made.file.write_text(json.dumps(text | ({"run_cap": run_cap} if run_cap else {})))
        parser = argparse.ArgumentParser()
        add_report_options(parser)
        assert is_open(read_sweep_state(parser.parse_args(words), lint=False)) is still
