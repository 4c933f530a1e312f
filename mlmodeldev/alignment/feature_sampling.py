"""The correction for layers whose features are a sample of more (Chun et al. 2025).

    grams = [gram(conv, moments=True), gram(head, moments=True)]
    corrected_self(grams, self_hsic(grams))       # (2,), float64

Two layers' features are drawn apart from each other, so HSIC1 between them has no bias. In HSIC1 of
a layer with itself each feature meets itself, which it would hardly do in the whole population:
those terms go, and what is left is scaled to as many terms as there were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlmodeldev.alignment.hsic import Gram, combine
from mlmodeldev.errors import UsageError

LOST = "has features with too little in common for feature_correction: every entry is NaN"


def check_feature_correction(chosen: bool, estimator: str, kernel: str) -> bool:
    """Return `chosen`, or raise `UsageError` where there is no such correction."""
    for what, value, needed in (("estimator", estimator, "unbiased"), ("kernel", kernel, "linear")):
        if chosen and value != needed:
            raise UsageError(f"feature_correction=True goes with {what}={needed}, not {value}")
    return chosen


def corrected_self(grams: Sequence[Gram], own: Tensor) -> Tensor:
    """Return HSIC1(K, K) of each layer as its features' population has it, (len(grams),), float64.

    (HSIC1(K, K) - Σ HSIC1(kₐ, kₐ)) · Q/(Q-1), kₐ the linear kernel of the a-th of Q features alone.
    The expected value is the population's times the squared share of it that was sampled, as of
    HSIC1 between layers. It may be below 0, and is 0 for a single feature.

    Args:
        grams: one batch, made with `moments`.
        own: HSIC1(K, K) as it is, `hsic.self_hsic`; where that is 0 or NaN it stays.

    Raises `UsageError` for a Gram without moments.
    """
    if any(one.moments is None for one in grams):
        raise UsageError("feature_correction needs Grams with moments: CKA.gram makes them")
    moments = torch.stack([one.moments for one in grams if one.moments is not None])
    return corrected(own, moments, grams[0].samples)


def corrected(own: Tensor, moments: Tensor, samples: int) -> Tensor:
    """Return the same of HSIC1(K, K) (layers,) and moments (layers, 3), `products`'."""
    features, lengths, fourths = moments.unbind(1)
    alone = combine(lengths, fourths, lengths, samples, "unbiased")
    several = torch.where(features > 1, (own - alone) * features / (features - 1), 0.0)
    return torch.where((own == 0) | own.isnan(), own, several)
