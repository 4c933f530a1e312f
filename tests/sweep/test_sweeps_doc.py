"""docs/sweeps.md does what it says: its files check, its code runs, its output is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mlmodeldev.sweep import check, load
from mlmodeldev.sweep.__main__ import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "sweeps.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_sweep_files_have_no_error(text, write):
    assert [problem for problem in check(write(text)) if problem.severity == "error"] == []


def test_the_numbers_given_are_right(write):
    first, chosen, tied, ruled, stored = (
        load(write(text, f"{i}.yaml")) for i, text in enumerate(blocks("yaml"))
    )
    assert (first.count(), chosen.count()) == (12, 3)
    assert [t.overrides["model.decoder_width"] for t in tied.trials()] == [32, 64]
    assert ruled.count() == len(list(ruled.trials())) == 21
    assert stored.definition.extensions.storage == "postgresql://lab@db.example/searches"


@pytest.mark.parametrize("code", blocks("python"))
def test_code_runs(code, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "docs/sweeps.md", "exec"), {})


def test_commands_print_what_is_shown(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for part in re.split(r"^\$ ", "".join(blocks("console")), flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "mlmodeldev.sweep"]
        assert main(words[3:]) == 0
        assert capsys.readouterr().out == expected
