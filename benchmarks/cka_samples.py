"""How many samples are enough? The figure of docs/alignment.md, from runs made here.

    python benchmarks/cka_samples.py        # docs/images/cka-samples.{png,svg}, a minute

Two networks of three hidden layers are trained on scikit-learn's digits from different seeds. All
3 x 3 CKAs between them, over batches of n samples, are compared with the exact value over all
1,797 (`FullSetCKA`): root mean square error over the pairs and 8 draws of the samples.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SAMPLES = (32, 64, 128, 256, 512, 1024, 1792)
DRAWS = 8
LINES = (
    ("unbiased", 16, True),
    ("unbiased", 64, True),
    ("unbiased", 64, False),
    ("biased", 16, True),
    ("biased", 64, True),
)


def train(seed: int) -> tuple[dict[str, Any], Any]:
    """Train one network; return its features by layer for all samples, and the classes."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    torch.manual_seed(seed)
    data = load_digits()
    x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    widths = [64, 256, 256, 256]
    parts = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
    model = nn.Sequential(*parts, nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(40):
        for chosen in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    features = {}
    with torch.no_grad():
        for i, part in enumerate(parts):
            x = part(x)
            features[f"{seed}.{i}"] = x
    return features, y


def exact(features: dict[str, Any]) -> Any:
    """Return CKA between the two networks over all samples, (3, 3)."""
    from mlmodeldev.alignment import FullSetCKA

    metric = FullSetCKA(list(features))
    metric.update(features)
    return metric.compute()[:3, 3:]


def error(
    features: dict[str, Any], y: Any, want: Any, samples: int, line: tuple[str, int, bool]
) -> float:
    """Return the root mean square error of minibatch CKA over pairs and draws."""
    import torch

    from mlmodeldev.alignment import CKA

    estimator, size, shuffled = line
    names, squares = list(features), []
    for draw in range(DRAWS):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(draw))[:samples]
        order = order if shuffled else order[y[order].argsort(stable=True)]
        metric = CKA(names[:3], names[3:], estimator=estimator)
        for chosen in order.split(size):
            metric.update({name: x[chosen] for name, x in features.items()})
        squares.append((metric.compute() - want).square().mean())
    return float(torch.stack(squares).mean().sqrt())


def draw(errors: dict[tuple[str, int, bool], list[float]]) -> Any:
    """Return the figure: error against samples, one line for each way to batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    # Okabe & Ito's colours, with a marker each: told apart without colour too.
    colours, markers = ("#0072B2", "#56B4E9", "#009E73", "#D55E00", "#E69F00"), "os^Dv"
    for (line, values), colour, marker in zip(errors.items(), colours, markers, strict=True):
        estimator, size, shuffled = line
        label = f"{estimator}, batches of {size}{'' if shuffled else ', sorted by class'}"
        axes.plot(SAMPLES, values, marker=marker, markersize=4, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="samples in all", ylabel="error of CKA (RMS)")
    axes.set_xticks(SAMPLES, [str(n) for n in SAMPLES], fontsize=8)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)
    return figure


def main() -> None:
    """Train, measure, print the errors, and write the figure."""
    import torch

    from mlmodeldev.alignment.pictures import save_figure

    torch.set_num_threads(1)
    first, y = train(0)
    second, _ = train(1)
    features = first | second
    want = exact(features)
    errors = {line: [error(features, y, want, n, line) for n in SAMPLES] for line in LINES}
    for line, values in errors.items():
        print(*line, *(f"{value:.4f}" for value in values))
    for suffix in ("png", "svg"):
        save_figure(draw(errors), ROOT / "docs" / "images" / f"cka-samples.{suffix}")


if __name__ == "__main__":
    main()
