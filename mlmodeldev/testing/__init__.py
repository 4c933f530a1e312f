"""Tests for a project's own model and data: learning, resuming, loading back, batches, devices.

project.py    the checks, of the model and data that the settings name
isolated.py   each in a process of its own, born in a moment
learning.py   the loss of one batch falls
resuming.py   a killed trial ends with the weights of an undisturbed one
exports.py    best/ and last/ load back
batches.py    what comes out for an example rests on that example alone
devices.py    all that the model needs moves with it
observer.py   what modules take and give in validation
layers.py     the layers that CKA is to compare exist

Example::

    from mlmodeldev.testing import Project

    def test_a_batch_is_learnt(tmp_path):
        Project(ROOT, tmp_path, "logger=csv", "model=mine", "data=mine").learns_one_batch()
"""

from mlmodeldev.testing.isolated import CheckFailed
from mlmodeldev.testing.project import Project

__all__ = ["CheckFailed", "Project"]
