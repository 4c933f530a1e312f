"""Textbook values that the tests compare with: slow, in exact or double arithmetic, no torch."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from math import sqrt

import numpy as np


def trace_form(x, y, estimator):
    """HSIC0 as tr(KHLH)/(n-1)²; HSIC1 as in Song et al. 2012, eq. 5, on float64 features."""
    x, y = (np.asarray(v, dtype=np.float64).reshape(len(v), -1) for v in (x, y))
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    x, y = centring @ x, centring @ y
    k, l = x @ x.T, y @ y.T  # noqa: E741 - the paper's letters
    if estimator == "biased":
        return np.trace(k @ centring @ l @ centring) / (n - 1) ** 2
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)
    total = np.trace(k @ l) + one @ k @ one * (one @ l @ one) / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def four_tuples(k, l):  # noqa: E741 - the paper's letters
    """HSIC1 as the U-statistic over all ordered 4-tuples of different samples (n ≤ 8)."""
    n, total, count = len(k), 0, 0
    for i, j, q, r in permutations(range(n), 4):
        total += k[i][j] * (l[i][j] + l[q][r] - 2 * l[i][q])
        count += 1
    return total / count


def exact_grams(*layers):
    """Linear Gram matrices of integer features as lists of fractions."""
    return [
        [[Fraction(int(np.dot(a, b))) for b in layer.tolist()] for a in layer.tolist()]
        for layer in layers
    ]


def cka(batches, estimator="unbiased", weighting="pairs"):
    """CKA of two layers over batches [(x, y), …]: weighted sums of HSIC, then one division."""
    weights = {"pairs": lambda n: n * (n - 3), "samples": lambda n: n, "equal": lambda n: 1}
    sums = np.zeros(3)
    for x, y in batches:
        w = weights[weighting](len(x))
        sums += [w * trace_form(*pair, estimator) for pair in ((x, y), (x, x), (y, y))]
    return sums[0] / sqrt(sums[1] * sums[2])


def exact_cka(x, y):
    """Unbiased CKA of integer features from the 4-tuple form in rational arithmetic."""
    k, l = exact_grams(x, y)  # noqa: E741
    return float(four_tuples(k, l)) / sqrt(float(four_tuples(k, k) * four_tuples(l, l)))
