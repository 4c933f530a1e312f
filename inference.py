"""Try a trained model by hand: arguments, a file, or an interactive prompt.

    python inference.py runs/single/ab12cd34 "The cat sat."
    python inference.py ab12cd34 seven.png                     the digit's label
    python inference.py ab12cd34 seven.png --text "a seven" --text "a one"
    python inference.py ab12cd34 --file sentences.txt --json   one input a line
    python inference.py ab12cd34                               asks for one input after the other
    python inference.py ab12cd34 "Once upon" --tokens 200      a language model goes on
    python inference.py ab12cd34 example.npy                   any other model: an example
    python inference.py models:/digits@champion seven.png      a registered model

Prints label and probability of each input; of a language model the input and how it goes on (the
same again for the same --seed). A model with neither `predict` nor `continue_texts` takes an
example in a .pt, .npy or .json file, as the data give it, and what it gives (predict_step, forward)
is printed as JSON. Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError, nearest

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Writing:
    """How a language model goes on: how many tokens, from which seed, how freely (0: greedily)."""

    tokens: int
    seed: int
    temperature: float


class Predictor:
    """An exported model together with what it needs to read its inputs.

    Args:
        folder: ``best/`` or ``last/`` of a trial.

    Raises:
        UsageError: the folder holds no export of a model that can predict.
    """

    def __init__(self, folder: Path) -> None:
        from inspect import signature

        from mlmodeldev.settings.renamed import current_arguments
        from mlmodeldev.training.load import find_class, load, read_state

        if not (folder / "training_state.json").is_file():
            raise UsageError(f"{folder}: no export here (a trial writes it when it is done)")
        self.folder = folder
        self.state = read_state(folder)
        from mlmodeldev.training.quiet import quiet

        quiet()
        kind: Any = find_class(folder, self.state["settings"]["model"]["_target_"])
        self.labels = hasattr(kind, "load") and hasattr(kind, "predict")
        self.writes = hasattr(kind, "load") and hasattr(kind, "continue_texts")
        if self.labels or self.writes:
            arguments = current_arguments(self.state["model_arguments"], signature(kind).parameters)
            self.model = kind.load(folder, arguments)
        else:
            self.model = load(folder)

    def __call__(self, inputs: list[str], texts: list[str]) -> list[dict[str, float]]:
        """Return the probabilities of each input; texts beside images are candidate captions."""
        images = [Path(item) for item in inputs if Path(item).suffix.lower() in IMAGE_ENDINGS]
        if images and len(images) < len(inputs):
            raise UsageError("give images or texts, not both (captions of images go to --text)")
        sentences = texts if images else [*inputs, *texts]
        result: list[dict[str, float]] = self.model.predict(
            images, sentences, self.folder, self.state["data"]
        )
        return result

    def continued(self, text: str, writing: Writing) -> str:
        """Return how a language model goes on after a text."""
        if Path(text).suffix.lower() in IMAGE_ENDINGS:
            raise UsageError(f"{text}: this model continues texts, and takes no images")
        (result,) = self.model.continue_texts([text], self.folder, **asdict(writing))
        return str(result)


def find_export(trial: str, runs_dir: Path, weights: str) -> Path:
    """Return the export of a trial named by its folder, its export's folder or its id.

    ``models:/NAME@ALIAS`` and ``models:/NAME/VERSION`` name a registered model.

    Raises:
        UsageError: there is no such trial, or there are several.
    """
    if trial.startswith("models:/"):
        from mlmodeldev.tracking.registry import model_folder

        return model_folder(trial, runs_dir)
    path = Path(trial)
    if path.is_dir():
        return path if (path / "training_state.json").is_file() else path / weights
    # beside the sweeps lie hidden folders, of registered models for one
    every = [path for path in runs_dir.glob("*/*") if not path.parent.name.startswith(".")]
    folders = [folder for folder in every if folder.name == trial]
    if len(folders) == 1:
        return folders[0] / weights
    if folders:
        raise UsageError(f"{trial}: in several sweeps, name one by its path: {_listed(folders)}")
    names = [folder.name for folder in every if not folder.name.startswith(".")]
    raise UsageError(
        f"{trial}: no such folder, and no such trial in {runs_dir}{nearest(trial, names)}"
    )


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, sorted(paths)))


def predict(
    predictor: Predictor, inputs: list[str], texts: list[str], as_json: bool, writing: Writing
) -> None:
    """Print label and probability of each input, or what a model without labels gives."""
    if predictor.writes and not predictor.labels:
        for item in [*inputs, *texts]:
            continuation = predictor.continued(item, writing)
            answer = {"input": item, "continuation": continuation, **asdict(writing)}
            text = json.dumps(answer, ensure_ascii=False) if as_json else item + continuation
            print(text, flush=True)
        return
    if not predictor.labels:
        from mlmodeldev.training.predict_example import read_example, run_example

        if texts:
            raise UsageError("--text: captions are for models that have predict; this one has not")
        for item in inputs:
            output = run_example(predictor.model, read_example(item))
            print(json.dumps({"input": item, "output": output}), flush=True)
        return
    for item, row in zip(inputs or texts, predictor(inputs, texts), strict=True):
        label = max(row, key=lambda name: row[name])
        if as_json:
            answer = {"input": item, "label": label, "probability": row[label], "all": row}
            print(json.dumps(answer, ensure_ascii=False), flush=True)
        else:
            print(f"{label}  {row[label]:.3f}  {item}", flush=True)


def input_lines() -> Iterator[str]:
    """Yield the lines of standard input, with a prompt in a terminal, until its end."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trial", help="a trial's id or folder, or models:/NAME@champion")
    parser.add_argument("inputs", nargs="*", help="texts, or paths of images or examples")
    parser.add_argument("--text", action="append", default=[], help="candidate caption of images")
    parser.add_argument("--file", type=Path, help="file with an input on each line")
    parser.add_argument(
        "--tokens", type=int, default=100, help="of a language model, at most (100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of a language model's draws (0)")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="of its draws (0.8); 0: the likeliest token"
    )
    parser.add_argument("--weights", choices=["best", "last"], default="best")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Answer the command line."""
    args = parse(arguments)
    if args.tokens < 1 or args.seed < 0 or not 0 <= args.temperature < float("inf"):
        raise UsageError("--tokens must be at least 1, --seed and --temperature at least 0")
    writing = Writing(args.tokens, args.seed, args.temperature)
    export = find_export(args.trial, args.runs_dir, args.weights)
    inputs = list(args.inputs)
    if args.file:
        try:
            lines = args.file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--file {args.file}: {error}") from None
        inputs += [line for line in lines if line.strip()]
    predictor = Predictor(export)
    if inputs or args.file:
        predict(predictor, inputs, args.text, args.json, writing)
        return
    for line in input_lines():
        try:
            predict(predictor, [line], args.text, args.json, writing)
        except UsageError as error:  # a slip at the prompt is no reason to leave
            print(error, file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        print(f"inference.py: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
