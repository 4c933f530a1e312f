"""``model.onnx``: a model's forward as ONNX, checked against torch's own outputs.

The number of examples is left open, and the number of tokens where the model takes any. What ONNX
gets is a function of tensors alone: entries of mappings, sequences and dataclasses become inputs
and outputs by their names; what forward does not read is left out, as are outputs that have no
row an example (a loss), unless there are no others.

Example::

    facts = write_onnx(module, call, folder / "model.onnx")
    facts["inputs"]     # {"image": {"type": "float32", "shape": ["batch", 1, 8, 8]}}
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from mlmodeldev.callbacks.example_inputs import Call, has_own, named, tensors_in
from mlmodeldev.callbacks.onnx_check import CannotExport, cause, check, count, first_line
from mlmodeldev.errors import UsageError

FILE = "model.onnx"
TRACED, OTHERS = 3, (5, 1)
"""Examples in the batch that is traced, and in the batches that are tried besides."""

Outputs = dict[str, Tensor]


def write_onnx(module: LightningModule, call: Call | None, file: Path) -> dict[str, Any]:
    """Write a model as ONNX, in single precision where it has half; the module is left alone.

    Weights lie in the file; above ONNX's limit of 2 GB in one beside it, of the same name and
    ``.data``.

    Args:
        module: any; its forward is what is written.
        call: how forward is called.
        file: to write; one that is not right is removed again.

    Returns:
        the file's name, ONNX's opset, inputs and outputs with their types and shapes, and the
        largest difference to torch's outputs.

    Raises:
        CannotExport: ONNX lacks an operator, forward can't be traced, or the outputs differ.
    """
    flat, call = _function(module, call)
    with torch.no_grad(), _silently():
        wanted = {size: _same_twice(flat, call.rows(size)) for size in (TRACED, *OTHERS)}
        flat.kept = _of_examples(wanted)
        tokens = _tokens(flat, call)
        for lengths in [tokens, {}] if tokens else [{}]:
            try:
                return _written(flat, call, lengths, file)
            except CannotExport:
                for part in (file, file.with_name(f"{file.name}.data")):
                    part.unlink(missing_ok=True)
                if not lengths:
                    raise
    raise AssertionError


class _Flat(nn.Module):
    """A model as a function of tensors alone.

    Attributes:
        kept: names of the outputs to return; None: all.
    """

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module, self.call = module, call
        self.kept: list[str] | None = None
        self.eval()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.outputs(tensors).values())

    def outputs(self, tensors: Iterable[Tensor]) -> Outputs:
        """Return the outputs by name."""
        args, kwargs = self.call.with_tensors(tensors)
        given = named(tensors_in({"output": self.module(*args, **kwargs)}))
        made = {_output_name(name, self.call): tensor for name, tensor in given.items()}
        return made if self.kept is None else {name: made[name] for name in self.kept}


def _output_name(name: str, call: Call) -> str:
    """Return a name that no input has: in ONNX both are names of one graph."""
    name = name.replace("output.", "output_") if name.startswith("output.") else name
    return f"output_{name}" if name in call.tensors else name


def _function(module: LightningModule, call: Call | None) -> tuple[_Flat, Call]:
    from mlmodeldev.alignment.replay import copy_of

    kind = type(module).__name__
    if not has_own(module, "forward"):
        raise CannotExport(f"{kind} has no forward")
    if call is None or not call.tensors:
        raise CannotExport(f"nothing tells what {kind}'s forward takes (set example_input_array)")
    if not call.batched:
        raise CannotExport(f"{kind}'s forward takes no tensor with a row an example")
    try:
        twin = copy_of(module).cpu()
    except UsageError as error:
        raise CannotExport(str(error).removeprefix("cka: ")) from None
    if any(value.dtype in _HALF for value in twin.state_dict().values() if _is_tensor(value)):
        twin = twin.float()
        call.tensors = {n: t.float() if t.dtype in _HALF else t for n, t in call.tensors.items()}
    return _Flat(twin, call), call


_HALF = (torch.float16, torch.bfloat16)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


# --- what torch itself gives


def _same_twice(flat: _Flat, rows: Mapping[str, Tensor]) -> Outputs:
    """Return the model's outputs; refuse those that are drawn at random."""
    try:
        first, second = (flat.outputs([t.clone() for t in rows.values()]) for _ in range(2))
    except Exception as error:
        raise CannotExport(
            f"forward fails on {count(rows)} examples: {first_line(error)}"
        ) from error
    for name, tensor in first.items():
        if not torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(second[name])):
            raise CannotExport("forward draws random numbers, also in eval mode")
    return first


def _of_examples(wanted: Mapping[int, Outputs]) -> list[str]:
    """Return the names of outputs that have a row an example; of all, where none has."""
    names = list(wanted[TRACED])
    if not names:
        raise CannotExport("forward returns no tensor")
    have_rows = [
        name
        for name in names
        if all(each[name].ndim and len(each[name]) == size for size, each in wanted.items())
    ]
    return have_rows or names


def _tokens(flat: _Flat, call: Call) -> dict[str, int]:
    """Return inputs (batch, tokens) of which forward takes fewer, too, with the half of them."""
    halves = {
        name: tensor.shape[1] // 2
        for name, tensor in call.tensors.items()
        if name in call.batched and tensor.ndim == 2 and not tensor.dtype.is_floating_point
    }
    if not halves or min(halves.values()) < 2:
        return {}
    try:
        flat.outputs(_shorter(call.rows(TRACED), halves).values())
    except Exception:  # as many tokens as in training, then
        return {}
    return halves


def _shorter(rows: Mapping[str, Tensor], lengths: Mapping[str, int]) -> dict[str, Tensor]:
    return {n: t[:, : lengths[n]] if n in lengths else t for n, t in rows.items()}


# --- ONNX


def _written(flat: _Flat, call: Call, lengths: Mapping[str, int], file: Path) -> dict[str, Any]:
    program = _exported(flat, call, lengths)
    model = program.model
    _tidy(model)
    batches = [call.rows(size) for size in (TRACED, *OTHERS)]
    if any(_has_length(value) for value in model.graph.inputs):
        batches += [_shorter(rows, lengths) for rows in batches]
    program.save(file)
    _check_open(model.graph.inputs, call)
    pairs = [(rows, flat.outputs([t.clone() for t in rows.values()])) for rows in batches]
    difference = check(file, pairs)
    facts = {part: _described(getattr(model.graph, part)) for part in ("inputs", "outputs")}
    return {
        "file": file.name,
        "opset": model.opset_imports[""],
        **facts,
        "largest_difference": difference,
    }


def _exported(flat: _Flat, call: Call, lengths: Mapping[str, int]) -> Any:
    batch, free = torch.export.Dim("batch"), torch.export.Dim.AUTO
    rows = call.rows(TRACED)
    shapes = tuple(
        {**({0: batch} if name in call.batched else {}), **({1: free} if name in lengths else {})}
        for name in rows
    )
    assert flat.kept is not None
    try:
        return torch.onnx.export(
            flat,
            tuple(rows.values()),
            dynamo=True,
            verbose=False,
            dynamic_shapes=(shapes,),
            input_names=list(rows),
            output_names=flat.kept,
        )
    except Exception as error:
        raise CannotExport(cause(error)) from error


def _tidy(model: Any) -> None:
    """Remove inputs that nothing reads, and where in whose code a node comes from."""
    graph = model.graph
    returned = {id(value) for value in graph.outputs}
    for value in list(graph.inputs):
        if not value.uses() and id(value) not in returned:
            graph.inputs.remove(value)
    names = _lengths([*graph.inputs, *graph.outputs])
    for part in (model, graph, *graph.initializers.values()):
        part.metadata_props.clear()
    for value in graph.inputs:
        _rename_dims(value, names)
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            _rename_dims(value, names)


def _lengths(values: Sequence[Any]) -> dict[str, str]:
    """Return names for the open sizes that torch has only numbered: length, length_2 ..."""
    names: dict[str, str] = {}
    for value in values:
        for dim in value.shape or ():
            name = str(getattr(dim, "value", dim))
            if re.fullmatch(r"s\d+", name) and name not in names:
                names[name] = f"length_{len(names) + 1}" if names else "length"
    return names


def _rename_dims(value: Any, names: Mapping[str, str]) -> None:
    for place, dim in enumerate(value.shape or ()):
        name = str(getattr(dim, "value", dim))
        if name in names:
            value.shape[place] = names[name]


def _has_length(value: Any) -> bool:
    return any(str(getattr(dim, "value", "")).startswith("length") for dim in value.shape)


def _check_open(inputs: Sequence[Any], call: Call) -> None:
    for value in inputs:
        if value.name in call.batched and isinstance(value.shape[0], int):
            raise CannotExport("forward branches on the number of examples")


def _described(values: Sequence[Any]) -> dict[str, Any]:
    return {
        value.name: {
            "type": str(value.dtype.numpy()),
            "shape": [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape],
        }
        for value in values
    }


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """Keep what the exporter prints, logs and warns of to itself."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(_CHATTY)]
    loggers = [logging.getLogger(name) for name in (*names, *_CHATTY)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(reversed(loggers), reversed(levels), strict=True):
            logger.setLevel(level)


_CHATTY = ("torch.", "torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")
"""Beginnings of the names of loggers; the second is a module's that is imported on the way."""
