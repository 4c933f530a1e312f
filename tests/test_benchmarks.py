"""The benchmarks' tables: how they are rendered and placed; nothing here measures time.

python -m pytest tests/test_benchmarks.py
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import __main__ as runner
from benchmarks import checkpoint
from benchmarks.table import Goal, Table

ROOT = Path(__file__).resolve().parents[1]


def small() -> Table:
    table = Table("Step time", ["loop", "ms"], note="Medians.", goals=[Goal("ratio", 1.04, 1.05)])
    table.add("plain", 30)
    return table


def test_table_is_rendered_in_markdown() -> None:
    assert small().text() == (
        "## Step time\n\nMedians.\n\n"
        "| loop  | ms |\n| ----- | -- |\n| plain | 30 |\n\n"
        "Goal met: ratio 1.04×, at most 1.05×."
    )


@pytest.mark.parametrize(("value", "met"), [(1.05, True), (1.0501, False), (float("nan"), False)])
def test_goal_is_met_up_to_its_limit(value, met) -> None:
    table = Table("t", [], goals=[Goal("ratio", 0.1, 1.05), Goal("ratio", value, 1.05)])
    assert table.met is met
    assert ("**missed**" in table.text()) is not met


def test_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3 cells for 2 columns"):
        small().add(1, 2, 3)


def test_a_new_table_replaces_the_old_and_leaves_the_rest() -> None:
    page = runner.place("# Page\n\nBy hand.\n", "one", "first")
    page = runner.place(page, "two", "second")
    page = runner.place(page, "one", r"third \1")
    assert "first" not in page
    assert re.findall("By hand|third|second", page) == ["By hand", "third", "second"]
    assert runner.place(page, "two", "second") == page


def test_only_what_was_requested_runs(monkeypatch, tmp_path, capsys) -> None:
    def noisy() -> Table:
        print("epoch 1/3")
        return small()

    monkeypatch.setattr(runner, "find", lambda: {"quick": noisy, "slow": pytest.fail})
    monkeypatch.setattr(runner, "PAGE", tmp_path / "page.md")
    assert runner.main(["quick"]) == 0
    assert "epoch" not in capsys.readouterr().out
    assert "| plain | 30 |" in (tmp_path / "page.md").read_text()


def test_unknown_name_is_refused(capsys) -> None:
    assert runner.main(["strat"]) == 2
    assert "start" in capsys.readouterr().err


def test_page_holds_the_tables_and_tells_nothing_of_the_place() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for name in ("step_time", "start", "checkpoint"):
        source = (ROOT / "benchmarks" / f"{name}.py").read_text()
        title, columns = re.search(r'Table\(\s*"(.+?)",\s*\[(.+?)\]', source, re.DOTALL).groups()
        block = page.split(f"<!-- {name}: generated")[1].split(f"<!-- {name}: end")[0]
        assert f"## {title}" in block
        header = next(line for line in block.splitlines() if line.startswith("| "))
        assert [cell.strip() for cell in header.strip("|").split("|")] == re.findall(
            '"(.+?)"', columns
        )
        assert "Measured on" in block
    assert not re.search(r"/(home|work|tmp|root)/", page)


def test_checkpoint_benchmark_saves_by_every_way(tmp_path) -> None:
    seconds = checkpoint.measure(tmp_path, rounds=1, megabytes=13)
    assert all(len(times) == 1 for times in seconds.values())
    assert checkpoint.OURS in seconds
    assert list(tmp_path.iterdir()) == []
