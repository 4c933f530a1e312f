"""The package itself: light to import, and every name leads somewhere."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from mlmodeldev import alignment


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, mlmodeldev.alignment; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert all(getattr(alignment, name).__name__ == name for name in alignment.__all__)
    with pytest.raises(AttributeError, match="no attribute 'CCA'"):
        _ = alignment.CCA


def test_metric_and_callback_travel_to_other_processes(tmp_path):
    callback = alignment.CKACallback({"x": {"a": "image.*"}}, tmp_path)
    assert pickle.loads(pickle.dumps(callback)).comparisons == callback.comparisons
    metric = pickle.loads(pickle.dumps(alignment.CKA(["x", "y"])))
    assert metric.layers_a == ("x", "y")
