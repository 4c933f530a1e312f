"""The features of a batch that is shared among devices, brought together on one of them.

CKA of a batch is no sum over its parts: the Gram matrix has an entry for each pair of samples. So
each rank keeps its share's features, and one rank gets them all and makes the Grams; which one goes
round with the batches.

    Capture(module, layers, reduce=copied)
    part = Part({"self": capture.take_usable()}, batch_size=3)
    whole = join(part, batch_idx % rank_count(), gram, device)   # None on all ranks but one

A rank whose loader has run out takes part with `Part.empty`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mlmodeldev.alignment.capture import Seen

Reduced = TypeVar("Reduced")
Place = tuple[str, str]
"""A model (``self``, ``start`` …) and one of its layers."""


@dataclass(frozen=True)
class Part(Generic[Reduced]):
    """What the layers of each model gave for a batch, or for a rank's share of it.

    Attributes:
        seen: by model: the layers' features, and why others gave none.
        batch_size: examples, if that is clear.
    """

    seen: Mapping[str, Seen[Reduced]] = field(default_factory=dict)
    batch_size: int | None = None

    @classmethod
    def empty(cls) -> Part[Reduced]:
        """Return the part of a rank that has no example of the batch."""
        return cls({}, 0)


@dataclass(frozen=True)
class _Shapes:
    """What a rank announces of its part."""

    features: dict[Place, tuple[tuple[int, ...], torch.dtype]]
    reasons: dict[Place, str]
    models: tuple[str, ...]
    batch_size: int | None


def rank_count() -> int:
    """Return how many processes measure together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_rank() -> int:
    """Return which of them this process is."""
    return dist.get_rank() if rank_count() > 1 else 0


def copied(features: Tensor) -> Tensor:
    """Return the features of a layer as they are now, in an order that is the same on all ranks."""
    return features.detach().clone(memory_format=torch.contiguous_format)


def unflattened(pooling: str | Mapping[str, str]) -> str | dict[str, str]:
    """Return a pooling that leaves alone what would be flattened.

    Flattened columns come in memory order, which may differ between ranks; `hsic.gram` flattens
    the whole batch at once.
    """
    if isinstance(pooling, str):
        return "none" if pooling == "flatten" else pooling
    named = {name: "none" if how == "flatten" else how for name, how in pooling.items()}
    return {**named, "**": "none"}


def gathered(value: Any) -> list[Any]:
    """Return what each rank has given."""
    values: list[Any] = [value] * rank_count()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def join(
    part: Part[Tensor], on: int, reduce: Callable[[Tensor], Reduced], device: torch.device
) -> Part[Reduced] | None:
    """Bring the parts of a batch together on one rank; all ranks call this.

    Args:
        part: this rank's, with features (examples, …).
        on: the rank that gets the batch.
        reduce: what is made there of the features of a layer, all examples at once.
        device: where ranks exchange tensors.

    Returns:
        The batch on rank `on`, None on the others.
    """
    shapes: list[_Shapes] = gathered(_shapes_of(part))
    places, reasons = _common(shapes)
    sizes = [sum(_bytes(one, place) for place in places) for one in shapes]
    whole = _exchange(part, places, sizes, on, device)
    if whole is None:
        return None
    offsets, seen = [0] * len(whole), _empty(shapes, reasons)
    for model, layer in places:
        pieces = []
        for rank, one in enumerate(shapes):
            count = _bytes(one, (model, layer))
            if not count:
                continue
            shape, dtype = one.features[model, layer]
            piece = whole[rank][offsets[rank] : offsets[rank] + count]
            pieces.append(piece.view(dtype).view(shape))
            offsets[rank] += count
        seen[model][0][layer] = reduce(torch.cat(pieces))
    counts = [one.batch_size for one in shapes]
    return Part(seen, None if None in counts else sum(count or 0 for count in counts))


def _shapes_of(part: Part[Tensor]) -> _Shapes:
    features = {
        (model, layer): (tuple(tensor.shape), tensor.dtype)
        for model, (kept, _) in part.seen.items()
        for layer, tensor in kept.items()
    }
    reasons = {
        (model, layer): reason
        for model, (_, missing) in part.seen.items()
        for layer, reason in missing.items()
    }
    return _Shapes(features, reasons, tuple(part.seen), part.batch_size)


def _common(shapes: list[_Shapes]) -> tuple[list[Place], dict[Place, str]]:
    """Return the layers that all ranks with examples have alike, and why the others are not."""
    taking_part = [one for one in shapes if one.models]
    reasons = {place: reason for one in taking_part for place, reason in one.reasons.items()}
    places: list[Place] = []
    for place in dict.fromkeys(place for one in taking_part for place in one.features):
        kinds = {
            (one.features[place][0][1:], one.features[place][1])
            for one in taking_part
            if place in one.features
        }
        if any(place not in one.features for one in taking_part):
            reasons.setdefault(place, "did not run on every device")
        elif len(kinds) > 1:
            shown = " and ".join(str(tuple(shape)) for shape, _ in sorted(kinds, key=str))
            reasons[place] = f"gives features of other shapes on each device ({shown})"
        else:
            places.append(place)
    # wide numbers first: each then begins where its type may be read from bytes
    first = {place: next(o.features[place][1] for o in taking_part) for place in places}
    return sorted(places, key=lambda place: -first[place].itemsize), reasons


def _bytes(shapes: _Shapes, place: Place) -> int:
    if place not in shapes.features:
        return 0
    shape, dtype = shapes.features[place]
    return torch.Size(shape).numel() * dtype.itemsize


def _exchange(
    part: Part[Tensor], places: list[Place], sizes: list[int], on: int, device: torch.device
) -> list[Tensor] | None:
    """Send this rank's bytes to the rank `on`; return there what each has sent."""
    rank, longest = dist.get_rank(), max(sizes)
    if not longest:
        return [torch.empty(0, dtype=torch.uint8)] * len(sizes) if rank == on else None
    sent = torch.zeros(longest, dtype=torch.uint8, device=device)
    offset = 0
    for model, layer in places if sizes[rank] else ():
        content = part.seen[model][0][layer].reshape(-1).view(torch.uint8)
        sent[offset : offset + len(content)] = content
        offset += len(content)
    received = [torch.empty_like(sent) for _ in sizes] if rank == on else None
    dist.gather(sent, received, dst=on)
    return received


def _empty(shapes: list[_Shapes], reasons: dict[Place, str]) -> dict[str, Seen[Any]]:
    models = dict.fromkeys(model for one in shapes for model in one.models)
    return {
        model: ({}, {layer: why for (of, layer), why in reasons.items() if of == model})
        for model in models
    }
