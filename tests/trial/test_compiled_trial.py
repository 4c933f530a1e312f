"""A compiled trial computes by the compiler, is resumed bit for bit, and loads anywhere."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trial.test_resume import SMALL, assert_same

pytestmark = pytest.mark.slow
STEPS = ("training.checkpoint_every_n_steps=1", "training.max_epochs=1")


def _count_compilations() -> None:
    """Let graphs run as they were traced, without a C++ compiler, and print one line for each."""

    def traced(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        print("compiled a graph", flush=True)
        return graph.forward

    compile_module = torch.nn.Module.compile
    torch.nn.Module.compile = lambda part: compile_module(part, backend=traced)  # type: ignore


def test_a_compiled_trial_is_compiled_resumed_and_equal(trials: Any) -> None:
    run = ("training.compile=true", *SMALL, *STEPS)
    plain = trials.run(*SMALL, *STEPS, name="plain")
    whole = trials.run(*run, name="whole", patch=_count_compilations)
    killed = trials.run(*run, name="killed", kill_at=5, patch=_count_compilations)
    assert killed.code == -signal.SIGKILL
    resumed = trials.run(*run, name="killed", patch=_count_compilations)
    assert "compiled a graph" in whole.output and "compiled a graph" not in plain.output
    assert_same(resumed, whole)
    # the same names as without the compiler, so that best/ loads and checkpoints fit either way
    assert weights(whole.folder).keys() == weights(plain.folder).keys()
    for name, value in weights(plain.folder).items():
        torch.testing.assert_close(weights(whole.folder)[name], value, rtol=1e-4, atol=1e-5)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last" / "model.safetensors")
