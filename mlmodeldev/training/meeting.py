"""How the processes of one trial come together: who is missing, until when; a signal ends the wait.

torch waits for them inside of a call that hears no signal, says nothing, and takes half an hour.
Here each leaves a note in a store, and looks for the others' from Python.

Example::

    store = connect("n1", 40211, Wait("the first process at n1:40211"))
    notes = meet(store, rank=1, size=4, note={"host": "n2"})         # of all four, by rank
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import TrialInterrupted, UsageError
from mlmodeldev.trial import signals

if TYPE_CHECKING:
    from torch.distributed import Store, TCPStore

SECONDS = 300.0
"""How long processes wait for each other to begin."""
QUIET_SECONDS = 10.0
"""After so long a wait is said."""
_POLL_SECONDS = 0.2
_CONNECT_SECONDS = 5.0
_ROOM = "mlmodeldev/meeting"


class Wait:
    """One wait for other processes, which is said, ends, and heeds signals.

    Args:
        what: is waited for, in words.
        seconds: until it is given up.
        hint: what may help, said at the end.
        grace: seconds that a signal leaves the others, to say themselves that they end.
    """

    def __init__(
        self,
        what: str | Callable[[], str],
        seconds: float | None = None,
        hint: str = "",
        grace: float = 0.0,
    ) -> None:
        self._what = what if callable(what) else lambda: what
        self.seconds = SECONDS if seconds is None else seconds
        self._hint, self._grace = hint, grace
        self._begun = time.monotonic()
        self._signal_at: float | None = None
        self._is_announced = False

    def pause(self) -> None:
        """Sleep for a moment.

        Raises:
            UsageError: it has taken too long.
            TrialInterrupted: a signal asked for an end.
        """
        now = time.monotonic()
        if signals.requested():
            self._signal_at = self._signal_at or now
            if now - self._signal_at >= self._grace:
                raise TrialInterrupted(
                    f"interrupted by {signals.requested()} while waiting for {self._what()}"
                )
        if now - self._begun > self.seconds:
            hint = f"; {self._hint}" if self._hint else ""
            raise UsageError(f"waited {self.seconds:.0f} s in vain for {self._what()}{hint}")
        if not self._is_announced and now - self._begun > QUIET_SECONDS:
            self._is_announced = True
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + self.seconds))
            print(f"waiting for {self._what()}, until {until} at most", file=sys.stderr, flush=True)
        time.sleep(_POLL_SECONDS)


def serve(host: str, port: int, all_interfaces: bool = False) -> TCPStore:
    """Open the store of a trial, for its first process.

    Anybody who reaches the store can write into it, so that of one machine's processes listens on
    that machine alone; torch by itself listens on all interfaces.

    Args:
        host: under which this process is reached.
        port: 0 for any.
        all_interfaces: listen on all of them though the host is this machine's own name for itself.

    Raises:
        UsageError: the port can't be opened.
    """
    from torch.distributed import TCPStore

    try:
        if all_interfaces or host not in ("127.0.0.1", "localhost"):
            return TCPStore(host, port, None, is_master=True, wait_for_workers=False)
        listener = socket.create_server(("127.0.0.1", port))
        own_port = listener.getsockname()[1]
        return TCPStore(
            "127.0.0.1", own_port, None, is_master=True, wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        reason = "in use" if "in use" in str(error) else str(error).splitlines()[0]
        raise UsageError(
            f"MASTER_PORT={port}: the first process can't open it on this machine ({reason})"
        ) from None


def connect(host: str, port: int, wait: Wait) -> TCPStore:
    """Return the first process's store, as soon as it is there.

    Raises:
        UsageError, TrialInterrupted: of the wait.
    """
    while True:
        if store := try_to_connect(host, port):
            return store
        wait.pause()


def try_to_connect(host: str, port: int) -> TCPStore | None:
    """Return the store at an address, or None where there is none now.

    It is looked whether anybody listens, and waited for in a thread: of another service's port
    torch expects an answer for ever.
    """
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError:
        return None
    made: queue.Queue[TCPStore] = queue.Queue()
    threading.Thread(target=_open_store, args=(host, port, made), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return made.get(timeout=_CONNECT_SECONDS)
    return None


def _open_store(host: str, port: int, made: queue.Queue[TCPStore]) -> None:
    from torch.distributed import TCPStore

    timeout = timedelta(seconds=_CONNECT_SECONDS)
    with contextlib.suppress(RuntimeError):
        made.put(TCPStore(host, port, None, False, timeout, wait_for_workers=False))


def meet(
    store: Store,
    rank: int,
    size: int,
    note: Mapping[str, Any],
    look: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Return the notes of all processes, by rank, as soon as all have come.

    Args:
        store: of the trial.
        rank: of this process.
        size: how many there are.
        note: of this process, anything that JSON takes.
        look: called between looks; may raise to give up.

    Raises:
        UsageError: who has not come.
        TrialInterrupted: a signal asked for an end.
    """
    keys = [f"{_ROOM}/{number}" for number in range(size)]
    missing = set(range(size))

    def missing_ranks() -> str:
        names = ", ".join(str(number) for number in sorted(missing)[:8])
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        return f"{len(missing)} of {size} processes (rank {names}{more})"

    hint = "where no others were started: unset RANK WORLD_SIZE, or leave a shell of srun's"
    wait = Wait(missing_ranks, hint=hint)
    try:
        store.set(keys[rank], json.dumps(dict(note)))
        while missing:
            missing = {number for number in missing if not store.check([keys[number]])}
            if missing:
                look()
                wait.pause()
        return [json.loads(store.get(key)) for key in keys]
    except RuntimeError as error:
        raise UsageError(f"the first process has ended, {missing_ranks()} missing") from error


def wait_for_key(store: Store, key: str, wait: Wait) -> None:
    """Wait until another process has set a key.

    Raises:
        UsageError, TrialInterrupted: of the wait.
    """
    while not store.check([key]):
        wait.pause()


def host_name() -> str:
    """Return the name by which other nodes reach this one."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
