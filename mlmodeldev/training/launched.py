"""The processes that a launcher has given numbers: RANK, WORLD_SIZE and their like.

torchrun and accelerate set all of them, a script of one's own perhaps the first two; and they stay
behind in a shell, where nobody else will come.

Example::

    launched = Launched.of(os.environ)        # Launched(rank=0, size=2, local_rank=0, ...)
    store = launched.open_store()             # of the first process; torchrun has one of its own
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.training.meeting import Wait, connect, serve

if TYPE_CHECKING:
    from torch.distributed import Store

_ALONE = "to train alone: unset RANK WORLD_SIZE"


def is_launched(variables: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process has a number; empty variables count as none."""
    return bool(variables.get("RANK") and variables.get("WORLD_SIZE"))


def forget_left_over(variables: MutableMapping[str, str] = os.environ) -> None:
    """Drop a launcher's variables that are empty, or of which the half is missing.

    Lightning reads them one by one, and would take a process that is alone for the third.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    for name in names:
        if not is_launched(variables) or not variables.get(name):
            variables.pop(name, None)


@dataclass(frozen=True)
class Launched:
    """A process's numbers.

    Attributes:
        rank, size: among all.
        local_rank, local_size: on its machine; None: not told.
        host, port: where the first process's store is.
        has_agent: whether torchrun keeps that store.
    """

    rank: int
    size: int
    local_rank: int | None
    local_size: int | None
    host: str
    port: int
    has_agent: bool = False

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Launched:
        """Read the numbers.

        Raises:
            UsageError: one is missing, or is no number, or does not fit the others.
        """
        rank, size = _number(variables, "RANK"), _number(variables, "WORLD_SIZE")
        assert rank is not None
        assert size is not None
        if not 0 <= rank < size:
            raise UsageError(f"RANK={rank}: must be below WORLD_SIZE={size}; {_ALONE}")
        host, port = variables.get("MASTER_ADDR", ""), _number(variables, "MASTER_PORT")
        for name, value in (("MASTER_ADDR", host), ("MASTER_PORT", port)):
            if size > 1 and value in ("", None):
                raise UsageError(
                    f"RANK={rank} and WORLD_SIZE={size} are set, {name} is not; {_ALONE}, or start"
                    " by torchrun"
                )
        local_rank, local_size = (_number(variables, f"LOCAL_{n}") for n in ("RANK", "WORLD_SIZE"))
        if local_rank is None or local_size is None:
            local_rank = local_size = None
        has_agent = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return cls(rank, size, local_rank, local_size, host, port or 0, has_agent)

    def open_store(self) -> Store:
        """Open the first process's store, or find it.

        Raises:
            UsageError: it can't be opened, or is not there in time.
            TrialInterrupted: a signal came meanwhile.
        """
        from torch.distributed import PrefixStore

        if self.rank == 0 and not self.has_agent:
            return serve(self.host, self.port)
        what = f"the first of {self.size} processes, at MASTER_ADDR={self.host}"
        wait = Wait(f"{what}, MASTER_PORT={self.port}", hint=_ALONE)
        store = connect(self.host, self.port, wait)
        # torchrun's outlives its processes, and their notes with it
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return PrefixStore(f"attempt-{attempt}", store) if self.has_agent else store


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name)
    if not text:
        return None
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise UsageError(f"{name}={text}: must be a number; {_ALONE}")
    return int(text)
