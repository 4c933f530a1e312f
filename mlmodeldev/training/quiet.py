"""Keep third-party chatter out of the log, so that what is printed is worth reading.

Example::

    quiet()
"""

from __future__ import annotations

import logging
import os
import warnings

_CHATTER = (
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*does not have many workers.*",
    r".*Trying to infer the `batch_size`.*",
    r".*is smaller than the logging interval.*",
    r".*Found \d+ module\(s\) in eval mode.*",
    r"Grad strides do not match bucket view strides.*",
    r".*`weights_only` was not set.*",
    r".*torch.distributed.nn.functional.all_gather is deprecated.*",
    r".*`_get_pg_default_device` .*",
    r".*The `srun` command is available on your system.*",  # on a login node that is meant so
)


def quiet() -> None:
    """Lower the level of libraries that tell what nobody asked; warnings and errors remain."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    for pattern in _CHATTER:
        warnings.filterwarnings("ignore", pattern)
    _quiet_transformers()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _quiet_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
