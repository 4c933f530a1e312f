"""The page in a real browser without a network: what is seen, clicked, slid and typed."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.sweep import load
from tests.conftest import ROOT
from tests.report.made_up import REASON, MadeUpSweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PACKAGES = ROOT / ".venv-extras"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (CHROMIUM and (PACKAGES / "playwright").is_dir()):
        missing = "no Chromium (tools/debian.sh browser) or no Playwright (make .venv-extras)"
        (pytest.fail if os.environ.get("SLURM_TESTS") == "require" else pytest.skip)(missing)
    sys.path.append(str(PACKAGES))
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield started
            started.close()
    finally:
        sys.path.remove(str(PACKAGES))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> MadeUpSweep:
    made = MadeUpSweep(
        tmp_path_factory.mktemp("page"), [0.001, 0.01, 0.1], [16, 32, 48, 64], [0, 1]
    )
    made.write(failed={made.trials[0].id, made.trials[1].id})
    made.report()
    return made


class Opened:
    """A page, and what it did that it should not."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.tab = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", self._note)
        begun = time.monotonic()
        self.tab.goto(file.as_uri())
        self.tab.wait_for_selector("html[data-ready=yes]")
        self.seconds = time.monotonic() - begun
        self.address = file.as_uri()

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def text(self, selector: str) -> str:
        return str(self.tab.inner_text(selector))

    def close(self) -> None:
        self.context.close()
        assert self.errors == []
        assert self.requests == [self.address]


@pytest.fixture
def opened(browser: Any, sweep: MadeUpSweep) -> Iterator[Opened]:
    page = Opened(browser, sweep.runs / "report.html", viewport={"width": 1400, "height": 900})
    yield page
    page.close()


def test_the_head_and_the_failures(opened: Opened) -> None:
    assert opened.tab.title() == "made-up: val/accuracy"  # not what a log wanted it to be
    assert "22 of 24" in opened.text("#summary")
    assert f"2 × {REASON}" in opened.text("#failure-list")
    assert "taken over" in opened.text("#failure-list pre")


def test_used_and_requested_resources(opened: Opened) -> None:
    table = opened.tab.locator("#resource-table table")
    assert table.is_visible()
    heads = table.locator("thead th").all_inner_texts()
    assert [name.lower() for name in heads[1:4]] == ["median", "maximum", "asked for"]
    cells = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
    assert ["cores", "1.50", "1.50"] in [row[:3] for row in cells]
    assert "From 22 finished trials: ask next for: cluster." in opened.text("#resource-table")


def test_filter_fold_and_sort(opened: Opened) -> None:
    tab = opened.tab
    assert tab.locator("#table tbody tr").count() == 12  # points
    tab.fill("#filter", "lr>0.001 lr<0.05 done")
    assert opened.text("#count").startswith("8 of 24")
    tab.click("#table tbody .open >> nth=0")
    assert tab.locator("#table tbody tr.inner").count() == 2
    tab.fill("#filter", "")
    tab.click("#fold")
    assert tab.locator("#table tbody tr").count() == 24
    tab.click("#table thead button >> text=lr")
    values = "rows => rows.map(row => Number(row.cells[3].innerText))"
    column = tab.eval_on_selector_all("#table tbody tr", values)
    assert column == sorted(column)
    tab.select_option("#state", "failed")
    assert opened.text("#count").startswith("2 of 24")


def test_a_brush_on_an_axis_chooses_trials(opened: Opened) -> None:
    tab = opened.tab
    tab.locator("#parallel").scroll_into_view_if_needed()
    tab.wait_for_selector("#parallel canvas")
    box = tab.locator("#parallel").bounding_box()
    x, top = box["x"] + box["width"] - 60, box["y"] + 45  # the value's axis, its upper end
    tab.mouse.move(x, top)
    tab.mouse.down()
    tab.mouse.move(x, top + 60, steps=5)
    tab.mouse.up()
    tab.wait_for_selector("#unbrush:visible")
    count = int(opened.text("#count").split()[0])
    assert 0 < count < 22
    tab.click("#unbrush")
    assert opened.text("#count").startswith("24 of 24")


def test_ticked_trials_are_drawn_and_compared(opened: Opened, sweep: MadeUpSweep) -> None:
    tab = opened.tab
    tab.click("#fold")
    tab.fill("#filter", "done lr=0.01")
    first = tab.locator("#table tbody tr >> nth=0").get_attribute("data-trial")
    second = tab.locator("#table tbody tr >> nth=3").get_attribute("data-trial")
    for trial in (first, second):
        tab.check(f"tr[data-trial={trial}] input")
    assert tab.input_value("#which") == "chosen"
    assert opened.text("#curve-note").startswith("2 curves")
    assert [tab.input_value("#first"), tab.input_value("#second")] == [first, second]
    width = {trial.id: str(trial.overrides["model.hidden_size"]) for trial in sweep.trials}
    row = tab.locator("#comparison tr", has_text="model.hidden_size").inner_text().split("\t")
    assert row[1:3] == [width[first], width[second]]
    tab.click("#swap")
    assert [tab.input_value("#first"), tab.input_value("#second")] == [second, first]


def test_the_epoch_slides_by_keys_and_the_cell_tells(opened: Opened) -> None:
    tab = opened.tab
    tab.locator("#cka-chart").scroll_into_view_if_needed()
    tab.wait_for_selector("#cka-chart canvas")
    tab.focus("#cka-epoch")
    for epoch in (6, 5, 4):
        assert opened.text("#cka-epoch-value") == str(epoch)
        box = tab.locator("#cka-chart").bounding_box()
        tab.mouse.move(box["x"] + 150, box["y"] + 40 + epoch)  # in the first cell
        tab.wait_for_function(
            "text => document.querySelector('#cka-chart').innerText.includes(text)",
            arg=f"image.0 ~ text.0\n{epoch / 10:g}",
        )
        tab.keyboard.press("ArrowLeft")


def test_all_can_be_reached_by_keys(opened: Opened) -> None:
    tab, reached = opened.tab, set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"skip", "theme", "filter", "state", "fold", "open", "metric", "smooth"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(browser, sweep, scheme: str) -> None:
    page = Opened(
        browser,
        sweep.runs / "report.html",
        viewport={"width": 390, "height": 844},
        color_scheme=scheme,
    )
    tab = page.tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.click("#theme")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != back
    page.close()


def test_two_thousand_trials_stay_usable(browser: Any, tmp_path: Path) -> None:
    made = MadeUpSweep(
        tmp_path, [10 ** -(i / 10) for i in range(50)], list(range(8, 168, 8)), [0, 1]
    )
    made.write(matrices=100)
    assert len(made.trials) == 2000
    file = made.report()
    assert file.stat().st_size < 5_000_000
    page = Opened(browser, file, viewport={"width": 1400, "height": 900})
    assert page.seconds < 10  # under a second where nothing else runs
    assert page.tab.locator("#table tbody tr").count() == 200
    page.tab.fill("#filter", "hidden_size=16")
    assert page.text("#count").startswith("100 of 2000")
    page.close()


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["image.layers.0", "pooler"], ["image.layers.0", "pooler"]),
        (
            [f"text.encoder.layer.{i}" for i in (0, 11)],
            ["…t.encoder.layer.0", "….encoder.layer.11"],
        ),
        (
            ["vision.layer.3.output.dense", "vision.layer.4.output.dense"],
            ["vision.layer.3…", "vision.layer.4…"],
        ),
        (["a.b.c.dense"], ["a.b.c.dense"]),
    ],
)
def test_short_names_of_layers_differ(opened: Opened, names: list[str], shown: list[str]) -> None:
    short = opened.tab.evaluate("names => report.cka.shortNames(names)", names)
    assert short == shown


def test_parameters_of_any_name_and_value(browser: Any, tmp_path: Path) -> None:
    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    program = tmp_path / "other.py"
    program.write_text("")
    values = [None, [1, 2], {"a": 1}, True]
    sweep = {
        "name": "made-up",
        "program": str(program),
        "method": "grid",
        "parameters": {"value": {"values": values}, "state": {"values": ["b", "a"]}},
    }
    made.file.write_text(json.dumps(sweep))
    made.trials = list(load(made.file).trials())
    for trial in made.trials:
        (made.runs / trial.id).mkdir(parents=True)
        (made.runs / trial.id / "trial.json").write_text(json.dumps({"state": "done"}))
    page = Opened(browser, made.report(logger=None), viewport={"width": 1400, "height": 900})
    cell = "(rows, place) => rows.map(row => row.cells[place].innerText)"
    heads = page.tab.locator("thead th").all_inner_texts()
    heads = [text.strip(" ▾▴") for text in heads]
    value, state = heads.index("value"), len(heads) - 1 - heads[::-1].index("state")
    shown = page.tab.eval_on_selector_all("#table tbody tr", cell, value)
    assert set(shown) == {"null", "[1,2]", '{"a":1}', "true"}
    page.tab.locator("thead button").nth(state).click()
    assert page.tab.eval_on_selector_all("#table tbody tr", cell, state) == ["a"] * 4 + ["b"] * 4
    assert "here are 0 and 0" in page.text("#importance-text")
    page.close()
