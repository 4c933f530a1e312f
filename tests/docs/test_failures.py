"""docs/failures.md speaks of lines that there are, and of each that README names."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "failures.md").read_text()
SECTIONS = re.findall(
    r"^### (.+?)\n\n```text\n(.*?)```\n(.+?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE
)


@functools.cache
def texts() -> str:
    """Every text in the library's source, what is filled in written as ``…``."""
    result = []
    for file in (ROOT / "mlmodeldev").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                result.append("".join(map(_part, node.values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                result.append(node.value)
    return "\n".join(result)


def _part(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value)
    assert isinstance(value, ast.FormattedValue)
    return "…"


def constant_parts(symptom: str) -> list[str]:
    parts = (part.strip(" :=;()'[]") for part in symptom.split("…"))
    return [part for part in parts if len(part) > 3]


def missing(symptom: str) -> list[str]:
    return [part for part in constant_parts(symptom) if part not in texts()]


@pytest.mark.parametrize(("title", "symptoms"), [(title, text) for title, text, _ in SECTIONS])
def test_the_symptom_is_a_line_of_the_library(title: str, symptoms: str) -> None:
    for symptom in symptoms.splitlines():
        assert constant_parts(symptom), title
        assert missing(symptom) == [], title


def test_a_line_that_there_is_not_is_seen() -> None:
    assert missing("this trial is done since …; wait for it")


def test_each_failure_has_a_mend() -> None:
    assert len(SECTIONS) == PAGE.count("\n### ") >= 35
    assert all(len(text.split()) >= 5 for _, _, text in SECTIONS)


def _first_code(cell: str) -> str:
    match = re.match("`(.+?)`", cell)
    return match[1] if match else cell


def test_what_readme_names_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("## When it fails")[2].partition("\nMore: ")[0]
    rows = re.findall(r"^\| (.+?) \| ", table, re.MULTILINE)[1:]
    assert len(rows) >= 14
    page = re.sub(r"\s+", " ", PAGE).lower()
    for row in rows:
        name = re.sub("'image'|model.py|16-mixed|MLflow|\\b3|\\bdone\\b", "…", _first_code(row))
        assert [p for p in constant_parts(name) if p.lower() not in page] == [], row
