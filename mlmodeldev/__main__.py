"""``python -m mlmodeldev``: the command ``mlmodeldev`` where its folder is not on the PATH."""

import sys

from mlmodeldev.cli import main

if __name__ == "__main__":
    sys.exit(main())
