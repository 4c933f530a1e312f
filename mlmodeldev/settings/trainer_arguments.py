"""What ``training.trainer`` may hold: arguments of Lightning's Trainer that have no setting yet.

Refused are those that have a setting of their own, and those that would break what a trial
promises: to go on bit for bit after an interruption, in its own folder.

Example::

    refused_argument("max_epochs")    # 'is the setting training.max_epochs'
"""

from __future__ import annotations

from mlmodeldev.errors import nearest

PASSED_ON = (
    *("benchmark", "enable_autolog_hparams", "enable_model_summary", "gradient_clip_algorithm"),
    *("inference_mode", "limit_predict_batches", "limit_test_batches", "min_epochs", "min_steps"),
    *("model_registry", "num_sanity_val_steps", "reload_dataloaders_every_n_epochs"),
    *("sync_batchnorm", "val_check_interval"),
)
"""Arguments that reach the Trainer as they are."""

_SETTINGS = (
    *("accelerator", "accumulate_grad_batches", "check_val_every_n_epoch", "detect_anomaly"),
    *("deterministic", "devices", "gradient_clip_val", "limit_train_batches", "limit_val_batches"),
    *("log_every_n_steps", "max_epochs", "max_steps", "num_nodes", "overfit_batches", "precision"),
    *("profiler", "strategy"),
)
"""Arguments that are settings of the same name in the group ``training``."""

REFUSED = {
    **{name: f"is the setting training.{name}" for name in _SETTINGS},
    "barebones": "would leave out metrics.csv and the checkpoints that a trial goes on from",
    "callbacks": "callbacks are added one by one: callbacks.NAME={_target_: ...}",
    "default_root_dir": "all files of a trial lie in its folder; artefacts.runs_dir says where",
    "enable_checkpointing": "without checkpoints a trial could not go on after an interruption",
    "enable_progress_bar": "is the setting callbacks.progress.enabled",
    "fast_dev_run": "is debug=fast here",
    "logger": "trackers are chosen by logger=wandb, mlflow, clearml, tensorboard or csv",
    "max_time": "a slower machine would end with another result; training.max_steps ends a trial",
    "plugins": "holds what writes the checkpoints and shares the processes out",
    "use_distributed_sampler": "batches are shared out already, the same on any number of ranks",
}
"""Every other argument, and what to do instead."""


def refused_argument(name: str) -> str | None:
    """Return why an argument can't be in ``training.trainer``, or None."""
    if name in PASSED_ON:
        return None
    if name in REFUSED:
        return REFUSED[name]
    hint = nearest(name, PASSED_ON)
    return f"the Trainer has no such argument{hint} (allowed: {', '.join(PASSED_ON)})"
