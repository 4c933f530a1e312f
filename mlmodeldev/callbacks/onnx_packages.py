"""The packages that an export to ONNX needs: looked for before training, without importing them.

Example::

    check_packages(settings)        # refuses callbacks.export.onnx=true where one is missing
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SETTING = "callbacks.export.onnx=true"


def check_packages(settings: Settings) -> None:
    """Refuse an export to ONNX that could not be written at the end.

    Raises:
        UsageError: it is chosen, and a package is not installed.
    """
    if settings.callbacks.export.onnx:
        refuse_missing(SETTING)


def refuse_missing(given: str) -> None:
    """Refuse what needs the packages, where one is missing.

    Args:
        given: the setting or option that asks for ONNX.

    Raises:
        UsageError: with the command that installs them.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        are = "package is" if len(missing) == 1 else "packages are"
        raise UsageError(
            f"{given}: the {are} not installed: {', '.join(missing)};"
            " pip install 'mlmodeldev[onnx]'"
        )
