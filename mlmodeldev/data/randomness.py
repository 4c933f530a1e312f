"""The random numbers of user code: seed all global generators, see which of them were drawn from.

A data set, a collate function or a training step may draw from Python's, numpy's or torch's global
generator, or from one that an object keeps. Seeding each before each example would triple the price
of small ones, and few examples draw. So a batch is made, and only a generator that moved is seeded.

Example::

    seed_all(7)
    watch = Watch()
    before = watch.states()
    numpy.random.rand()
    watch.moved(before)                 # {"numpy"}
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch

GENERATORS = ("python", "numpy", "torch")
"""The global generators, by the library that owns each."""

_MERSENNE_BYTES = 4 * 625
"""A Mersenne twister: 624 words and the index of the next one (Matsumoto & Nishimura 1998)."""


def seed_torch(number: int) -> None:
    """Seed torch's generators of the devices in use.

    `torch.manual_seed` formats the stack for each kind of device that is not in use, to seed it
    later: a hundred times slower on a CPU, as deep as a callback is called.
    """
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number)


def seed_all(number: int, which: Collection[str] = GENERATORS) -> None:
    """Seed the global generators, all or those that are named."""
    if "torch" in which:
        seed_torch(number)
    if "numpy" in which:
        np.random.seed(number & 0xFFFFFFFF)
    if "python" in which:
        random.seed(number)


def global_states() -> tuple[Any, Any, Any]:
    """Return the states of the global generators of the CPU, for `restore_globals`."""
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state()


def restore_globals(states: tuple[Any, Any, Any]) -> None:
    """Put the global generators back as `global_states` has seen them."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.default_generator.set_state(states[2])


class Watch:
    """Tells which global generators have been drawn from between two looks (2 µs each).

    What a generator keeps of a pair of normal numbers is no part of its state here; seed before
    the first look, which forgets it.
    """

    def __init__(self) -> None:
        self._python = _python_state()
        legacy: Any = np.random.mtrand._rand  # the generator behind numpy.random's functions
        self._numpy: int = legacy._bit_generator.ctypes.state_address

    def states(self) -> tuple[Any, bytes, bytes]:
        """Return what changes when a generator is drawn from, in the order of `GENERATORS`."""
        return (
            self._python(),
            ctypes.string_at(self._numpy, _MERSENNE_BYTES),
            torch.default_generator.get_state().numpy().tobytes(),
        )

    def moved(self, before: tuple[Any, bytes, bytes]) -> set[str]:
        """Return the names of those that have moved since."""
        now = self.states()
        return {name for name, old, new in zip(GENERATORS, before, now, strict=True) if old != new}


def _python_state() -> Callable[[], Any]:
    """Return the quickest way to see Python's generator.

    `random.getstate` makes a tuple of 625 numbers (8 µs). In CPython the same words lie behind the
    object's header; that is used only if a trial shows that it is so.
    """
    shared: Any = random._inst
    address = id(shared) + object.__basicsize__

    def peek() -> bytes:
        return ctypes.string_at(address, _MERSENNE_BYTES)

    kept = random.getstate()
    try:
        for seed in (1, 2):
            random.seed(seed)
            random.random()
            words = np.frombuffer(peek(), dtype=np.uint32)
            *state, index = random.getstate()[1]
            if int(words[0]) != index or words[1:].tolist() != state:
                return random.getstate
        return peek
    finally:
        random.setstate(kept)


class OwnGenerators:
    """The generators that an object and its parts keep in their attributes.

    Args:
        owner: such as a data set; lists, dicts and attributes are followed.

    Attributes:
        count: how many there are.
    """

    def __init__(self, owner: Any) -> None:
        self._seeds = [_seeder(each) for each in _generators(owner)]
        self.count = len(self._seeds)

    def seed(self, number: int) -> None:
        """Seed all, each to numbers of its own."""
        for place, seed in enumerate(self._seeds):
            seed((number + 0x9E3779B97F4A7C15 * place) & 0x7FFFFFFFFFFFFFFF)


_KINDS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
_DEPTH, _ENTRIES = 6, 64
"""How deep, and how far into a list, generators are looked for."""


def _generators(owner: Any) -> Iterator[Any]:
    reached: set[int] = set()

    def walk(value: Any, depth: int) -> Iterator[Any]:
        if isinstance(value, _KINDS):
            yield value
        elif depth and id(value) not in reached:
            reached.add(id(value))
            for part in _parts(value):
                yield from walk(part, depth - 1)

    yield from walk(owner, _DEPTH)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, str | bytes | int | float | torch.Tensor | np.ndarray | type):
        return []
    if isinstance(value, Mapping):
        return list(value.values())[:_ENTRIES] if len(value) <= 10 * _ENTRIES else []
    if isinstance(value, list | tuple):
        return list(value[:_ENTRIES])
    attributes = getattr(value, "__dict__", None)
    return list(attributes.values()) if isinstance(attributes, dict) else []


def _seeder(generator: Any) -> Callable[[int], Any]:
    if isinstance(generator, torch.Generator):
        return generator.manual_seed
    if isinstance(generator, random.Random):
        return generator.seed
    if isinstance(generator, np.random.RandomState):
        return lambda number: generator.seed(number & 0xFFFFFFFF)

    def seed(number: int) -> None:
        bits = generator.bit_generator
        bits.state = type(bits)(number).state

    return seed
