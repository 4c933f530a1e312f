"""No test of the version before is lost: each is here by its name, or by the one it has now."""

from __future__ import annotations

import ast
import json
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
FORMER = json.loads((Path(__file__).parent / "former_tests.json").read_text())


def names() -> set[str]:
    """Return the names of all tests of the project."""
    trees = [ast.parse(file.read_text()) for file in TESTS.rglob("test_*.py")]
    functions = [node for tree in trees for node in ast.walk(tree)]
    return {node.name for node in functions if isinstance(node, ast.FunctionDef)}


def test_every_former_test_is_here_or_its_reason_is() -> None:
    there = names()
    assert [name for name in FORMER["kept"] if name not in there] == []
    assert [old for old, new in FORMER["renamed"].items() if new not in there] == []
    assert all(FORMER["dropped"].values()), "a dropped test needs a reason"
    assert len(FORMER["kept"]) + len(FORMER["renamed"]) + len(FORMER["dropped"]) == 881
