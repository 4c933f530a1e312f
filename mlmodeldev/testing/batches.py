"""Does what comes out for an example rest on that example alone?

In evaluation a batch and its two halves must give each example the same outputs, layer by layer.

Example::

    check_rows(["model=mine"], tolerance=1e-3)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlmodeldev.testing.isolated import CheckFailed
from mlmodeldev.testing.observer import Observer, Outputs, rows, validate

if TYPE_CHECKING:
    from torch import Tensor


def check_rows(overrides: Sequence[str], tolerance: float) -> None:
    """Fail where an example's outputs depend on which examples are beside it.

    The whole batch runs twice: an output that differs between the two is random by intention, and
    is left out, as is one of another shape than an entry for each example.

    Raises:
        CheckFailed: naming the first such layer.
        unittest.SkipTest: there is nothing to look at.
    """
    from mlmodeldev.settings.composition import compose_settings

    observer, sizes = Observer(), list[int]()

    def parts(batch: Any, size: int) -> list[Any]:
        sizes.append(size)
        places = [(0, size), (0, size), (0, size // 2), (size // 2, size)]
        return [batch, *(rows(batch, first, end) for first, end in places)]

    try:
        validate(compose_settings(overrides), observer, parts)
    except CheckFailed:
        raise
    except Exception as error:
        if len(observer.batches) < 2:  # the batch as it is
            raise
        raise CheckFailed(
            "The model runs on a whole validation batch, but not on a part of it"
            f" ({type(error).__name__}: {error}). A batch size is written into a view, a buffer or"
            " a mask: take it from the input (x.shape[0]). The last batch of an epoch would end the"
            " trial, as would another processing.batch_size."
        ) from None
    name = first_difference(observer.batches[1:], sizes[0], tolerance)
    if name:
        raise CheckFailed(
            f"In evaluation, what {name} gives for an example depends on the other examples of its"
            " batch: a batch and its two halves differ. A BatchNorm that is left in training mode"
            " does so (a train() in forward or validation_step, track_running_stats=False), as do"
            " means, maxima or a softmax over dimension 0, and attention for which the batch comes"
            " second (batch_first=True is missing). Metrics would change with"
            " processing.batch_size, and with the number of devices."
        )


def first_difference(batches: Sequence[Outputs], size: int, tolerance: float) -> str | None:
    """Return the first module whose outputs of a batch are not those of its halves.

    Args:
        batches: outputs of the whole batch, the whole again, and the two halves.
        size: examples in the whole.
        tolerance: as a share of the largest output.
    """
    whole, *others = batches
    for name, outputs in whole.items():
        for place, output in enumerate(outputs):
            rest = [each[name][place] for each in others if place < len(each.get(name, ()))]
            if len(rest) < len(others):
                continue
            again, first, second = rest
            if _differ(output, again, first, second, size, tolerance):
                return name
    return None


def _differ(
    whole: Tensor, again: Tensor, first: Tensor, second: Tensor, size: int, share: float
) -> bool:
    import torch

    if (
        not whole.dim()
        or not whole.numel()
        or any(part.shape[1:] != whole.shape[1:] for part in (first, second))
    ):
        return False
    count, rest = divmod(whole.shape[0], size)  # rows of each example
    if (
        rest
        or first.shape[0] != count * (size // 2)
        or second.shape[0] != count * (size - size // 2)
    ):
        return False
    limit = share * float(whole.abs().max()) + 1e-7
    if not _close(whole, again, limit) or _close(whole, torch.cat([first, second]), limit):
        return False
    return not _close(whole, _by_time(first, second, count), limit)


def _by_time(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Join rows that are of (time, example), flattened in this order."""
    import torch

    parts = [part.reshape(steps, -1, *part.shape[1:]) for part in (first, second)]
    return torch.cat(parts, 1).flatten(0, 1)


def _close(one: Tensor, other: Tensor, limit: float) -> bool:
    difference = (one - other).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return one.shape == other.shape and bool(difference.abs().max() <= limit)
