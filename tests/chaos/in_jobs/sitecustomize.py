"""Found by every Python of the cluster's jobs: a node's clock that can jump, and short leases.

CHAOS_CLOCKS: a folder with a file for each host whose clock is wrong; it holds by how many
seconds. Only `time.time` is changed, which is what leases and records are written with.
CHAOS_LEASE: seconds of a lease, where the test can't wait for the usual three minutes.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

_true, _steady = time.time, time.monotonic
_seen = [0.0, -1.0]  # by how much the clock is wrong, and when that was read


def _wrong_time() -> float:
    now = _steady()
    if now - _seen[1] > 1:
        _seen[1] = now
        try:
            _seen[0] = float((_clocks / socket.gethostname()).read_text())
        except (OSError, ValueError):
            _seen[0] = 0.0
    return _true() + _seen[0]


if "CHAOS_CLOCKS" in os.environ:
    _clocks = Path(os.environ["CHAOS_CLOCKS"])
    time.time = _wrong_time

if "CHAOS_LEASE" in os.environ:
    try:
        from mlmodeldev import lease
        from mlmodeldev.slurm import agent_notes
    except ImportError:  # Python without the library, such as a tool of the system
        pass
    else:
        lease.LEASE_SECONDS = float(os.environ["CHAOS_LEASE"])
        lease.HEARTBEAT_SECONDS = lease.LEASE_SECONDS / 6
        lease.SKEW_SECONDS = lease.LEASE_SECONDS
        agent_notes.RESERVED_SECONDS = 2 * lease.LEASE_SECONDS
