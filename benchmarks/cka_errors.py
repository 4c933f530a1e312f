"""What noise floor and interval cost, beside the measurement that they belong to.

    python benchmarks/cka_errors.py                    # both models, 64 samples a batch
    python benchmarks/cka_errors.py --models vit --batch 256

One recorded forward pass is replayed (`cka_replay`) and taken off; one thread, CPU seconds of the
fastest repetition. A measurement is eight batches and one matrix.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)
BATCHES = 8


def fastest(times: int, run: Callable[[], Any]) -> float:
    """Return CPU seconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(times):
        begun = time.process_time()
        run()
        best = min(best, time.process_time() - begun)
    return best


def share_of(which: str, n: int) -> str:
    """Return one line: seconds of a measurement, and of its errors."""
    import torch

    from benchmarks.cka_replay import RunWriter, save
    from mlmodeldev.alignment import CKA
    from mlmodeldev.alignment.capture import Capture

    with tempfile.TemporaryDirectory() as folder:
        save(which, n, f"{folder}/forward.pt")
        recorded = torch.load(f"{folder}/forward.pt", mmap=True, weights_only=True)
        model, layers = RunWriter(recorded).eval(), recorded["layers"]
        metric, plain = CKA(layers, groups=BATCHES), CKA(layers)

        def one_batch() -> Any:
            with Capture(model, layers, plain.gram, pooling="none") as capture:
                model(torch.zeros(n, 1))
                grams = capture.take()
                plain.update(grams)
            return grams

        grams = one_batch()
        replayed = fastest(3, lambda: model(torch.zeros(n, 1)))
        batch = fastest(5, one_batch) - replayed
    for _ in range(BATCHES):
        metric.update(grams)
    summed = fastest(BATCHES, lambda: metric.update(grams))
    summed -= fastest(BATCHES, lambda: plain.update(grams))
    metric.compute()
    errors = BATCHES * max(summed, 0.0) + fastest(5, metric.significance)
    whole = BATCHES * batch
    return (
        f"{which} n={n}: {whole:.3f} s a measurement, errors {errors:.3f} s, {errors / whole:.2%}"
    )


def main() -> None:
    """Print a line for each model and batch size."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet", "vit"])
    parser.add_argument("--batch", nargs="+", type=int, default=[64])
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for which in given.models:
        for n in given.batch:
            print(share_of(which, n), flush=True)


if __name__ == "__main__":
    main()
