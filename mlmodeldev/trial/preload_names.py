"""Import this before any code of the user's: ``lightning.pytorch`` then means what trains here.

The fork server imports the model's file before it forks trials, and what that file imports stays.
"""

from __future__ import annotations

import contextlib

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.lightning_names import accept_both_names

# If it is too late already, each trial says so.
with contextlib.suppress(UsageError):
    accept_both_names()
