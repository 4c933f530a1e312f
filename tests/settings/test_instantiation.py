"""Objects inside of arguments, by Hydra's rules; what holds none stays as it is."""

from __future__ import annotations

import collections
import functools

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.instantiation import has_target, instantiated


class Part:
    def __init__(self, *parts: object, size: int = 1, options: object = None) -> None:
        self.parts, self.size, self.options = parts, int(size), options


PART = f"{__name__}.Part"


def test_what_holds_no_target_is_the_same_object():
    arguments = {"_target_": "mine.Net", "sizes": [1, 2], "options": {"a": [None]}, "text": "${x}"}
    assert not has_target({"a": [1, {"b": None}]})
    made = instantiated("model", arguments)
    assert all(made[name] is value for name, value in arguments.items())


def test_nested_objects_lists_of_them_and_partial_ones():
    arguments = {
        "one": {"_target_": PART, "size": 2, "options": {"inner": {"_target_": PART, "size": 3}}},
        "many": [{"_target_": PART, "size": 4}, {"_target_": PART, "_args_": [5, 6]}],
        "later": {"_target_": PART, "_partial_": True, "size": 7},
    }
    made = instantiated("model", arguments)
    assert (made["one"].size, made["one"].options["inner"].size) == (2, 3)
    assert type(made["one"].options) is dict
    assert (made["many"][0].size, made["many"][1].parts) == (4, (5, 6))
    assert isinstance(made["later"], functools.partial)
    assert made["later"]().size == 7
    assert arguments["one"]["options"] == {"inner": {"_target_": PART, "size": 3}}


def test_convert_and_recursive_are_hydras():
    made = instantiated(
        "model",
        {
            "raw": {"_target_": PART, "_convert_": "none", "options": {"a": 1}},
            "flat": {"_target_": PART, "_recursive_": False, "options": {"_target_": PART}},
        },
    )
    assert type(made["raw"].options).__name__ == "DictConfig"
    assert made["flat"].options["_target_"] == PART
    whole = {"_recursive_": False, "part": {"_target_": PART}}
    assert instantiated("model", whole)["part"] == {"_target_": PART}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"_target_": "no.such.Thing"}, r"^model\.part: Error locating target 'no\.such\.Thing'"),
        ({"_target_": PART, "sise": 1}, r"^model\.part: .*unexpected keyword argument 'sise'"),
        ({"a": {"_target_": PART, "sise": 1}}, r"^model\.part\.a: .*'sise'"),
        ([{"_target_": PART}, {"_target_": f"{PART}s"}], r"^model\.part.*1.*Parts"),
    ],
)
def test_what_can_not_be_made_is_one_line(value, message):
    with pytest.raises(UsageError, match=message) as error:
        instantiated("model", {"part": value})
    assert "\n" not in str(error.value)


def test_an_error_inside_of_the_class_is_raised_as_it_is():
    with pytest.raises(ValueError, match="invalid literal"):
        instantiated("model", {"part": {"_target_": PART, "size": "many"}})
    counted = instantiated(
        "model", {"part": {"_target_": "collections.Counter", "_args_": ["aab"]}}
    )
    assert counted["part"] == collections.Counter(a=2, b=1)
