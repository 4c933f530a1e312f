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
        problem = check_arguments("data", {"_target_": f"mine.{name}", **arguments}, tmp_path)
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
        ({}, "data.width: is missing"),
        ({"width": 0}, "data.width=0: must be greater than or equal to 1"),
        ({"width": True}, "data.width=True: must be a valid integer"),
        ({"width": "3"}, "data.width='3': must be a valid integer"),
        ({"width": 3, "name": 4}, "data.name=4: must be a valid string"),
        ({"width": 3, "kind": "c"}, "data.kind='c': must be 'a' or 'b'"),
        ({"width": 3, "sizes": ["x"]}, "data.sizes=['x']: must be a valid number"),
        ({"width": 3, "scale": "x"}, "data.scale='x': must be a valid integer or must be a valid"),
        ({"width": 3, "quoted": 0}, "data.quoted=0: must be greater than or equal to 1"),
        ({"width": 3, "widht": 4}, "data.widht: no such setting; did you mean 'width'?"),
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
        "data._target_=mine.Bsae: mine.py has no such class; did you mean 'Base'?"
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


TYPED = """
import typing as t
from collections import abc
from collections.abc import Callable, Sequence as Row
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

class Net:
    def __init__(self, maybe: Optional[int] = None, new: int | None = None, silent: int = None,
                 either: Union[int, str] = 1, row: Row[int] = (), pair: tuple[int, float] = (1, 2),
                 many: tuple[int, ...] = (), old: List[Tuple[int, str]] = (), where: Path = ".",
                 table: Dict[str, float] = {}, named: t.Optional[t.List[int]] = None,
                 rate: float = 1, call: Callable[[int], int] = len, kind: t.Type[int] = int,
                 other: Optional["Unknown"] = None, strange: Row[int, "+"] = ()): ...
"""


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("maybe", [None, 3], ["3", 1.5, True]),
        ("new", [None, 3], ["3", [3]]),
        ("silent", [None, 3], ["3"]),
        ("either", [1, "x"], [1.5, None]),
        ("row", [[], [1, 2]], [["x"], 3, "12"]),
        ("pair", [[1, 2], [1, 2.5]], [[1], [1, 2, 3], ["1", 2]]),
        ("many", [[], [1, 2, 3]], [[1.5], 1]),
        ("old", [[[1, "a"]]], [[[1, 2]], [["a", 1]]]),
        ("where", ["a/b"], [3]),
        ("table", [{"a": 1}], [{"a": "x"}, [1]]),
        ("named", [None, [1]], [["x"]]),
        ("rate", [1, 1.5], ["1", True]),
        ("call", ["anything", 3], []),
        ("kind", ["anything"], []),
        ("other", [3, "x"], []),
        ("strange", [3, "x"], []),
    ],
)
def test_annotations_as_people_write_them(tmp_path, name, right, wrong):
    (tmp_path / "mine.py").write_text(TYPED)

    def problem(value):
        return check_arguments("model", {"_target_": "mine.Net", name: value}, tmp_path)

    assert [value for value in right if problem(value)] == []
    assert [value for value in wrong if not problem(value)] == []
    for value in wrong:
        key, text = problem(value)
        assert key == f"model.{name}"
        assert text.startswith(f"={value!r}: ")
        assert "\n" not in text


def test_what_hydra_makes_is_not_checked_before_it_is_made(tmp_path):
    (tmp_path / "mine.py").write_text(TYPED)
    made = {"_target_": "mine.Net", "maybe": {"_target_": "numpy.int64"}, "_convert_": "all"}
    assert check_arguments("model", made, tmp_path) is None


def test_a_class_is_followed_to_the_file_that_defines_it(tmp_path):
    files = {
        "zoo/__init__.py": "from .nets import Net\nfrom .nets import Small as Tiny\n",
        "zoo/nets.py": "from base import Base\nclass Net(Base): ...\nclass Small(Net): ...\n",
        "base.py": "class Base:\n    def __init__(self, a: int): ...\n",
        "front.py": "from zoo import Net\nfrom torch.nn import Linear\nfrom zoo.nets import Gone\n",
        "starred.py": "from zoo.nets import *\n",
        "made.py": "Net = make()\nif True:\n    class Inner: ...\n",
        "circle.py": "from circle import Net\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def check(target, **arguments):
        problem = check_arguments("model", {"_target_": target, **arguments}, tmp_path)
        return problem and "".join(problem)

    for target in ("zoo.Net", "zoo.Tiny", "zoo.nets.Net", "front.Net"):
        assert check(target, a=1) is None
        assert check(target, a="x") == "model.a='x': must be a valid integer"
    for target in ("front.Linear", "starred.Net", "made.Net", "made.Inner", "circle.Net"):
        assert check(target, anything=1) is None
    assert check("zoo.Nett") == "model._target_=zoo.Nett: __init__.py has no such class" + (
        "; did you mean 'Net'?"
    )
    assert "has no such class" in check("front.Gone")


def test_what_a_model_lacks_the_data_may_give(tmp_path):
    (tmp_path / "mine.py").write_text("class Net:\n    def __init__(self, a: int): ...\n")
    target = {"_target_": "mine.Net"}
    assert check_arguments("model", target, tmp_path) is None
    assert check_arguments("data", target, tmp_path) == ("data.a", ": is missing")
    assert check_arguments("data", target, tmp_path, partial=True) is None
