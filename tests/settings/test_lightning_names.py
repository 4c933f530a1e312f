"""Classes by the names of `lightning` are those of `pytorch_lightning`; each case in a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ACCEPT = "from mlmodeldev.settings.lightning_names import accept_both_names as accept\n"
# What a package `lightning` of its own would hold, were it installed too.
OTHER = "class LightningModule: ...\n"

TAKEN = """
import sys
accept()
accept()
assert not {"torch", "pytorch_lightning"} & set(sys.modules)
import warnings
warnings.simplefilter("error", ImportWarning)
import lightning as L
import lightning.pytorch as by_other_name
from lightning.pytorch import LightningModule, callbacks
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.demos.boring_classes import BoringModel
import lightning.fabric
import lightning_fabric
import pytorch_lightning
from pytorch_lightning.callbacks import early_stopping
from pytorch_lightning.demos import boring_classes
assert by_other_name is pytorch_lightning is L.pytorch
assert LightningModule is L.LightningModule is pytorch_lightning.LightningModule
assert L.LightningDataModule is pytorch_lightning.LightningDataModule
assert EarlyStopping is early_stopping.EarlyStopping is callbacks.EarlyStopping
assert BoringModel is boring_classes.BoringModel
assert L.fabric is lightning_fabric
assert pytorch_lightning.__spec__.name == pytorch_lightning.__name__ == "pytorch_lightning"
for wrong in ("import lightning.pytorch.nothing", "from lightning import nothing"):
    try:
        exec(wrong)
    except ImportError:
        continue
    raise SystemExit(wrong)
"""


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    start = f"import sys\nsys.path[:0] = {[str(each) for each in (*path, ROOT)]}\n"
    return subprocess.run(
        [sys.executable, "-c", start + ACCEPT + code], capture_output=True, text=True, check=False
    )


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder with a package `lightning` that is not `pytorch_lightning`."""
    package = tmp_path / "lightning" / "pytorch"
    package.mkdir(parents=True)
    (tmp_path / "lightning/__init__.py").write_text("from lightning.pytorch import LightningModule")
    (package / "__init__.py").write_text(OTHER)
    return tmp_path


def test_both_names_are_one_package():
    done = python(TAKEN)
    assert done.returncode == 0, done.stderr


def test_they_are_one_as_well_where_both_are_installed(installed):
    done = python(TAKEN, installed)
    assert done.returncode == 0, done.stderr


def test_too_late_is_one_line_with_the_mend(installed):
    done = python("import lightning.pytorch\naccept()", installed)
    line = done.stderr.strip().splitlines()[-1]
    assert "UsageError: lightning.pytorch was imported before the settings were read" in line
    assert "write 'pytorch_lightning' there" in line
