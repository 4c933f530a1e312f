"""What a model card says of ``model.onnx``: its inputs, its outputs, and how to run it.

Example::

    onnx_section(state["onnx"])     # "## ONNX ..."; empty where there is no such file
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlmodeldev.callbacks.onnx_check import TOLERANCE


def onnx_section(facts: Mapping[str, Any] | None) -> str:
    """Return a section of the card.

    Args:
        facts: what `mlmodeldev.callbacks.onnx_file.write_onnx` has returned; none, or why there
            is no such file, gives an empty section.
    """
    if not facts or "failed" in facts:
        return ""
    sizes = {dim for each in facts["inputs"].values() for dim in each["shape"]} & {*_MEANINGS}
    return _SECTION.format(
        file=facts["file"],
        opset=facts["opset"],
        tolerance=f"{TOLERANCE:g}",
        sizes=", ".join(f"`{name}` {_MEANINGS[name]}" for name in _MEANINGS if name in sizes),
        inputs="\n".join(f"        {line}" for line in _arrays(facts["inputs"])),
        outputs="\n".join(f"# {line}" for line in _outputs(facts["outputs"])),
    )


_MEANINGS = {
    "batch": "is any number of examples",
    "length": "any number of tokens that the model takes",
}

_SECTION = """
## ONNX

`{file}` (opset {opset}) gives what torch gives, within {tolerance} on the training data; {sizes}.

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("path/of/this/folder/{file}")
outputs = session.run(
    None,
    {{
{inputs}
    }},
)
{outputs}
```
"""


def _arrays(inputs: Mapping[str, Any]) -> list[str]:
    """Return an entry of the inputs' mapping for each, of one example."""
    lines = []
    for name, each in inputs.items():
        shape = ", ".join(
            str(dim if isinstance(dim, int) else _ONE.get(dim, 8)) for dim in each["shape"]
        )
        shape += "," if len(each["shape"]) == 1 else ""
        lines.append(f'"{name}": np.ones(({shape}), np.{_numpy(each["type"])}),  # {_shape(each)}')
    return lines


_ONE = {"batch": 1}


def _numpy(name: str) -> str:
    return "bool_" if name == "bool" else name


def _outputs(outputs: Mapping[str, Any]) -> list[str]:
    return [
        f"outputs[{n}]: {name} {_shape(each)}" for n, (name, each) in enumerate(outputs.items())
    ]


def _shape(each: Mapping[str, Any]) -> str:
    return f"({', '.join(map(str, each['shape']))})"
