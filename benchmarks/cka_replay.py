"""A model's forward pass, recorded once and played again, so that only CKA is measured.

    recording = record("vit", 64)                 # one real forward of a transformers model
    model = Replay(recording)                     # the same layer names, the same outputs
    model(torch.zeros(64, 1))                     # hooks see fresh copies, in call order

A benchmark that subtracts forward passes of half a minute from each other measures their noise. A
replayed forward is a copy of each output, cheap and the same for every implementation; what an
implementation keeps alive counts as its memory, as in a real forward.
"""

from __future__ import annotations

import re
import time
from typing import Any

import torch
from torch import Tensor, nn


def build(which: str) -> tuple[Any, list[str], tuple[int, ...]]:
    """Return a model with random weights, the names of its measured layers, an image's shape."""
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

    if which == "vit":
        vit = ViTModel(ViTConfig(patch_size=32)).eval()
        part = r"layers\.\d+(\.attention|\.mlp|\.layernorm_before|\.layernorm_after|\.mlp\.fc2)?"
        return vit, [n for n, _ in vit.named_modules() if re.fullmatch(part, n)], (3, 224, 224)
    sizes: dict[str, Any] = {
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
        "embedding_size": 64,
    }
    resnet = ResNetModel(ResNetConfig(layer_type="basic", **sizes)).eval()
    leaf = r".*(convolution|normalization|activation)"
    return resnet, [n for n, _ in resnet.named_modules() if re.fullmatch(leaf, n)], (3, 64, 64)


def record(which: str, n: int) -> dict[str, Any]:
    """Return outputs by layer in call order, names in registration order, and forward seconds."""
    torch.manual_seed(0)
    model, layers, shape = build(which)
    outputs: dict[str, Tensor] = {}
    copying = 0.0

    def hook(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal copying
            begun = time.process_time()
            outputs[name] = (output[0] if isinstance(output, tuple) else output).clone()
            copying += time.process_time() - begun

        return keep

    images = torch.randn(n, *shape)
    model(images[:8])
    modules = dict(model.named_modules())
    for name in layers:
        modules[name].register_forward_hook(hook(name))
    start = time.process_time()
    model(images)
    forward = time.process_time() - start - copying
    exact = {how: exact_cka(outputs, layers, how == "biased") for how in ("unbiased", "biased")}
    return {"layers": layers, "outputs": outputs, "forward": forward, "exact": exact}


def save(which: str, n: int, path: str) -> None:
    """Record to a file, on one thread and without gradients."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.save(record(which, n), path)


class Layer(nn.Module):
    """A module that gives a fresh copy of what was recorded for it."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Tensor | None = None

    def forward(self) -> Tensor:
        """Return the recorded output, copied."""
        assert self.output is not None
        return self.output.clone()


class RunWriter(nn.Module):
    """A model whose `named_modules` and outputs are those of a recording."""

    def __init__(self, recording: dict[str, Any]) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))  # some implementations ask it for the device
        for name in recording["layers"]:
            self._at(name)
        self.calls = list(recording["outputs"])
        for name, output in recording["outputs"].items():
            self._at(name).output = output

    def _at(self, name: str) -> Layer:
        module: nn.Module = self
        for part in name.split("."):
            if part not in module._modules:
                module.add_module(part, Layer())
            module = module.get_submodule(part)
        assert isinstance(module, Layer)
        return module

    def forward(self, images: Tensor) -> Tensor:
        """Run the layers in the order in which they ran when recorded."""
        for name in self.calls:
            self.get_submodule(name)()
        return images


def exact_cka(outputs: dict[str, Tensor], layers: list[str], biased: bool) -> Tensor:
    """Return CKA of one batch from the definition, in double precision on centred features."""
    grams = []
    for name in layers:
        x = outputs[name].flatten(1).double()
        x = x - x.mean(0)
        k = x @ x.T
        if not biased:  # U-centring (Székely & Rizzo 2014), another road to HSIC1 than ours
            n = len(k)
            k.fill_diagonal_(0)
            rows = k.sum(0) / (n - 2)
            k = k - rows - rows[:, None] + k.sum() / ((n - 1) * (n - 2))
            k.fill_diagonal_(0)
        grams.append((k / k.norm()).flatten())
    stacked = torch.stack(grams)
    return stacked @ stacked.T
