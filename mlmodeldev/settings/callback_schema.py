"""The typed settings of callbacks: ``conf/callbacks/``, CKA's among them.

Example::

    Callbacks.model_validate({"cka": {"every_n_epochs": 2}}).cka.max_batches     # 8
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from mlmodeldev.settings.group import Group, Positive
from mlmodeldev.settings.open_types import AddedCallback


class Comparison(Group):
    """One CKA matrix: layers ``a`` against layers ``b``."""

    a: str | list[str]
    """Layer names of the model, as globs."""
    b: str | list[str] | None = None
    """Layer names of the other side; null: the same as ``a``."""
    against: str = "self"
    """self, start (the weights before training), previous (last epoch), a checkpoint or folder."""
    inputs: dict[str, str] | None = None
    """For a folder or Hub name: its arguments and the batch's entries; null: by name and shape."""


class Cka(Group):
    """Alignment between layers, measured in validation (docs/alignment.md)."""

    enabled: bool = True
    """Whether to measure."""
    every_n_epochs: Positive = 1
    """Validations from one measurement to the next."""
    max_batches: Positive = 8
    """Validation batches to measure on."""
    estimator: Literal["unbiased", "biased"] = "unbiased"
    """HSIC1 (Song 2012) or HSIC0 (Gretton 2005)."""
    kernel: Literal["linear", "rbf"] = "linear"
    """Kernel of the Gram matrices."""
    rbf_sigma: Annotated[float, Field(gt=0)] | None = None
    """Bandwidth of the rbf kernel, in the unit of the features; null: the median distance."""
    feature_correction: bool = False
    """Whether features are a sample of more (Chun 2025); with unbiased and linear."""
    weighting: Literal["pairs", "samples", "equal"] = "pairs"
    """What a batch counts for when sums are taken over batches."""
    pooling: Literal["flatten", "mean", "cls", "none"] = "mean"
    """How a layer's tokens or pixels become one feature vector an example."""
    permutations: Literal[0] | Annotated[int, Field(ge=19)] = 0
    """Random pairings of a batch's samples, for p-values; 0: the noise floor alone."""
    batch_dim: Annotated[int, Field(ge=0)] | dict[str, Annotated[int, Field(ge=0)]] = 0
    """Where the examples lie in a layer's output: 1 for time-first ones; or by layer pattern."""
    also: list[Literal["mutual_knn", "cknna"]] = []
    """Measures of shared neighbours to take of the same batches."""
    neighbours: Positive = 10
    """How many neighbours they look at."""
    compare: dict[str, Comparison] = {}
    """Matrices to measure, by name."""

    @model_validator(mode="after")
    def _corrects_what_can_be(self) -> Cka:
        given = f"estimator={self.estimator} and kernel={self.kernel}"
        needed = "estimator=unbiased and kernel=linear"
        if self.feature_correction and given != needed:
            raise ValueError(f"feature_correction=true goes with {needed}, not {given}")
        return self


class Switch(Group):
    """A callback that is on or off."""

    enabled: bool = True
    """Whether to use it."""


class Export(Switch):
    """best/ and last/ as Hugging Face folders."""

    onnx: bool = False
    """Whether they get a model.onnx, too (docs/export.md)."""

    @model_validator(mode="after")
    def _is_written(self) -> Export:
        if self.onnx and not self.enabled:
            raise ValueError("onnx=true goes with enabled=true: it lies in best/ and last/")
        return self


class Samples(Switch):
    """Table of validation examples with truth and prediction."""

    count: Positive = 32
    """Examples in the table; wrong ones first."""


class Progress(Switch):
    """Epoch, phase, loss and learning rate: a bar in a terminal, lines in a log."""

    every_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Seconds between two lines where there is no terminal."""


class Pruning(Switch):
    """Ending a trial early that falls behind the others of its sweep (docs/sweeps.md)."""

    enabled: bool = False
    """Whether to; a sweep file with ``early_terminate`` turns it on."""
    rule: Literal["hyperband", "median", "successive_halving", "optuna_hyperband"] = "hyperband"
    """W&B's hyperband, or a rule of Optuna's, which only a search has."""
    metric: str = "val/accuracy"
    """What is compared, as logged in validation."""
    goal: Literal["minimize", "maximize"] = "maximize"
    """Whether a smaller or a larger ``metric`` is better."""
    min_iter: Positive | None = None
    """Validations before the first comparison."""
    max_iter: Positive | None = None
    """Validations from which the comparisons are counted down; instead of ``min_iter``."""
    s: Annotated[float, Field(gt=0)] | None = None
    """How many comparisons, with ``max_iter``."""
    eta: Annotated[float, Field(gt=1)] = 3.0
    """The best 1/eta go on; the bands are this factor apart."""
    strict: bool = True
    """Compare the value at the band, not the best so far."""
    journal: str | None = None
    """Journal of the search that the trial belongs to; set by its worker."""
    study: str | None = None
    """Name of the search in the journal."""
    number: Annotated[int, Field(ge=0)] | None = None
    """The trial's number in it."""


class Callbacks(Group):
    """What is measured and written beside the training itself.

    Any further name adds a Lightning callback: ``ema: {_target_: mine.EMA, decay: 0.99}``.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, AddedCallback] = Field(init=False)

    cka: Cka = Cka()
    export: Export = Export()
    samples: Samples = Samples()
    throughput: Switch = Switch()
    """Samples a second, step time, share of time spent waiting for data."""
    progress: Progress = Progress()
    pruning: Pruning = Pruning()

    @property
    def added(self) -> dict[str, dict[str, Any]]:
        """The callbacks of one's own, by name."""
        return {name: chosen for name, chosen in self.__pydantic_extra__.items() if chosen}
