"""The typed settings of a trial: one class for each group under ``conf/``.

The string under a field is its documentation. Types and ranges are enforced by pydantic; `model`
and `data` are checked against the signature of the class that they name (see `signature.py`).

Example::

    Settings.model_validate(container).training.max_epochs
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from mlmodeldev.settings.open_types import AddedCallback, Strategy, TrainerArguments
from mlmodeldev.settings.tracking_address import tracking_address


def _number_as_text(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


Text = Annotated[str, BeforeValidator(_number_as_text)]
"""A name that may look like a number: an account 12345, GPUs of type 3090."""
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"]


class Group(BaseModel):
    """Base of every group: unknown keys refused, no silent change of type, read-only."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Artefacts(Group):
    """Where a trial's folder lies: ``<runs_dir>/<sweep>/<trial>/``."""

    runs_dir: str = "runs"
    """Folder that holds every sweep's trials."""
    data_dir: str = "data"
    """Folder of downloaded and prepared data, shared by all trials."""
    sweep: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] = "single"
    """Name of the sweep; trials started by hand belong to ``single``."""
    trial: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] | None = None
    """Folder name of the trial; null: its identity, a hash of the overrides."""
    changed_data: Literal["refuse", "warn"] = "refuse"
    """When a trial goes on and its data are others than before: an error, or a warning."""
    rehearsal: bool = True
    """Try one batch of each stage first, on a second model; once for each code of a sweep."""
    changed_code: Literal["refuse", "continue", "fresh"] = "refuse"
    """When a trial goes on and its code is other than before: an error, a warning, or anew."""
    fresh: bool = False
    """Begin anew: an existing folder of this trial is moved aside first, never deleted."""


class Optimizer(Group):
    """Optimizer and learning-rate schedule (stepped once an optimizer step)."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """Algorithm, from torch.optim."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decay of matrices; biases, norms and other vectors are not decayed."""
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """Adam's two averages."""
    momentum: Fraction = 0.9
    """Momentum of sgd."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Shape after the warm-up: constant, or down to ``min_lr_fraction``."""
    warmup_fraction: Fraction = 0.1
    """Share of all steps in which the rate climbs linearly from 0."""
    min_lr_fraction: Fraction = 0.0
    """Where cosine and linear end, as a share of ``lr``."""


class Processing(Group):
    """How data reaches the model."""

    batch_size: Positive = 32
    """Examples in one batch over ALL devices: a trial is the same on 1 GPU and on 8."""
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Loader processes a device; auto: 0 for data in memory, else the CPUs given by Slurm."""
    prefetch_factor: Positive = 2
    """Batches that each worker loads ahead."""
    pin_memory: bool | Literal["auto"] = "auto"
    """Page-locked host memory; auto: when training on a GPU."""
    stage: Annotated[str, Field(min_length=1)] = "auto"
    """Copy prepared data to the node's disk: auto ($SLURM_TMPDIR, a job's $TMPDIR), never, DIR."""


class Training(Group):
    """How long, how exactly and on what the model is trained."""

    max_epochs: Positive = 12
    """Passes over the training set."""
    max_steps: Annotated[int, Field(ge=-1)] = -1
    """Optimizer steps at most; -1: no limit."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Source of all randomness: weights, order, augmentation, dropout, splits."""
    deterministic: bool = True
    """Refuse operations whose result differs from run to run on the same machine."""
    precision: Precision = "32-true"
    """Number format, as Lightning names it; refused where the hardware lacks it."""
    gradient_clip_val: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the whole gradient; null: no clipping."""
    accumulate_grad_batches: Positive = 1
    """Batches whose gradients are added up for one optimizer step."""
    nonfinite: Literal["raise", "stop", "skip"] = "raise"
    """A loss of NaN or Inf: fail, end early with what is good, or leave the step out."""
    compile: bool = False
    """torch.compile the model."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Hardware to train on."""
    devices: Positive | Literal["auto"] = "auto"
    """Devices on each node; auto: what the launcher gives, else one."""
    num_nodes: Positive | Literal["auto"] = "auto"
    """Nodes; auto: what the launcher gives, else one."""
    strategy: Strategy = "auto"
    """Lightning's strategy over several devices."""
    monitor: str = "val/accuracy"
    """Metric that decides which weights are best."""
    mode: Literal["max", "min"] = "max"
    """Whether a larger or a smaller ``monitor`` is better."""
    patience: Positive | None = None
    """Stop after so many validations without a better ``monitor``; null: never."""
    check_val_every_n_epoch: Positive = 1
    """Epochs from one validation to the next."""
    checkpoint_every_n_steps: Positive | None = None
    """Optimizer steps between recovery checkpoints; null: at each epoch's end."""
    log_every_n_steps: Positive = 10
    """Optimizer steps between two rows of training metrics."""
    limit_train_batches: Positive | Annotated[float, Field(gt=0, le=1)] | None = None
    """Only so many (or that share of) training batches an epoch."""
    limit_val_batches: Annotated[int, Field(ge=0)] | Fraction | None = None
    """Only so many (or that share of) validation batches; 0: no validation."""
    overfit_batches: Annotated[int, Field(ge=0)] = 0
    """Train and validate on the same few training batches; 0: off."""
    detect_anomaly: bool = False
    """torch.autograd's anomaly mode: slow, names the operation that made a NaN."""
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    """Lightning profiler; its report goes to the trial's folder."""
    test: bool = True
    """Measure the best weights on the test set at the end."""
    trainer: TrainerArguments = {}
    """Any other argument of Lightning's Trainer: ``training.trainer.val_check_interval=0.5``."""


class WandbLogger(Group):
    """Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=128)] = "mlmodeldev"
    """Project that runs are filed under."""
    entity: str | None = None
    """Team or user; null: the account's default."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: online when there are a key and a network, else offline."""
    models: Literal["auto", "all", "none"] = "auto"
    """Keep best/ and last/ as artifacts; auto: of a sweep only best/ of the best trial so far."""


class MlflowLogger(Group):
    """MLflow."""

    uri: Annotated[str, AfterValidator(tracking_address)] | None = None
    """Server or database; null: MLFLOW_TRACKING_URI, else the file ``<runs_dir>/mlflow.db``."""
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "mlmodeldev"
    """Experiment that runs are filed under; a sweep's lie below one run of its name."""
    models: Literal["auto", "all", "none"] = "auto"
    """Keep best/ as a logged model; auto: of a sweep only that of the best trial so far."""


class CsvLogger(Group):
    """Nothing beyond ``metrics.csv`` and ``log.json``, which every trial writes."""


class TensorboardLogger(Group):
    """TensorBoard event files in the trial's ``tensorboard/``."""


class Logger(Group):
    """Trackers: one or several; each is imported only when chosen."""

    wandb: WandbLogger | None = None
    mlflow: MlflowLogger | None = None
    csv: CsvLogger | None = None
    tensorboard: TensorboardLogger | None = None


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


class Switch(Group):
    """A callback that is on or off."""

    enabled: bool = True
    """Whether to use it."""


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
    export: Switch = Switch()
    """best/ and last/ as Hugging Face folders."""
    samples: Samples = Samples()
    throughput: Switch = Switch()
    """Samples a second, step time, share of time spent waiting for data."""
    progress: Progress = Progress()
    pruning: Pruning = Pruning()

    @property
    def added(self) -> dict[str, dict[str, Any]]:
        """The callbacks of one's own, by name."""
        return {name: chosen for name, chosen in self.__pydantic_extra__.items() if chosen}


class Cluster(Group):
    """What a job asks of the cluster, and how many at once (docs/clusters.md)."""

    name: str = "local"
    """Name of the profile under conf/cluster/."""
    launcher: Literal["local", "slurm"] = "local"
    """Where `SlurmTrain.py` runs trials: on this machine, or in Slurm jobs."""
    partition: Text | None = None
    """Partition (queue); null: the cluster's default."""
    account: Text | None = None
    """Account or project that is charged; null: yours."""
    qos: Text | None = None
    """Quality of service; null: the default."""
    constraint: Text | None = None
    """Features that nodes must have, such as a100."""
    minutes: Positive = 60
    """Time limit of a job; a trial that needs longer goes on in the next one."""
    nodes: Positive = 1
    """Nodes of one trial."""
    tasks_per_node: Positive = 1
    """Processes (ranks) of one trial on each node."""
    cpus_per_task: Positive | Literal["auto"] = "auto"
    """CPU cores of each process; auto: the node's share of its GPUs, or 4."""
    gpus_per_task: Annotated[int, Field(ge=0)] = 1
    """GPUs of each process; 0: none."""
    gpu_type: Text | None = None
    """Type of GPU as the cluster names it (gres), such as a100."""
    mem_gb: Annotated[float, Field(gt=0)] | Literal["auto"] | None = "auto"
    """Memory on each node; auto: the node's share of its GPUs; null: the cluster's default."""
    max_gpus: Positive = 8
    """GPUs of this sweep at once, all jobs together."""
    max_jobs: Positive = 32
    """Jobs of this sweep at once."""
    trials_per_job: Positive = 1
    """Trials that one job runs, one after the other."""
    trials_per_gpu: Positive = 1
    """Trials at once on one GPU (on one job, where it has none)."""
    warn_seconds: Annotated[int, Field(ge=1)] = 120
    """Time before the limit at which a trial is told to save."""
    restarts_after_kill: Annotated[int, Field(ge=0)] = 2
    """How often a job comes back whose trial was killed from outside (lack of memory, kill -9)."""
    confirm_gpu_hours: Annotated[float, Field(ge=0)] = 4.0
    """More GPU-hours than this are submitted only after a yes."""
    python: str | None = None
    """Interpreter of the jobs, or a command; null: the one that submits."""
    setup: list[str] = []
    """Lines of shell that a job runs first, such as "module load cuda/12.4"."""
    sbatch: dict[str, str | int | bool] = {}
    """Any other option of sbatch: ``+cluster.sbatch.reservation=course``."""

    @property
    def tasks(self) -> int:
        """Processes of one trial."""
        return self.nodes * self.tasks_per_node

    @property
    def gpus(self) -> int:
        """GPUs of one job."""
        return self.tasks * self.gpus_per_task


class Settings(Group):
    """Everything one trial is told; the fields are the groups of ``conf/``.

    Any further key of the files is kept as it is, for others to refer to: ``${mine.size}``.
    """

    model_config = ConfigDict(extra="allow")

    artefacts: Artefacts = Artefacts()
    model: dict[str, Any]
    """``_target_``: the class in model.py; the rest are its arguments."""
    data: dict[str, Any]
    """``_target_``: the class in datamodule.py; the rest are its arguments."""
    optimizer: Optimizer = Optimizer()
    processing: Processing = Processing()
    training: Training = Training()
    logger: Logger = Logger()
    callbacks: Callbacks = Callbacks()
    cluster: Cluster = Cluster()
    overrides: dict[str, Any] = {}
    """What was asked beyond the defaults, dotted; the trial's identity is made of it."""

    @model_validator(mode="after")
    def _warmup_needs_room(self) -> Settings:
        if self.optimizer.schedule != "constant" and self.optimizer.warmup_fraction >= 1:
            raise ValueError("optimizer.warmup_fraction must be below 1 to leave room for a decay")
        return self
