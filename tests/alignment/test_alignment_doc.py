"""The settings on docs/alignment.md, each block in a trial of the digits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "alignment.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
SMALL = (
    "logger=csv",
    "training.max_epochs=1",
    "training.limit_train_batches=3",
    "training.limit_val_batches=2",
    "training.test=false",
    "processing.batch_size=16",
    "model.hidden_size=16",
    "model.num_layers=1",
)


EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def arguments(block):
    """Return the block as arguments of the command line."""
    lines = []
    for key, value in block["cka"].items():
        shown = yaml.safe_dump(value, default_flow_style=True, width=9999).splitlines()[0]
        mark = "+" if key == "compare" else ""
        for name, one in value.items() if key == "compare" else [("", shown)]:
            text = (
                "{" + ",".join(f"{k}: {_quoted(v)}" for k, v in one.items()) + "}" if name else one
            )
            lines.append(f"{mark}callbacks.cka.{key}{'.' + name if name else ''}={text}")
    return lines


def _quoted(value):
    return "[" + ",".join(map(_quoted, value)) + "]" if isinstance(value, list) else f"'{value}'"


def matrices(ended):
    return {path.parent.name: np.load(path) for path in ended.folder.glob("cka/*/epoch-0001.npz")}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(num_hidden_layers=1, image_size=8, patch_size=2, num_channels=1, **sizes)
    folder = tmp_path_factory.mktemp("encoder")
    ViTModel(config).save_pretrained(folder)
    return folder


def test_the_examples_in_python() -> None:
    draw = torch.Generator().manual_seed(0)
    loader = [torch.randn(8, 5, generator=draw) for _ in range(2)]
    names = {"loader": loader, "conv": torch.nn.Linear(5, 3), "head": torch.nn.Linear(5, 2)}
    for example in EXAMPLES:
        exec(example, names)
    assert names["matrix"].shape == (2, 2)
    assert len(EXAMPLES) == 2


def test_the_first_block(trials) -> None:
    ended = trials.run(*SMALL, *arguments(BLOCKS[0]))
    assert ended.code == 0, ended.output
    results = matrices(ended)
    assert set(results) == set(BLOCKS[0]["cka"]["compare"])
    measured = ("matrix", *BLOCKS[0]["cka"]["also"])
    assert all(np.isfinite(one[key]).all() for one in results.values() for key in measured)


def test_the_block_of_encoders_and_earlier_trials(trials, encoder) -> None:
    first = trials.run(*SMALL, name="first")
    text = yaml.safe_dump(BLOCKS[1])
    text = text.replace("path/to/encoder", str(encoder))
    text = text.replace("runs/single/first/best", str(first.folder / "best"))
    ended = trials.run(*SMALL, *arguments(yaml.safe_load(text)), name="second")
    assert ended.code == 0, ended.output
    results = matrices(ended)
    assert set(results) == {"encoder", "earlier"}
    assert results["encoder"]["columns"].tolist() == ["layers.0"]
    assert results["earlier"]["columns"].tolist() == ["vision_model.layers.0"]
    # The same seed and data: the second trial ends as the first, and is like it in every layer.
    assert results["earlier"]["matrix"] == pytest.approx(1, abs=1e-6)


def test_inputs_that_are_named(trials, encoder) -> None:
    for entry, code in (("image", 0), ("picture", 2)):
        compare = {"a": "image.layers.*", "b": "layers.*", "against": str(encoder)}
        lines = arguments({"cka": {"compare": {"encoder": compare}}})
        ended = trials.run(
            *SMALL,
            *lines,
            f"+callbacks.cka.compare.encoder.inputs={{pixel_values: {entry}}}",
            name=entry,
        )
        assert ended.code == code, ended.output
    assert "map them with `inputs`" in ended.output


def test_an_encoder_that_can_not_take_the_pictures_is_one_line(trials, tmp_path) -> None:
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(num_hidden_layers=1, image_size=32, patch_size=8, **sizes)).save_pretrained(
        tmp_path / "coloured"
    )
    compare = {"a": "image.layers.*", "b": "layers.*", "against": str(tmp_path / "coloured")}
    ended = trials.run(*SMALL, *arguments({"cka": {"compare": {"encoder": compare}}}))
    assert ended.code == 2
    assert "ViTModel can't take this batch (pixel_values (16, 1, 8, 8)): Make sure" in ended.output
    assert "Traceback" not in ended.output
