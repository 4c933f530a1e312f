"""What the sweep tests share: a sweep from text."""

from __future__ import annotations

import textwrap

import pytest

from mlmodeldev.sweep import load


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a sweep file and gives its path."""

    def write_text(text, name="sweep.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write_text


@pytest.fixture
def sweep(write):
    """Return a function that loads a sweep from text."""
    return lambda text: load(write(text))
