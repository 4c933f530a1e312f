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
