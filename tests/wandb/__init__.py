"""The real W&B client against a server of this machine: ``python -m tests.wandb.server``."""
