"""The typed settings of a trial: one class for each group under ``conf/``.

The string under a field is its documentation. Types and ranges are enforced by pydantic; `model`
and `data` are checked against the signature of the class that they name (see `signature.py`).

Example::

    Settings.model_validate(container).training.max_epochs
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from mlmodeldev.settings.callback_schema import Callbacks
from mlmodeldev.settings.group import Fraction, Group, Positive, Precision, Text
from mlmodeldev.settings.open_types import Strategy, TrainerArguments
from mlmodeldev.settings.tracking_address import tracking_address


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
    continue_from: Annotated[Text, Field(min_length=1)] | None = None
    """Trial whose whole state this one begins with: its folder, or its id; null: none."""
    init_from: Annotated[Text, Field(min_length=1)] | None = None
    """Weights to begin with: a trial, an export, a file, a Hub name; null: drawn from the seed."""
    init_strict: bool = False
    """Refuse an ``init_from`` that does not fit the whole model."""
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
    watchdog_seconds: Annotated[float, Field(ge=1)] | None = 60.0
    """A step hangs after thrice its longest and so many seconds; null: nobody watches."""
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


class ClearmlLogger(Group):
    """ClearML; its server is that of CLEARML_API_HOST or clearml.conf."""

    project: Annotated[str, Field(min_length=3, max_length=500)] = "mlmodeldev"
    """Project that tasks are filed under; a sweep's in one of its name below it."""
    offline: bool = False
    """Send nothing, leave a session in the trial's folder; so it is where there is no server."""
    models: Literal["auto", "all", "none"] = "auto"
    """Keep best/ as the output model; auto: of a sweep only that of the best trial so far."""


class CsvLogger(Group):
    """Nothing beyond ``metrics.csv`` and ``log.json``, which every trial writes."""


class TensorboardLogger(Group):
    """TensorBoard event files in the trial's ``tensorboard/``."""


class Logger(Group):
    """Trackers: one or several; each is imported only when chosen."""

    wandb: WandbLogger | None = None
    mlflow: MlflowLogger | None = None
    clearml: ClearmlLogger | None = None
    csv: CsvLogger | None = None
    tensorboard: TensorboardLogger | None = None


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
    def _fits_together(self) -> Settings:
        if self.optimizer.schedule != "constant" and self.optimizer.warmup_fraction >= 1:
            raise ValueError("optimizer.warmup_fraction must be below 1 to leave room for a decay")
        if None not in (self.training.continue_from, self.training.init_from):
            raise ValueError("training.continue_from and init_from are both set: give one of them")
        return self
