"""Compare two trained models from the shell.

    python -m mlmodeldev.alignment runs/s/1/best runs/s/2/best --data probe.npz --layers 'layers.*'

A and B are exported folders, Hub names, or Lightning checkpoints (with --class). The same samples
go through both, and the matrix through the same code as in training: a picture and an .npz.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError

if TYPE_CHECKING:
    from mlmodeldev.alignment.results import Result


def parser() -> argparse.ArgumentParser:
    """Return the parser; nothing heavy is imported for ``--help``."""
    lines = (__doc__ or "").splitlines()
    result = argparse.ArgumentParser(
        prog="python -m mlmodeldev.alignment",
        description=lines[0],
        epilog="\n".join(lines[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("a", metavar="A", help="model of the rows: folder, Hub name or .ckpt")
    add("b", metavar="B", help="model of the columns; the same as A compares its own layers")
    add("--data", type=Path, required=True, help=".npz, .npy, .safetensors or .txt (a text a line)")
    add("--layers", nargs="+", required=True, metavar="PATTERN", help="layers of A, as 'layers.*'")
    add("--layers-b", nargs="+", metavar="PATTERN", help="layers of B (default: as --layers)")
    add(
        "--out",
        type=Path,
        default=Path("cka.png"),
        help="picture: .png, .svg or .pdf (%(default)s)",
    )
    add("--class", dest="class_path", metavar="MODULE:CLASS", help="LightningModule of a .ckpt")
    add("--samples", type=int, help="how many samples, chosen by --seed (default: all)")
    add("--batch-size", type=int, default=256, help="samples a batch (default: %(default)s)")
    add("--seed", type=int, default=0, help="order of the samples (default: %(default)s)")
    add("--estimator", default="unbiased", help="unbiased or biased (default: %(default)s)")
    add("--kernel", default="linear", help="linear or rbf (default: %(default)s)")
    add("--weighting", default="pairs", help="pairs, samples or equal (default: %(default)s)")
    add("--pooling", default="mean", help="mean, flatten, cls or none (default: %(default)s)")
    add(
        "--feature-correction",
        action="store_true",
        help="take each layer's features for a sample of more (unbiased, linear)",
    )
    add(
        "--permutations",
        type=int,
        default=0,
        help="random pairings of the samples, for p-values (default: %(default)s)",
    )
    return result


def compare(args: argparse.Namespace) -> Result:
    """Run both models over the data and return the matrix with all that belongs to it."""
    from mlmodeldev.alignment.capture import Capture, match_layers
    from mlmodeldev.alignment.inputs import open_model, read_batches, run
    from mlmodeldev.alignment.present import PresentCKA, size_of_batch
    from mlmodeldev.alignment.results import Result

    names, patterns = (args.a, args.b), (args.layers, args.layers_b or args.layers)
    models = [open_model(name, args.class_path) for name in names]
    layers = [match_layers(model, own) for model, own in zip(models, patterns, strict=True)]
    options = {"estimator": args.estimator, "weighting": args.weighting, "seed": args.seed}
    options |= {"permutations": args.permutations, "groups": 256}
    options |= {"feature_correction": args.feature_correction}
    differ = args.a != args.b or layers[0] != layers[1]
    metric = PresentCKA(layers[0], layers[1], args.kernel, paired=differ, **options)
    order = {"batch_size": args.batch_size, "samples": args.samples, "seed": args.seed}
    batches = [
        read_batches(args.data, name, model, **order)
        for name, model in zip(names, models, strict=True)
    ]
    for pair in zip(*batches, strict=True):
        seen: list[Any] = []
        for model, own, batch in zip(models, layers, pair, strict=True):
            with Capture(model, own, metric.gram, args.pooling) as capture:
                run(model, batch)
                seen.append(capture.take_usable())
        if args.a == args.b:  # one model: a layer that is on both sides meets itself
            seen = [(seen[1][0] | seen[0][0], seen[1][1] | seen[0][1]), None]
        metric.update(seen[0], seen[1], size_of_batch(pair[0]))
    result = Result.of(
        metric,
        args.out.stem,
        against=args.b,
        has_diagonal=differ,
        epoch=None,
    )
    if line := metric.new_line(args.out.stem):
        sys.stderr.write(f"warning: {line}\n")
    if not result.matrix.size:
        raise UsageError("none of the layers gives features to compare: choose others by --layers")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Write picture and matrix, print where they are; return the exit status."""
    args = parser().parse_args(arguments)
    try:
        if args.out.suffix not in (".png", ".svg", ".pdf"):
            raise UsageError(f"--out {args.out}: the suffix must be .png, .svg or .pdf")
        if args.batch_size < 4 or (args.samples or 4) < 4:
            raise UsageError("--batch-size and --samples must be 4 or more: CKA needs four samples")
        from mlmodeldev.alignment.pictures import save_figure
        from mlmodeldev.alignment.results import picture, save_matrix, scalars

        result = compare(args)

        figure = picture(result, title="", row_label=Path(args.a).name)
        save_figure(figure, args.out)
        save_matrix(result, args.out.with_suffix(".npz"))
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_BAD_INPUT
    for key, value in scalars(result).items():
        if "/mean" in key or key.endswith("/significant"):
            sys.stdout.write(f"{key.rpartition('/')[2]} {value:.4f}\n")
    if line := result.best_pair():
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{args.out}\n{args.out.with_suffix('.npz')}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
