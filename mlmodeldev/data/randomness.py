"""The random numbers of user code: all global generators, and those that objects keep, seeded.

A data set, a collate function or a training step may draw from Python's, numpy's or torch's global
generator, or from one in an attribute.

Example::

    seed_all(7)
    OwnGenerators(dataset).seed(7)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch


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


def seed_all(number: int) -> None:
    """Seed Python's, numpy's and torch's global generators, on all devices in use."""
    seed_torch(number)
    np.random.seed(number & 0xFFFFFFFF)
    random.seed(number)


def seed_cpu(number: int) -> None:
    """Seed the global generators of the CPU (6 µs)."""
    torch.default_generator.manual_seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    random.seed(number)


def global_states() -> tuple[Any, Any, Any]:
    """Return the states of the global generators of the CPU, for `restore_globals`."""
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state()


def restore_globals(states: tuple[Any, Any, Any]) -> None:
    """Put the global generators back as `global_states` has seen them."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.default_generator.set_state(states[2])


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
