"""Mask keys in what a process prints, so that no log holds one.

Example::

    guard_output()
    print(os.environ)       # ... 'WANDB_API_KEY': '[value of WANDB_API_KEY]' ...
"""

from __future__ import annotations

import sys
from typing import Any

from mlmodeldev.secrets.patterns import mask


def guard_output() -> None:
    """Let what Python writes to standard output and error pass through `mask`; once is enough.

    A traceback is written the same way. What a C library writes goes past Python and is not seen.
    """
    for stream in (sys.stdout, sys.stderr):
        write = getattr(stream, "write", None)
        if write is None or getattr(write, "masks_keys", False):
            continue
        try:
            stream.write = _masking(write)  # type: ignore[method-assign]
        except AttributeError:
            continue  # a stand-in of some framework, which keeps what it gets in memory


def _masking(write: Any) -> Any:
    def masked(text: str) -> int:
        write(mask(text))
        return len(text)

    masked.masks_keys = True  # type: ignore[attr-defined]
    return masked
