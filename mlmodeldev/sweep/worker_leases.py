"""Who of a search's workers is alive: a small file each, renewed while it lives.

Example::

    leases = Leases(runs / "digits" / ".search" / "workers")
    leases.renew()                  # every few seconds
    leases.alive("node7-4242-993")  # another worker's name

On the same machine a killed worker's death is seen at once, elsewhere when its lease runs out.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from mlmodeldev.atomic import write_json
from mlmodeldev.trial.folder import HEARTBEAT_SECONDS, owned, owner_record


class Leases:
    """The leases of all workers, and this process's own.

    Attributes:
        name: this worker's name: machine, process id and its start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        record = owner_record()
        self.name = "{host}-{pid}-{started}".format(**record["owner"])
        self._renewed = float("-inf")

    def renew(self) -> None:
        """Write this worker's lease if it is time."""
        if time.monotonic() - self._renewed < HEARTBEAT_SECONDS:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._file(self.name), owner_record())
        self._renewed = time.monotonic()

    def give_up(self) -> None:
        """Remove this worker's lease."""
        self._renewed = float("-inf")
        with contextlib.suppress(OSError):
            self._file(self.name).unlink(missing_ok=True)

    def alive(self, name: str | None) -> bool:
        """Whether the worker of this name still lives, as far as can be told from here."""
        if name is None:
            return False
        if name == self.name:
            return True
        try:
            record = json.loads(self._file(name).read_text())
        except (OSError, ValueError):
            return False
        return isinstance(record, dict) and owned(record)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"
