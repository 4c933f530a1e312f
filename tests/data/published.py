"""The published datasets as small archives of the same layout, and how a mirror is named."""

from __future__ import annotations

import os

from tests.small_data import small_sets

SETS = small_sets()


def use_mirror(url, folder, setenv=os.environ.__setitem__):
    setenv("MLMODELDEV_MIRROR", url)
    setenv("MLMODELDEV_MANIFESTS", str(folder))
    setenv("HF_HUB_OFFLINE", "0")
