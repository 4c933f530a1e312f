"""What the page holds: read from trials' folders, small, and safe whatever a log says."""

from __future__ import annotations

import base64
import json
import math
import random
import re
import shutil
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlmodeldev.report.curves import points_each, thin
from mlmodeldev.report.importance import importances
from mlmodeldev.report.matrices import UNDEFINED, read_matrices
from mlmodeldev.report.page import as_json
from tests.report.made_up import REASON, MadeUpSweep, content_of

KEY = "wandb_v1_" + "a1B2c3D4e5F6g7H8i9J0" * 4


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> MadeUpSweep:
    made = MadeUpSweep(
        tmp_path_factory.mktemp("report"), [0.001, 0.01, 0.1], [16, 32, 48, 64], [0, 1]
    )
    made.write(failed={made.trials[0].id, made.trials[1].id})
    return made


@pytest.fixture(scope="module")
def page(sweep: MadeUpSweep) -> Path:
    return sweep.report()


@pytest.fixture(scope="module")
def content(page: Path) -> dict[str, Any]:
    return content_of(page)


def test_it_lies_in_the_sweeps_folder(sweep: MadeUpSweep, page: Path) -> None:
    assert page == sweep.runs / "report.html"


def test_the_head_has_the_best_point_with_its_spread(sweep, content) -> None:
    best = content["head"]["best"]
    values = [sweep.value(t.overrides) for t in sweep.trials if t.id in best["trials"]]
    assert best["mean"] == pytest.approx(statistics.fmean(values))
    assert best["std"] == pytest.approx(statistics.stdev(values))
    assert len(values) == 2
    everything = [sweep.value(t.overrides) for t in sweep.trials]
    assert max(everything) in values
    assert content["head"]["states"] == {"done": 22, "failed": 2}
    assert content["head"]["hours"] == pytest.approx(24 / 60)


def test_trials_come_best_first_with_their_settings(sweep, content) -> None:
    values = [trial.get("value", -math.inf) for trial in content["trials"]]
    assert values == sorted(values, reverse=True)
    assert {trial["id"] for trial in content["trials"]} == {trial.id for trial in sweep.trials}
    by_id = {trial["id"]: trial for trial in content["trials"]}
    for trial in sweep.trials:
        assert by_id[trial.id]["settings"] == trial.overrides


def test_a_failure_has_its_cause_and_its_last_lines(content) -> None:
    failed = [trial for trial in content["trials"] if trial["state"] == "failed"]
    assert [trial["failure"]["reason"] for trial in failed] == [REASON, REASON]
    assert "{{CONTENT}}" in failed[0]["failure"]["lines"]


def test_used_and_requested_resources_are_there(content, tmp_path: Path) -> None:
    """Of the 22 trials that are done each with the seed 0 had 2 GiB, each with the seed 1 had 3."""
    resources = content["resources"]
    rows = {row[0]: row for row in resources["rows"]}
    assert all(len(row) == len(resources["columns"]) for row in resources["rows"])
    assert rows["time"][1:3] == ["1 min", "1 min"]
    assert rows["cores"][1:3] == ["1.50", "1.50"]
    assert rows["memory"][2] == "3 GiB"
    assert resources["notes"][0].startswith("From 22 finished trials: ask next for: ")
    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    made.write()
    assert content_of(made.report())["resources"] is None


def test_a_log_cannot_become_part_of_the_page(page: Path) -> None:
    scripts: list[str] = []

    class Scripts(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            scripts.append(tag) if tag == "script" else None

    Scripts().feed(page.read_text())
    assert len(scripts) == 9  # the content and eight files


def test_it_names_no_address_to_fetch(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"(?:src|href)=.", text.partition('id="content"')[0])) == {'href="'}
    assert re.findall(r'href="([^"]*)"', text.partition('id="content"')[0]) == ["#trials"]
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(", text.partition("</style>")[0])


def test_nothing_of_a_key_is_in_it(tmp_path: Path) -> None:
    made = MadeUpSweep(tmp_path, [0.01], [16], [0, 1])
    first = made.trials[0].id
    made.write(failed={first})
    (made.runs / first / "traceback.txt").write_text(f"refused: {KEY}\n")
    (made.runs / made.trials[1].id / "changes.diff").write_text(f"+key = '{KEY}'\n")
    text = made.report().read_text()
    assert "refused: " in text
    assert "+key = " in text
    assert KEY not in text


def test_values_json_has_no_word_for() -> None:
    hard = {"a": math.nan, "b": [math.inf, 1.5], "c": "<!--\u2028</script>"}
    text = as_json(hard)
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"a": "nan", "b": ["inf", 1.5], "c": hard["c"]}


@pytest.mark.parametrize("count", [8, 40, 41, 1000, 9999])
def test_a_thinned_curve_keeps_its_ends_its_peaks_and_its_gaps(count: int) -> None:
    source = random.Random(count)
    values: list[float | None] = [source.uniform(0, 1) for _ in range(count)]
    values[count // 2], values[count // 3] = 7.0, -7.0
    values[count - 2] = None
    steps, kept = thin(range(count), values, 40)
    assert len(steps) <= 60
    assert (steps[0], steps[-1]) == (0, count - 1)
    assert {7.0, -7.0, None} <= set(kept)
    assert steps == sorted(set(steps))
    assert all(
        value is None or value == pytest.approx(values[s], rel=1e-4)
        for s, value in zip(steps, kept, strict=True)
    )


def test_more_trials_get_fewer_points() -> None:
    assert points_each(1, 5) == 400
    assert points_each(200, 10) * 200 * 10 <= 200_000
    assert points_each(100_000, 10) == 20


def test_matrices_come_back_to_four_digits(sweep: MadeUpSweep, content) -> None:
    trial = next(iter(content["cka"]))
    one = content["cka"][trial]["towers"]
    assert [frame["epoch"] for frame in one["frames"]] == [1, 2, 3, 4, 5, 6]
    for frame in one["frames"]:
        file = sweep.runs / trial / "cka" / "towers" / f"epoch-{frame['epoch']:04d}.npz"
        matrix = np.load(file)["matrix"].ravel()
        packed = np.frombuffer(base64.b64decode(frame["values"]), dtype="<i2")
        defined = np.isfinite(matrix)
        assert (packed[~defined] == UNDEFINED).all()
        assert np.abs(packed[defined] / 10_000 - matrix[defined]).max() <= 0.5001e-4
        bits = np.unpackbits(
            np.frombuffer(base64.b64decode(frame["chance"]), dtype=np.uint8), bitorder="little"
        )
        assert (bits[: matrix.size].astype(bool) == (defined & ~(matrix > 0.3))).all()


def test_of_very_many_matrices_the_best_trials_stay(tmp_path: Path, monkeypatch) -> None:
    made = MadeUpSweep(tmp_path, [0.01], [16, 32, 48], [0])
    made.write()
    monkeypatch.setattr("mlmodeldev.report.matrices.ALL_CELLS", 250)  # two trials of 6 x 20 cells
    folders = [made.runs / trial.id for trial in made.trials]
    read, without = read_matrices(folders)
    assert list(read) == [folder.name for folder in folders[:2]]
    monkeypatch.setattr("mlmodeldev.report.matrices.CELLS_OF_TRIAL", 60)  # three epochs of six
    (one,) = read_matrices(folders[:1])[0].values()
    assert [frame["epoch"] for frame in one["towers"]["frames"]] == [1, 3, 6]
    assert without == 1


def test_a_torn_matrix_is_left_out(tmp_path: Path) -> None:
    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    made.write()
    torn = made.runs / made.trials[0].id / "cka" / "towers" / "epoch-0003.npz"
    torn.write_bytes(torn.read_bytes()[:100])
    (one,) = read_matrices([made.runs / made.trials[0].id])[0].values()
    assert [frame["epoch"] for frame in one["towers"]["frames"]] == [1, 2, 4, 5, 6]


def test_importance_finds_what_matters() -> None:
    source = random.Random(1)
    points = [
        (
            {
                "lr": 10 ** source.uniform(-4, -1),
                "width": source.choice([16, 32, 64]),
                "kind": kind,
            },
            0.0,
        )
        for kind in ("a", "b") * 30
    ]
    points = [(p, -((math.log10(p["lr"]) + 2) ** 2) + 0.01 * source.random()) for p, _ in points]
    rows = importances(points)
    assert rows[0]["name"] == "lr"
    assert rows[0]["mean"] > 0.9
    for row in rows:
        assert 0 <= row["low"] <= row["mean"] <= row["high"] <= 1 + 1e-9
    assert sum(row["mean"] for row in rows) == pytest.approx(1, abs=0.01)


def test_importance_is_made_anew_only_when_a_trial_has_ended(tmp_path: Path, monkeypatch) -> None:
    made = MadeUpSweep(tmp_path, [0.001, 0.01, 0.1], [16, 32], [0, 1])
    made.write()
    first = content_of(made.report())["importance"]
    assert first[0]["name"] == "optimizer.lr"
    monkeypatch.setattr("mlmodeldev.report.content.importances", lambda _: ["anew"])
    assert content_of(made.report())["importance"] == first
    shutil.rmtree(made.runs / made.trials[0].id)
    assert content_of(made.report())["importance"] == ["anew"]


def test_importance_says_nothing_of_a_few_trials() -> None:
    points = [({"lr": lr, "width": 16 * lr}, float(lr)) for lr in range(7)]
    assert importances(points) == []
    assert importances([({"lr": 1.0, "width": 2}, float(i)) for i in range(20)]) == []


def test_nothing_begun_is_one_line(tmp_path: Path, capsys) -> None:
    from mlmodeldev.slurm import command_line

    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    words = ["report", "--sweep", str(made.file), f"artefacts.runs_dir={tmp_path}/runs"]
    assert command_line.main(words, {"report": "mlmodeldev.report.command"}) == 2
    assert "no trial of it was begun" in capsys.readouterr().err


def test_status_renews_a_report_that_is_there(tmp_path: Path, capsys) -> None:
    from mlmodeldev.cli import slurm_train

    made = MadeUpSweep(tmp_path, [0.01], [16], [0, 1])
    made.write()
    words = ["--sweep", str(made.file), f"artefacts.runs_dir={tmp_path}/runs", "logger=csv"]
    page = made.runs / "report.html"
    assert slurm_train(["status", *words]) == 0
    assert not page.exists()
    assert slurm_train(["report", *words]) == 0
    record = made.runs / made.trials[0].id / "trial.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "state": "interrupted"}))
    for action in ("status", "collect"):
        page.write_text("")
        assert slurm_train([action, *words]) == 0
        assert content_of(page)["head"]["states"] == {"done": 1, "interrupted": 1}
    assert str(page) in capsys.readouterr().out


def test_of_very_many_trials_the_best_and_the_failed_stay(tmp_path: Path, monkeypatch) -> None:
    made = MadeUpSweep(tmp_path, [0.001, 0.01, 0.1], [16, 32], [0, 1])
    worst = min(made.trials, key=lambda trial: made.value(trial.overrides)).id
    made.write(failed={worst})
    monkeypatch.setattr("mlmodeldev.report.content.MOST_TRIALS", 4)
    monkeypatch.setattr("mlmodeldev.report.origin.MOST_LOGS", 0)
    content = content_of(made.report())
    values = sorted((made.value(t.overrides) for t in made.trials if t.id != worst), reverse=True)
    shown = content["trials"]
    assert [t["value"] for t in shown if t["id"] != worst] == pytest.approx(values[:3])
    (failed,) = [t for t in shown if t["id"] == worst]
    assert failed["failure"] == {"reason": REASON, "left_out": True}
    assert content["trials_left_out"] == 8
    assert content["head"]["trials"] == 12
