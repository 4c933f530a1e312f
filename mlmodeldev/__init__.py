"""Machinery behind trainer.py, model.py and datamodule.py: imported by a researcher, not edited.

Nothing heavy is imported here, so that ``--help`` and configuration errors answer at once.
"""

__version__ = "0.2.0"
