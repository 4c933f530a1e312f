"""Randomness as a function: of the seed and of what it is for, never of what ran before.

Order, augmentation and dropout each draw from a generator keyed by (seed, purpose, epoch, index
or step). So a trial that goes on from step 500 draws what it would have drawn undisturbed, and
nothing about randomness needs saving.

Example::

    rng = generator(seed, "augment", epoch, index)     # numpy
    shift = rng.integers(-1, 2, size=2)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

import numpy as np


def key(seed: int, *path: int | str) -> int:
    """Return a 63-bit number that depends on the seed and on each part of the path.

    >>> key(0, "order", 1) == key(0, "order", 1), key(0, "order", 1) == key(0, "order", 2)
    (True, False)
    """
    return _number(_digest(seed, *path))


def keys(numbers: Iterable[int], seed: int, *path: int | str) -> np.ndarray:
    """Return ``key(seed, *path, number)`` of each number, int64; the path is read once.

    >>> keys([3, 4], 0, "augment")[1] == key(0, "augment", 4)
    True
    """
    begun = _digest(seed, *path)
    drawn = []
    for number in numbers:
        digest = begun.copy()
        digest.update(b"i" + struct.pack("<q", number))
        drawn.append(_number(digest))
    return np.array(drawn, dtype=np.int64)


def _digest(*path: int | str) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=8)
    for part in path:
        if isinstance(part, str):
            text = part.encode()
            digest.update(b"s" + struct.pack("<q", len(text)) + text)
        else:
            digest.update(b"i" + struct.pack("<q", part))
    return digest


def _number(digest: hashlib.blake2b) -> int:
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(seed: int, *path: int | str) -> np.random.Generator:
    """Return a numpy generator of its own for a purpose (Philox, counter-based; Salmon 2011)."""
    return np.random.Generator(np.random.Philox(key(seed, *path)))


def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation of ``range(size)``, int64."""
    return generator(seed, "order", epoch).permutation(size)
