"""`model` and `data` are checked against the source of their class, which is never imported."""

from __future__ import annotations

import pytest

from mlmodeldev.settings.signature import check_arguments

SOURCE = '''
raise RuntimeError("imported")
from typing import Annotated, Literal
from pydantic import Field
import another

Size = Annotated[int, Field(ge=1)]
Number = int | float

class Base:
    def __init__(self, width: Size, name: str | None = None, *, kind: Literal["a", "b"] = "a",
                 sizes: list[float] = (), scale: Number = 1, quoted: "Size" = 1): ...

class Inherits(Base):
    """Takes what Base takes."""

class Outside(another.Model):
    """Its __init__ is in another file."""

class Open(Base):
    def __init__(self, depth: int = 1, **others): ...

class Strange:
    def __init__(self, tensor: another.Tensor = None, later: "Unknown" = None,
                 bare=3, call: Callable[[int], int] = None): ...
'''


@pytest.fixture
def check(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)

    def call(name: str, /, **arguments: object) -> str | None:
        problem = check_arguments("model", {"_target_": f"mine.{name}", **arguments}, tmp_path)
        return problem and "".join(problem)

    return call


@pytest.mark.parametrize("name", ["Base", "Inherits"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"width": 3}, None),
        (
            {"width": 3, "name": None, "kind": "b", "sizes": [0.5], "scale": 2.5, "quoted": 4},
            None,
        ),
        ({}, "model.width: is missing"),
        ({"width": 0}, "model.width=0: must be greater than or equal to 1"),
        ({"width": True}, "model.width=True: must be a valid integer"),
        ({"width": "3"}, "model.width='3': must be a valid integer"),
        ({"width": 3, "name": 4}, "model.name=4: must be a valid string"),
        ({"width": 3, "kind": "c"}, "model.kind='c': must be 'a' or 'b'"),
        ({"width": 3, "sizes": ["x"]}, "model.sizes=['x']: must be a valid number"),
        ({"width": 3, "scale": "x"}, "model.scale='x': must be a valid integer or must be a valid"),
        ({"width": 3, "quoted": 0}, "model.quoted=0: must be greater than or equal to 1"),
        ({"width": 3, "widht": 4}, "model.widht: no such setting; did you mean 'width'?"),
    ],
)
def test_arguments_of_a_class_and_of_one_that_inherits(check, name, arguments, expected):
    problem = check(name, **arguments)
    assert problem == expected if expected is None else problem.startswith(expected)


def test_the_allowed_names_are_listed(check):
    assert check("Base", wdith=1).endswith("(allowed: kind, name, quoted, scale, sizes, width)")


def test_what_the_source_does_not_show_is_left_to_the_constructor(check):
    assert check("Outside", anything=1) is None
    assert check("Open", depth="x", anything=1) is None
    assert check("Strange", tensor=1, later=2, bare="x", call=4) is None
    assert "no such setting" in check("Strange", tensr=1)


def test_a_class_that_is_not_there(check):
    assert check("Bsae") == (
        "model._target_=mine.Bsae: mine.py has no such class; did you mean 'Base'?"
    )


@pytest.mark.parametrize("target", [None, 3, "Base", ""])
def test_a_target_must_name_a_class(tmp_path, target):
    key, text = check_arguments("data", {"_target_": target}, tmp_path)
    assert key == "data._target_"
    assert "must name a class" in text


def test_a_class_of_an_installed_package_is_left_to_its_constructor(tmp_path):
    assert check_arguments("model", {"_target_": "torch.nn.Linear", "x": 1}, tmp_path) is None


def test_a_class_in_a_package_of_the_project(tmp_path):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "nets.py").write_text("class Net:\n    def __init__(self, a: int): ...\n")
    assert check_arguments("model", {"_target_": "zoo.nets.Net", "a": 1}, tmp_path) is None
    problem = check_arguments("model", {"_target_": "zoo.nets.Net", "a": 1.5}, tmp_path)
    assert problem == ("model.a", "=1.5: must be a valid integer")
