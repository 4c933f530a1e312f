"""Run the trials of a sweep file: ``python slurm/SlurmTrain.py --help``."""

import sys
from pathlib import Path

# The project is run from its clone, not installed: its folder is where imports begin.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlmodeldev.cli import slurm_train

if __name__ == "__main__":
    sys.exit(slurm_train())
