"""A trial that says, in each of its processes, which settings it got.

Example::

    python -m torch.distributed.run --nproc_per_node=2 -m tests.wandb.rank optimizer.lr=0.01
"""

from __future__ import annotations

import os

import hydra
from omegaconf import DictConfig

import trainer
from mlmodeldev.settings import Settings
from mlmodeldev.settings.command_line import call, run


def train(settings: Settings) -> object:
    text = f"RANK {os.environ['RANK']} {settings.model_dump_json()}\n"
    os.write(1, text.encode())  # in one piece: the other process writes too
    return trainer.train(settings)


@hydra.main(version_base="1.3", config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    call(train, config)


if __name__ == "__main__":
    run(main, train)
