"""Filled when a wheel is built: pyproject.toml maps this package to the clone's top level.

So a project is made from the trainer.py, model.py and conf/ that are used and tested here, and no
copy of them lies in the repository.
"""
