"""Pictures: what they show, and that text fits."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mlmodeldev.alignment.pictures import common_front, draw_drift, draw_heatmap, save_figure


def names(count, front="image.layers"):
    return [f"{front}.{i}.output" for i in range(count)]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def draw(count, **options):
    matrix = np.linspace(0, 1, count * count).reshape(count, count)
    return draw_heatmap(matrix, names(count), names(count, "text"), **options)


@pytest.mark.parametrize("count", [1, 2, 6, 60])
def test_labels_do_not_overlap_and_stay_on_the_page(count):
    figure = draw(count, title="towers", caption="unbiased, 512 samples")
    figure.canvas.draw()
    axes, page = figure.axes[0], figure.bbox
    for labels, low, high in (
        (axes.get_yticklabels(), "y0", "y1"),
        (axes.get_xticklabels(), "x0", "x1"),
    ):
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) == count and all(label.get_fontsize() >= 6 for label in labels)
        assert all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 for b in boxes)
        for a, b in pairwise(boxes):
            assert getattr(a, high) <= getattr(b, low) + 1


def test_values_are_written_where_they_fit():
    assert texts(draw(3))[:3] == ["0.00", "0.12", "0.25"]
    assert texts(draw(60)) == []
    figure = draw(16)
    figure.canvas.draw()
    cell = figure.axes[0].get_window_extent().width / 16
    assert all(t.get_window_extent().width < cell for t in figure.axes[0].texts)


@pytest.mark.parametrize("lowest, limits", [(0.2, (0, 1)), (0.0, (0, 1)), (-0.1, (-1, 1))])
def test_the_scale_is_fixed(lowest, limits):
    figure = draw_heatmap([[lowest, 0.4], [0.3, 0.5]], names(2), names(2))
    image = figure.axes[0].images[0]
    assert image.get_clim() == limits


@pytest.mark.parametrize(
    "lowest, floor, below",
    [(-0.03, 0.001, False), (-0.2, 0.15, False), (-0.2, 0.05, True), (-0.04, None, False)],
)
def test_colours_below_0_are_for_values_clearly_below(lowest, floor, below):
    floors = None if floor is None else np.full((2, 2), floor)
    figure = draw_heatmap([[lowest, 0.4], [0.3, 0.5]], names(2), names(2), floor=floors)
    assert figure.axes[0].images[0].get_clim() == ((-1, 1) if below else (0, 1))


def hatching(figure):
    """Centres of the hatched cells (row, column), and the text of the legend."""
    collections = [c for c in figure.axes[0].collections if c.get_gid() == "not significant"]
    assert all(c.get_hatch() for c in collections)
    centres = [path.vertices[:4].mean(0) for c in collections for path in c.get_paths()]
    texts = [text.get_text() for one in figure.legends for text in one.get_texts()]
    return {(round(y), round(x)) for x, y in centres}, texts


def test_the_lowest_of_many_values_of_chance_leaves_the_colours_to_those_above_0():
    values = 0.03 * np.random.default_rng(0).standard_normal((60, 60))
    assert values.min() < -2 * 0.03
    image = draw_heatmap(values, names(60), names(60), floor=np.full((60, 60), 0.03)).axes[0].images
    assert image[0].get_clim() == (0, 1)


@pytest.mark.parametrize("count", [6, 60])
def test_cells_that_chance_would_give_are_hatched_and_the_legend_says_by_which_rule(count):
    matrix = np.linspace(0, 1, count * count).reshape(count, count)
    cells = np.zeros((count, count), dtype=bool)
    cells[0, 1] = cells[count - 1, 2] = True  # one on dark and one on light
    figure = draw_heatmap(
        matrix, names(count), names(count), caption="a", hatched=cells, rule="2 x the noise floor"
    )
    where, legend = hatching(figure)
    assert where == {(0, 1), (count - 1, 2)}
    assert legend == ["not above 2 x the noise floor: 2 cells"]
    figure.canvas.draw()
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0
    assert hatching(draw(count)) == (set(), [])


def test_drift_is_hatched_and_has_a_band_for_each_interval():
    values = np.linspace(0, 1, 40).reshape(4, 10)
    errors = {"lower": values - 0.1, "upper": values + 0.1, "floor": np.full((4, 10), 0.1)}
    errors["significant"] = (values > 0.06).astype(float)
    errors["significant"][1, 5] = np.nan  # an epoch from before there were errors
    figure = draw_drift(values, range(1, 5), names(10), errors=errors, rule="a rule")
    where, legend = hatching(figure)
    assert where == {(0, 0), (1, 0), (2, 0)}
    assert legend == ["not above a rule: 3 cells"]
    lines = figure.axes[1]
    assert len(lines.lines) == len(lines.collections) == 8
    shown = [text.get_text() for text in lines.get_legend().get_texts()]
    assert shown[0] == "0.output" and shown[-1] == "9.output"
    band = lines.collections[-1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(values[0, 9] - 0.1)
    assert band[:, 1].max() == pytest.approx(values[3, 9] + 0.1)
    errors |= {"lower": np.full((4, 10), np.nan), "upper": np.full((4, 10), np.nan)}
    assert len(draw_drift(values, range(4), names(10), errors=errors).axes) == 2, "and a colour bar"


def test_undefined_entries_are_counted_in_the_caption():
    figure = draw_heatmap([[np.nan, 0.4], [np.nan, 0.5]], names(2), names(2), caption="biased")
    assert figure.get_supxlabel() == "biased; grey: 2 undefined"
    assert texts(figure)[0] == "–"
    draw_heatmap(np.full((2, 2), np.nan), names(2), names(2))


def test_drift_has_layers_up_and_epochs_across():
    figure = draw_drift(np.random.rand(50, 6), range(100, 150), names(6))
    axes = figure.axes[0]
    assert axes.images[0].get_array().shape == (6, 50)
    assert axes.get_xticklabels()[0].get_text() == "100" and len(axes.get_xticklabels()) <= 20


def test_png_and_svg_are_written_whole(tmp_path):
    for suffix in (".png", ".svg"):
        save_figure(draw(6), tmp_path / "deep" / f"map{suffix}")
    assert Image.open(tmp_path / "deep" / "map.png").width > 600
    first = (tmp_path / "deep" / "map.svg").read_bytes()
    assert ElementTree.fromstring(first).tag.endswith("svg")
    save_figure(draw(6), tmp_path / "deep" / "map.svg")
    assert (tmp_path / "deep" / "map.svg").read_bytes() == first
    assert len(list((tmp_path / "deep").iterdir())) == 2


@pytest.mark.parametrize(
    "given, front, rest",
    [
        (["a.b.0", "a.b.1"], "a.b", ["0", "1"]),
        (["a.0", "a.0.x"], "a", ["0", "0.x"]),
        (["a.0"], "", ["a.0"]),
        (["a", "b"], "", ["a", "b"]),
    ],
)
def test_the_common_front_of_names(given, front, rest):
    assert common_front(given) == (front, rest)
