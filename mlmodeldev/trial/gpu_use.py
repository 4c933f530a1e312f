"""How busy a GPU is, by NVML, and how much of its memory torch has taken; CUDA is never begun here.

Example::

    gpu = GpuUse(0)
    gpu.use(), gpu.memory_gib(), gpu.size_gib()       # 0.93, 11.2, 79.1; None: not to be had

NVML is there with ``pip install nvidia-ml-py``. It counts the time in which any kernel ran, of all
processes on the GPU. A part of a GPU (MIG) has no such figure.
"""

from __future__ import annotations

import sys
from typing import Any

from mlmodeldev.trial.process_use import GIB


class GpuUse:
    """One GPU.

    Args:
        index: as torch numbers those that this process sees.
        uuid: NVML's name of it, ``GPU-...``; None: torch is asked once CUDA has begun.
    """

    def __init__(self, index: int, uuid: str | None = None) -> None:
        self.index, self._uuid = index, uuid
        self._nvml: Any = None
        self._handle: Any = None
        self._is_lost = False

    def use(self) -> float | None:
        """Return the share of the last moment, up to a second, in which it computed, 0 to 1."""
        if self._is_lost:
            return None
        try:
            if self._handle is None and not self._open():
                return None
            return float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) / 100
        except Exception:  # no NVML, no driver, a MIG device: each has errors of its own
            self._is_lost = True
            return None

    def _open(self) -> bool:
        """Find the GPU; return whether it was."""
        cuda = _begun()
        if self._uuid is None and cuda is None:
            return False
        import pynvml

        if self._uuid is None:
            self._uuid = f"GPU-{cuda.get_device_properties(self.index).uuid}"
        pynvml.nvmlInit()
        self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
        return True

    def memory_gib(self) -> float | None:
        """Return the most GiB that torch's allocator of this process has had."""
        cuda = _begun()
        return None if cuda is None else cuda.max_memory_reserved(self.index) / GIB

    def size_gib(self) -> float | None:
        """Return the GiB that the GPU has."""
        cuda = _begun()
        return None if cuda is None else cuda.get_device_properties(self.index).total_memory / GIB

    def close(self) -> None:
        """Let go of NVML."""
        if self._handle is not None:
            self._is_lost, self._handle = True, None
            self._nvml.nvmlShutdown()


def _begun() -> Any:
    """Return torch.cuda where the process uses it already; else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None
