"""The site: all pages, no warning, no dead link, built and read without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import docs_site

BUILDER = ROOT / ".venv-docs" / "bin" / "zensical"


class _Requests(HTMLParser):
    """What a browser fetches of a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(given.get("src", ""))
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href", ""))


def build(place: Path) -> tuple[Path, str]:
    """Build the site, without a network where it can be taken away; return it, and the output."""
    if not BUILDER.exists():
        missing = "no builder of the site; make .venv-docs"
        (pytest.fail if os.environ.get("SLURM_TESTS") == "require" else pytest.skip)(missing)
    docs_site.gather(place)
    settings = place / "mkdocs.yml"
    settings.write_text(settings.read_text().replace("../..", str(ROOT)))
    alone = ["unshare", "--map-root-user", "--net"]
    can = (
        shutil.which("unshare")
        and not subprocess.run([*alone, "true"], capture_output=True, check=False).returncode
    )
    done = subprocess.run(
        [*(alone if can else []), str(BUILDER), "build", "--strict", "-f", str(settings)],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return place / "site", f"{done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.project
def test_the_site_is_whole(tmp_path: Path) -> None:
    site, printed = build(tmp_path / "docs")
    assert printed.startswith("0\n"), printed
    assert "griffe" not in printed, (
        printed
    )  # a docstring that can't be read, which --strict lets pass
    assert "warning" not in printed.lower(), printed
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages <= {page.stem for page in site.glob("*.html")}
    start = (site / "index.html").read_text()
    for name in [*pages, "repository/overview", "repository/agents"]:
        assert f'href="./{name}.html"' in start or name == "index", name  # in the navigation
    for page in site.rglob("*.html"):
        reader = _Requests()
        reader.feed(page.read_text())
        assert len(reader.addresses) >= 3
        assert [a for a in reader.addresses if re.match(r"(https?:)?//", a)] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text()), sheet
    interface = (site / "api.html").read_text()
    for name in ("load", "compose", "alignment.metric.CKA", "testing.project.Project"):
        assert f'id="mlmodeldev.{name}"' in interface
    assert "::: " not in interface


@pytest.mark.slow
@pytest.mark.project
@pytest.mark.parametrize(
    "link", ["[a](nowhere.md)", "[a](sweeps.md#nowhere)", "[a](../nowhere.txt)"]
)
def test_a_dead_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    top = tmp_path / "top"
    (top / "docs").mkdir(parents=True)
    for name in docs_site.TOP_LEVEL:
        (top / name).write_text("# A page\n")
    for name in ("index.md", "sweeps.md"):
        (top / "docs" / name).write_text(f"# A page\n\n{link if name == 'index.md' else ''}\n")
    settings = docs_site.SETTINGS.read_text()
    bare = "nav: [index.md, sweeps.md]\n"
    (top / "docs.yml").write_text(settings.partition("nav:\n  - index")[0] + bare)
    monkeypatch.setattr(docs_site, "ROOT", top)
    monkeypatch.setattr(docs_site, "SETTINGS", top / "docs.yml")
    monkeypatch.setattr(docs_site, "unlisted", lambda *_: "")
    try:
        _, printed = build(tmp_path / "docs")
    except FileNotFoundError as error:
        printed = str(error)
    assert not printed.startswith("0\n"), printed
    assert "does not exist" in printed


def test_pages_and_links_are_put_together() -> None:
    text = "[a](docs/sweeps.md#x) [b](CHANGELOG.md) `[c](docs/sweeps.md)` [d](Makefile) [e](https://x.org)"
    there = docs_site.relinked(text, "README.md", "https://host/it")
    assert there == (
        "[a](../sweeps.md#x) [b](changes.md) `[c](docs/sweeps.md)`"
        " [d](https://host/it/blob/main/Makefile) [e](https://x.org)"
    )
    page = docs_site.relinked("[a](../README.md#x) [b](images/a.png)", "docs/a.md", "")
    assert page == "[a](repository/overview.md#x) [b](images/a.png)"
    settings = "nav:\n  - index.md\n  - Begin:\n      - a.md\n"
    assert docs_site.unlisted(settings, ["index.md", "a.md", "b.md"]) == "  - More:\n      - b.md\n"
    assert docs_site.unlisted(settings, ["index.md", "a.md"]) == ""
