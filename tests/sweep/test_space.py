"""The trials of a sweep: grids against a brute-force product, draws against their definition."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import identity
from mlmodeldev.sweep import load

WANDB = json.loads((Path(__file__).parent / "wandb_answers.json").read_text())


def overrides(trials):
    return [trial.overrides for trial in trials]


def frozen(points):
    return {json.dumps(point, sort_keys=True) for point in points}


@pytest.mark.parametrize("answer", WANDB["grids"], ids=lambda a: json.dumps(a["parameters"]))
def test_wandbs_engine_lists_the_same_grid(answer, sweep):
    loaded = sweep(yaml.safe_dump({"method": "grid", "parameters": answer["parameters"]}))
    ours = overrides(loaded.trials())
    assert {identity(p) for p in ours} == {identity(p) for p in answer["points"]}
    assert len(ours) == len(answer["points"]) == loaded.count()


AXIS = st.lists(st.integers(-9, 9) | st.sampled_from(["x", None, 0.5]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(axes=st.lists(AXIS, min_size=1, max_size=4), cap=st.none() | st.integers(1, 30))
def test_a_grid_is_the_product_of_its_axes_once_each(axes, cap, tmp_path_factory):
    axes = [list(dict.fromkeys(axis)) for axis in axes]
    config = {"method": "grid", "parameters": {f"p{i}": {"values": a} for i, a in enumerate(axes)}}
    if cap:
        config["run_cap"] = cap
    path = tmp_path_factory.mktemp("grid") / "sweep.yaml"
    path.write_text(yaml.safe_dump(config))
    loaded, all_points = load(path), {tuple(map(repr, p)) for p in itertools.product(*axes)}
    points = [tuple(repr(p[f"p{i}"]) for i in range(len(axes))) for p in overrides(loaded.trials())]
    assert len(points) == len(set(points)) == loaded.count() == min(len(all_points), cap or 10**9)
    assert set(points) <= all_points


RULES = """\
    method: grid
    parameters:
      a: {values: [1, 2, 3, 4]}
      b: {min: 0, max: 3}
      kind: {values: [x, y, z]}
      depth: {values: [1, 2]}
      wide: {value: "${a}"}
      free: {values: [p, q]}
      seed: {values: [0, 1, 2]}
    controller:
      type: cloud
      constraints: ["wide * b <= 6", "kind != 'z' or b in [0, 1]", "depth < 2 or a > 1"]
      conditions: {depth: kind == "x", free: depth == 2}
      replicates: seed
    """


def brute_force():
    """Every point of RULES, worked out by hand-written loops."""
    points = set()
    for a, b, kind, depth, free, seed in itertools.product(
        (1, 2, 3, 4), range(4), "xyz", (1, 2), "pq", (0, 1, 2)
    ):
        point = {"a": a, "b": b, "kind": kind, "wide": a, "seed": seed}
        if kind == "x":
            point["depth"] = depth
            if depth == 2:
                point["free"] = free
        fits = a * b <= 6 and (kind != "z" or b < 2)
        if fits and not (kind == "x" and depth == 2 and a <= 1):
            points.add(json.dumps(point, sort_keys=True))
    return points


def test_rules_give_what_loops_written_by_hand_give(sweep):
    loaded = sweep(RULES)
    ours = overrides(loaded.trials())
    assert frozen(ours) == brute_force()
    assert len(ours) == len(brute_force()) == loaded.count()


def test_random_draws_obey_the_same_rules_and_end_with_every_point(sweep):
    loaded = sweep(RULES.replace("method: grid", "method: random"))
    ours = overrides(loaded.trials(count=10_000))
    assert frozen(ours) == brute_force()
    assert len(ours) == len(brute_force())


def test_replicates_repeat_each_point(sweep):
    grid = list(sweep(RULES).trials())
    passes = [trial.overrides["seed"] for trial in grid]
    assert passes == sorted(passes)  # a grid is walked once for each seed
    drawn = list(sweep(RULES.replace("method: grid", "method: random")).trials(count=12))
    assert [trial.overrides["seed"] for trial in drawn] == [0, 1, 2] * 4
    assert len({trial.group for trial in drawn}) == 4
    assert len({trial.id for trial in drawn}) == 12


def test_what_is_tied_to_a_replicate_is_part_of_the_repeat(sweep):
    text = """\
        method: random
        run_cap: 6
        parameters:
          lr: {min: 0.0, max: 1.0}
          seed: {values: [3, 4]}
          data.seed: {value: "${seed}"}
        controller: {type: cloud, replicates: seed}
        """
    trials = list(sweep(text).trials())
    assert [t.overrides["data.seed"] for t in trials] == [3, 4] * 3
    assert len({t.group for t in trials}) == 3


def test_ties_take_the_type_and_what_is_tied_to_a_setting_stays(sweep):
    text = """\
        method: grid
        parameters:
          a: {values: [1.5, null, [1, 2]]}
          b: {value: "${a}"}
          c: {value: "n-${b}"}
          d: {value: "${optimizer.lr}"}
          e: {value: "${oc.env:HOME}"}
        """
    for point in overrides(sweep(text).trials()):
        assert point["b"] == point["a"]
        assert point["c"] == f"n-{point['a']}"
        assert point["d"] == "${optimizer.lr}"
        assert point["e"] == "${oc.env:HOME}"


def test_ties_among_values_do_not_give_a_point_twice(sweep):
    text = 'method: grid\nparameters: {a: {values: [1, 2]}, b: {values: [1, "${a}"]}}\n'
    loaded = sweep(text)
    points = frozen(overrides(loaded.trials()))
    assert points == frozen([{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 2, "b": 2}])
    assert loaded.count() == 3


def test_coarse_first_covers_the_range_early(sweep):
    text = "method: grid\nparameters: {a: {min: 0, max: 64}, b: {values: [x, y]}}\n"
    order = [point["a"] for point in overrides(sweep(text).trials())]
    assert order[:8] == [0, 0, 64, 64, 32, 32, 16, 16]
    seen = sorted(set(order[: 2 * 9]))
    assert max(b - a for a, b in itertools.pairwise(seen)) == 8
    # Words are in no order to refine: all of them come at once.
    words = "method: grid\nparameters: {a: {values: [x, y, z]}, b: {values: [5, 1, 3]}}\n"
    pairs = [(p["a"], p["b"]) for p in overrides(sweep(words).trials())]
    assert pairs == list(itertools.product("xyz", [5, 1, 3]))


def test_the_first_points_of_a_grid_are_a_grid_of_every_axis(sweep):
    axes = {name: {"values": [1, 2, 3, 4, 5]} for name in ("a", "b", "c")}
    loaded = sweep(yaml.safe_dump({"method": "grid", "parameters": axes}))
    first = [tuple(p.values()) for p in overrides(loaded.trials(count=27))]
    assert set(first[:8]) == set(itertools.product((1, 5), repeat=3))
    assert set(first) == set(itertools.product((1, 3, 5), repeat=3))


def test_a_million_points_stream(sweep):
    axes = {f"group.p{i}": {"values": list(range(10))} for i in range(6)}
    loaded = sweep(yaml.safe_dump({"method": "grid", "parameters": axes}))
    assert loaded.count() == 10**6
    tracemalloc.start()
    assert sum(1 for _ in loaded.trials(count=50_000)) == 50_000
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_an_axis_of_any_length_is_not_listed(sweep):
    text = "method: grid\nparameters: {a: {min: 1, max: 1000000000000}, b: {values: [x, y]}}\n"
    loaded = sweep(text)
    assert loaded.count() == 2 * 10**12
    points = overrides(loaded.trials(count=4))
    assert [p["b"] for p in points] == ["x", "y", "x", "y"]


def test_counting_with_rules_walks_only_what_they_name(sweep):
    axes = {f"p{i}": {"values": list(range(100))} for i in range(6)}
    rules = {"type": "cloud", "constraints": ["p0 < p1", "p4 == 7"]}
    config = {"method": "grid", "parameters": axes, "controller": rules}
    assert sweep(yaml.safe_dump(config)).count() == (100 * 99 // 2) * 100**3


RANDOM = """\
    method: random
    parameters:
      lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
      width: {min: 16, max: 512}
      name: {values: [sgd, adamw], probabilities: [0.25, 0.75]}
    """


def test_draws_depend_on_the_seed_alone(sweep):
    first = overrides(sweep(RANDOM).trials(count=20, seed=3))
    assert first == overrides(sweep(RANDOM).trials(count=20, seed=3))
    assert first[:5] == overrides(sweep(RANDOM).trials(count=5, seed=3))
    assert not frozen(first) & frozen(overrides(sweep(RANDOM).trials(count=20, seed=4)))


def test_a_new_parameter_leaves_the_draws_of_the_others(sweep):
    longer = RANDOM.replace("  width:", "  dropout: {min: 0.0, max: 0.5}\n      width:")
    before = overrides(sweep(RANDOM).trials(count=20))
    after = overrides(sweep(longer).trials(count=20))
    assert before == [{k: v for k, v in p.items() if k != "dropout"} for p in after]


def test_draws_follow_their_distribution(sweep):
    points = overrides(sweep(RANDOM).trials(count=800))
    reference = stats.loguniform(1e-4, 0.1).cdf
    assert stats.kstest([p["lr"] for p in points], reference).pvalue > 0.01
    adamw = sum(p["name"] == "adamw" for p in points)
    assert stats.binomtest(adamw, 800, 0.75).pvalue > 0.01


def test_random_needs_an_end_and_keeps_its_cap(sweep):
    with pytest.raises(UsageError, match="set 'run_cap', or give a count"):
        sweep(RANDOM).trials()
    capped = sweep("    run_cap: 7\n" + RANDOM)
    assert len(list(capped.trials())) == len(list(capped.trials(count=99))) == capped.count() == 7
    assert len(list(capped.trials(count=2))) == 2


def test_draws_end_when_the_space_is_exhausted(sweep):
    text = "method: random\nparameters: {a: {values: [1, 2, 3]}, b: {min: 0, max: 99}}\n"
    points = overrides(sweep(text).trials(count=5000))
    assert len(points) == len(frozen(points)) == 300


def test_bayes_names_the_command_that_handles_it(sweep):
    text = "method: bayes\nmetric: {name: m}\nparameters: {a: {min: 0.0, max: 1.0}}\n"
    with pytest.raises(UsageError, match=r"method bayes is searched.*slurm/SlurmTrain\.py"):
        sweep(text).trials()


def test_a_search_gets_the_point_at_given_quantiles(sweep):
    space = sweep(RANDOM).space
    assert [p.name for p in space.searched] == ["lr", "width", "name"]
    point = space.point({"lr": 1 / 3, "width": 0.5, "name": 0.1})
    assert point == {"lr": pytest.approx(0.001), "width": 264, "name": "sgd"}


@pytest.mark.parametrize("method", ["grid", "random\nrun_cap: 9"])
def test_rules_that_no_point_fits_are_refused(method, sweep):
    text = (
        f"method: {method}\nparameters: {{a: {{values: [1, 2]}}}}\n"
        "controller: {type: cloud, constraints: [a > 2]}\n"
    )
    with pytest.raises(UsageError, match=r"fits? the constraints"):
        next(sweep(text).trials())


def test_rules_that_cannot_be_worked_out_are_refused(sweep):
    text = (
        "method: grid\nparameters: {a: {values: [0, x]}, b: {values: [1]}}\n"
        "controller: {type: cloud, constraints: [b / a > 2]}\n"
    )
    with pytest.raises(UsageError, match="'b / a > 2' cannot be worked out: division by zero"):
        list(sweep(text).trials())


def test_the_broken_constraint_is_named(sweep):
    rules = sweep(RULES).space.rules
    point = {"a": 4, "b": 3, "kind": "y", "wide": 4, "seed": 0}
    assert rules.broken(point).text == "wide * b <= 6"
    assert rules.broken({**point, "b": 1}) is None


@pytest.mark.parametrize("count", [-1, True])
def test_a_wrong_count_is_refused(count, sweep):
    with pytest.raises(UsageError, match="count"):
        sweep(RANDOM).trials(count=count)


def test_names_come_from_the_swept_values(sweep):
    text = """\
        method: grid
        parameters:
          optimizer.lr: {values: [0.00030000000000000003]}
          encoder.width: {values: [64]}
          decoder.width: {values: [32]}
          model.bias: {values: [true]}
          model.act: {values: [null]}
          model.layers: {values: [[1, 2]]}
          training.max_epochs: {value: 5}
        """
    (trial,) = sweep(text).trials()
    expected = "lr=0.0003,encoder.width=64,decoder.width=32,bias=true,act=null,layers=[1,2]"
    assert trial.name == expected
    assert trial.id == identity(trial.overrides)


def test_a_trial_is_what_it_sets(sweep):
    first, again = (list(sweep(RULES).trials()) for _ in range(2))
    assert first == again
    assert len({*first, *again}) == len(first)
    assert pickle.loads(pickle.dumps(first[0])).name == first[0].name


def test_enumerating_imports_nothing_heavy(write):
    path = write(RULES)
    code = (
        "import sys; from mlmodeldev.sweep import load; "
        f"next(load({str(path)!r}).trials()).id; "
        "print(sorted({'numpy','scipy','optuna','torch','hydra','pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
