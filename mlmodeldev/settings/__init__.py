"""Settings: what a trial may be told, checked before anything heavy is imported.

Example::

    from mlmodeldev.settings import validate
    settings = validate(container)          # a plain nested dict, as Hydra composes it
    settings.optimizer.lr
"""

from mlmodeldev.settings.schema import Settings
from mlmodeldev.settings.validation import validate

__all__ = ["Settings", "validate"]
