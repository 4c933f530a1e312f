"""Whether ``model.onnx`` gives what torch gives, and in one line why there can be none.

Example::

    check(folder / "model.onnx", [({"x": x}, {"output": model(x)})])    # 1.2e-07
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mlmodeldev.secrets import masked

TOLERANCE = 1e-5
"""Of the difference to torch's outputs, times the largest of them where that is above one."""

Outputs = Mapping[str, Tensor]


class CannotExport(Exception):
    """ONNX can't express the model; says why in one line."""


_PROVIDER = "CPUExecutionProvider"


def check(file: Path, batches: Sequence[tuple[Outputs, Outputs]]) -> float:
    """Run the file on batches, and compare with torch; return the largest difference.

    Args:
        file: a ``model.onnx``.
        batches: inputs and torch's outputs of each, both by name.

    Raises:
        CannotExport: a difference is too large, or the file can't be run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    session, largest = None, 0.0
    for rows, wanted in batches:
        try:
            session = session or onnxruntime.InferenceSession(file, options, [_PROVIDER])
            read = [each.name for each in session.get_inputs()]
            given = session.run(None, {name: rows[name].numpy() for name in read})
        except Exception as error:
            raise CannotExport(f"ONNX's runtime can't run it: {first_line(error)}") from error
        for (name, tensor), array in zip(wanted.items(), given, strict=True):
            where = f"output {name} of {count(rows)} examples"
            largest = max(largest, _difference(tensor, torch.as_tensor(array), where))
    return largest


def _difference(wanted: Tensor, given: Tensor, where: str) -> float:
    if wanted.shape != given.shape:
        shapes = f"{tuple(given.shape)}, in torch {tuple(wanted.shape)}"
        raise CannotExport(f"{where} has the shape {shapes}: it depends on the traced batch")
    same = (wanted == given) | ((wanted != wanted) & (given != given))  # noqa: PLR0124
    apart = torch.where(same, 0.0, (wanted.double() - given.double()).abs())
    difference = float(apart.max()) if apart.numel() else 0.0
    finite = wanted[torch.isfinite(wanted)] if wanted.is_floating_point() else wanted[:0]
    scale = max(1.0, float(finite.abs().max()) if finite.numel() else 0.0)
    if not difference <= TOLERANCE * scale:
        raise CannotExport(f"{where} differs from torch's by {difference:.2g}")
    return difference / scale


def count(rows: Mapping[str, Tensor]) -> int:
    """Return the number of examples of a batch."""
    return max(len(tensor) for tensor in rows.values() if tensor.ndim)


# --- why there is none


def cause(error: BaseException) -> str:
    """Return what torch's exporter fails for: the operator, or the innermost reason."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) and inner not in chain:
        chain.append(inner)
    for each in chain:
        if match := re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(each)):
            return f"ONNX has no operator for {match[1]}"
    for each in chain:
        if type(each).__name__ == "GuardOnDataDependentSymNode":
            return "forward branches on the values of its inputs" + _line_of(each)
    return first_line(chain[-1])


def _line_of(error: BaseException) -> str:
    """Return the line of the user's code that torch names, if it does."""
    lines = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s+(.+)', str(error))
    own = [each for each in lines if "site-packages" not in each[0] and each[2] == "forward"]
    return f" ({Path(own[-1][0]).name}:{own[-1][1]}: {own[-1][3].strip()})" if own else ""


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return masked(f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}", 300)
