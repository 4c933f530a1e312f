"""One corpus of sweep files through every engine: what programs are called with, and which trials.

W&B's published engine says which points there are, the real `wandb agent` what a program sees of
them; both are recorded (`make_corpus_points.py`, `corpus_place.py`). Five shapes run live.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.settings.identity import flatten, identity, resolve_ties
from tests.sweep.corpus_place import VARIABLES, Row, make_place, points, recorded, run_agent, shapes
from tests.sweep.differential import Shape, by_identity, cells, comparable, table, written_table
from tests.wandb.server import Server

NAMES = list(shapes())
GRIDS = [name for name, text in shapes().items() if "method: grid" in text]
"""Of the others each engine draws points of its own."""
LIVE = [
    *("args_no_boolean_flags", "nested, as JSON", "trainer.py, args_append_hydra"),
    *("trainer.py, a wrapper", "trainer.py, a script that calls it"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The corpus's programs in a project of their own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = make_place(tmp_path_factory.mktemp("corpus"))
        patch.setenv("MLMODELDEV_PROJECT", str(folder))
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture
def shape(request: pytest.FixtureRequest, place: Path, tmp_path: Path) -> Shape:
    return Shape(request.param, place, tmp_path)


every_shape = pytest.mark.parametrize("shape", NAMES, indirect=True)


def test_there_are_shapes_enough_and_an_answer_to_each():
    assert len(NAMES) >= 40
    assert list(points()) == list(recorded()) == NAMES


@pytest.mark.parametrize("shape", GRIDS, indirect=True)
def test_the_trials_are_the_points_of_wandbs_engine(shape: Shape):
    """As many, and the same; where the file has rules, those that fit them."""
    fixed = shape.sweep.invocation.settings
    theirs = {identity(resolve_ties({**flatten(p), **fixed})) for p in shape.points}
    ours = [trial.id for trial in shape.sweep.trials()]
    assert len(set(ours)) == len(ours)
    if shape.has_rules:
        assert len(ours) < len(theirs)
    elif "run_cap" in shape.config:
        assert len(ours) == len(theirs)  # another order: not the same ones
    else:
        assert set(ours) == theirs


@every_shape
def test_our_agent_calls_what_wandbs_agent_calls(shape: Shape):
    """To the letter and in the same order, but for rules, of which the real one knows nothing."""
    ours, theirs = shape.agent(), recorded()[shape.name]
    if shape.has_rules:
        enumerated = {trial.id for trial in shape.sweep.trials()}
        assert set(by_identity(ours)) == enumerated
        assert len(ours) == len(enumerated) < len(theirs)
    elif shape.name == "ties, another program":
        assert by_identity(ours).keys() == by_identity(theirs).keys()
        assert [row["argv"][0] for row in theirs] == ["--inner=${width}"] * 2
        assert [row["argv"][0] for row in ours] == ["--inner=8", "--inner=16"]
    else:
        assert ours == theirs


@every_shape
def test_enumeration_calls_the_same(shape: Shape):
    listed = shape.enumeration()
    if listed is None:
        assert shape.name == "hyperband, another program"
        return
    agent = by_identity(shape.agent())
    if "run_cap" in shape.config and shape.sweep.method == "grid":
        assert len(listed) == len(agent)
    else:
        assert by_identity(listed) == agent
    assert len(by_identity(listed)) == len(listed)


@every_shape
def test_a_search_and_the_bridge_call_the_same_of_a_trainer(shape: Shape):
    searched, bridged = shape.search(), shape.bridge()
    if shape.is_foreign:
        assert searched is bridged is None
        return
    assert searched is not None
    assert bridged is not None
    agent = by_identity(shape.agent())
    assert by_identity(bridged) == agent
    if shape.sweep.method == "grid":
        assert by_identity(searched) == agent
    else:
        assert len(searched) == len(agent) == shape.config["run_cap"]
        fixed = shape.sweep.invocation.settings
        assert all(fixed.items() <= row["settings"].items() for row in searched)


def test_the_table_of_the_page_is_of_today(place: Path, tmp_path: Path):
    """`python -m tests.sweep.differential write` makes it."""
    seen = recorded()
    rows = [
        cells(Shape(name, place, tmp_path / str(i)), seen[name]) for i, name in enumerate(NAMES)
    ]
    assert table(rows) == written_table()


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[list[Row]]]]:
    """The real agents of all shapes at once: most of their time they wait."""
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        begun = {}
        for name in LIVE:
            server = Server()
            stack.callback(server.close)
            folder = make_place(tmp_path_factory.mktemp("live"))
            begun[name] = pool.submit(run_agent, server, folder, name)
        yield begun
        wait(begun.values())


@pytest.mark.slow
@pytest.mark.project
@pytest.mark.parametrize("name", LIVE)
def test_the_real_agent_still_calls_what_was_recorded(
    name: str, agents: dict[str, Future[list[Row]]]
) -> None:
    assert agents[name].result() == recorded()[name]
    assert comparable(recorded()[name][0])
