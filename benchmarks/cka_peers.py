"""Public implementations of CKA, each run as its documentation says, for `benchmarks/cka.py`.

    matrix = PEERS["pytorch_cka"](model, ["layers.0", "layers.1"], loader)   # (2, 2)

They are no dependencies of this project: several bring torchvision or another version of
Lightning. They live in an environment of their own::

    python -m venv PEERS && PEERS/bin/pip install torch==2.13.0
    PEERS/bin/pip install pytorch_cka cka_pytorch ckatorch torch_cka simtorch
    python benchmarks/cka.py --peers PEERS/bin/python

Of the names tried, anatome is not on the index. Each function returns CKA of `layers` with
themselves, in the order of `layers`, whatever order the peer gives them in.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Peer = Callable[[Any, Sequence[str], "DataLoader[Any]"], Tensor]


def batches_of(n: int, batches: int, fields: int = 2) -> DataLoader[Any]:
    """Return a loader of stand-in images: the replayed model gives its outputs whatever it gets."""
    images = torch.zeros(n * batches, 1)
    return DataLoader(TensorDataset(*[images] * fields), batch_size=n)


def pytorch_cka(model: Any, layers: Sequence[str], loader: DataLoader[Any]) -> Tensor:
    """PyPI `pytorch_cka` 1.1: HSIC1, uncentred float32, all features kept."""
    from cka.cka import compute_cka

    matrices = compute_cka(model, model, loader, layers=list(layers), device="cpu", progress=False)
    return matrices[0]


def cka_pytorch(model: Any, layers: Sequence[str], loader: DataLoader[Any]) -> Tensor:
    """PyPI `cka_pytorch` 1.1 (numpee/CKA.pytorch's line): HSIC1 pair by pair, in groups of 64."""
    from cka_pytorch.cka import CKACalculator

    tool = CKACalculator(model, model, model1_layers=list(layers), verbose=False)
    matrix = tool.calculate_cka_matrix(loader, num_epochs=1)
    return _in_order(matrix, tool.hook_manager1.module_names, layers)


def torch_cka(model: Any, layers: Sequence[str], loader: DataLoader[Any]) -> Tensor:
    """PyPI `torch_cka` 0.21 (AntixK): HSIC1, every Gram again for every pair.

    Its values come in call order under labels in registration order; here they get the right ones.
    """
    from torch_cka import CKA

    tool = CKA(model, model, "a", "b", list(layers), list(layers), device="cpu")
    tool.compare(loader)
    return _in_order(tool.hsic_matrix, list(tool.model1_features), layers)


def simtorch(model: Any, layers: Sequence[str], loader: DataLoader[Any]) -> Tensor:
    """PyPI `simtorch` 0.2: HSIC0, ratios averaged (over the number of layers, by mistake)."""
    from simtorch.model.sim_model import SimilarityModel
    from simtorch.similarity.cka import CKA

    seen = SimilarityModel(model, layers_to_include=list(layers))
    matrix = torch.as_tensor(CKA(seen, seen).compute(loader))
    return _in_order(matrix, list(seen.model_activations), layers)


def ckatorch(model: Any, layers: Sequence[str], loader: DataLoader[Any]) -> Tensor:
    """PyPI `ckatorch` 1.0: wants (batches, samples, features), so takes tokens for samples."""
    from ckatorch.cka import CKA

    tool = CKA(model, model, list(layers))
    matrix = tool(batches_of(loader.batch_size or 1, len(loader), fields=1), epochs=1)
    return _in_order(matrix, list(tool.first_features), layers)


PEERS: dict[str, Peer] = {
    "pytorch_cka": pytorch_cka,
    "cka_pytorch": cka_pytorch,
    "torch_cka": torch_cka,
    "simtorch": simtorch,
    "ckatorch": ckatorch,
}
BATCHES = {"cka_pytorch": 2, "torch_cka": 1, "simtorch": 1, "ckatorch": 1}
"""Batches for those that take seconds for each."""
SLOW = {"torch_cka", "simtorch", "ckatorch"}
"""Measured on the smallest case only: beyond it, minutes a batch."""
BIASED = {"simtorch"}
"""Those that compute HSIC0, which is what their numbers are compared with."""


def run(name: str, model: Any, layers: Sequence[str], n: int, batches: int) -> Tensor:
    """Return the matrix of one peer, without its warnings and progress bars."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return PEERS[name](model, layers, batches_of(n, batches))


def _in_order(matrix: Tensor, given: Sequence[str], wanted: Sequence[str]) -> Tensor:
    places = [list(given).index(name) for name in wanted]
    return matrix[places][:, places]
