"""Import this, and settings compose at once: what the fork server does before it forks trials.

Example::

    MLMODELDEV_PRELOAD='["logger=csv"]' python -c "import mlmodeldev.trial.preload"

Hydra reads and merges the files of ``conf/`` for 0.1 s; a trial that chooses the same files as the
first one inherits the outcome. It comes last: the collector then leaves alone all that was
imported.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os

from mlmodeldev.project import project_root
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.trial.code import note_loaded
from mlmodeldev.trial.worker import PRELOAD

# What is wrong with them the trial itself will say.
with contextlib.suppress(Exception):
    compose_settings(json.loads(os.environ.get(PRELOAD, "[]")), partial=True)

# What is edited from now on does not reach the trials that are forked from here.
with contextlib.suppress(Exception):
    note_loaded(project_root())

# What is here now stays: a trial's collector need not walk it, which would also copy its pages.
gc.collect()
gc.freeze()
