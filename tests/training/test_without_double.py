"""A device that refuses float64, as Apple's GPUs do: a trial trains there, and measures CKA.

There is none here. `Apple` stands in for its tensors: what a model makes of them is of the same
kind, says that it is on ``mps``, and raises what torch raises there where it would become float64.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mlmodeldev.alignment import CKA, FullSetCKA
from mlmodeldev.callbacks.soundness import widest
from tests.conftest import Trials

SMALL = (
    "logger=csv",
    "training.limit_train_batches=4",
    "training.limit_val_batches=2",
    "training.max_epochs=2",
    "artefacts.rehearsal=true",
    "model.hidden_size=16",
    "model.num_layers=1",
    "callbacks.cka.max_batches=2",
)
REFUSAL = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
)


CPU = torch.device("cpu")


class Apple(Tensor):
    """A tensor on a device without float64."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("mps", 0)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func is Tensor.cpu:
            return result.as_subclass(Tensor)
        if isinstance(result, Apple) and result.dtype == torch.float64:
            raise TypeError(REFUSAL)
        return result


class Factories(TorchFunctionMode):
    """What is made on that device, or moved there, is of that kind too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_there = any(map(_is_there, [*args, *kwargs.values()]))
        result = func(*map(_here, args), **{k: _here(each) for k, each in kwargs.items()})
        return there(result) if is_there and isinstance(result, Tensor) else result


def _is_there(value: Any) -> bool:
    return isinstance(value, torch.device) and value.type == "mps"


def _here(value: Any) -> Any:
    """Return the CPU for that device, any other value as it is."""
    return CPU if _is_there(value) else value


def there(tensor: Tensor) -> Tensor:
    """Return a tensor as it is on that device."""
    if tensor.dtype == torch.float64:
        raise TypeError(REFUSAL)
    return tensor.as_subclass(Apple)


def bring_batches_there() -> None:
    """In a trial's process: the model gets its batches on that device."""
    import model

    def taking(step: Any) -> Any:
        def run(self: Any, batch: Any, *given: Any) -> Any:
            return step(self, apply_to_collection(batch, Tensor, there), *given)

        return run

    Factories().__enter__()
    for name in ("training_step", "validation_step", "test_step"):
        setattr(model.DualEncoder, name, taking(getattr(model.DualEncoder, name)))


def test_a_trial_is_what_it_is_where_there_is_float64(trials: Trials) -> None:
    usual = trials.run(*SMALL, name="usual")
    apple = trials.run(*SMALL, name="apple", patch=bring_batches_there)
    assert (usual.code, apple.code) == (0, 0), apple.output
    assert apple.rows == usual.rows
    assert apple.log[-1]["cka/mean_diagonal"] == usual.log[-1]["cka/mean_diagonal"]
    weights = [
        (trial.folder / "last" / "model.safetensors").read_bytes() for trial in (usual, apple)
    ]
    assert weights[0] == weights[1]


def test_the_stand_in_refuses_what_the_device_refuses() -> None:
    features = there(torch.randn(6, 4))
    assert isinstance(features @ features.T, Apple)
    assert features.device.type == "mps"
    for convert in (
        Tensor.double,
        lambda x: x.to(torch.float64),
        lambda x: torch.add(x, torch.ones(4).double()),
    ):
        with pytest.raises(TypeError, match="MPS"):
            convert(features)
    assert type(features.cpu().double()) is Tensor


@pytest.mark.parametrize("kind", [CKA, FullSetCKA])
def test_a_metric_stays_where_float64_is(kind: Any) -> None:
    features = {name: torch.randn(16, 5) for name in ("a", "b")}
    usual, apple = kind(["a", "b"]), kind(["a", "b"])
    usual.update(features)
    apple._apply(there)  # as a module moves its parts
    apple.update({name: there(each) for name, each in features.items()})
    assert torch.equal(apple.compute(), usual.compute())
    assert apple.compute().dtype == torch.float64
    assert torch.isnan(kind(["a"]).compute()).all()


def test_the_widest_type_of_a_device() -> None:
    assert widest(torch.device("mps")) == torch.float32
    assert widest(torch.device("cpu")) == widest(torch.device("cuda")) == torch.float64
