"""Files of known datasets as arrays and lists; a line or byte that is wrong is named.

Example::

    images = read_idx(Path("train-images-idx3-ubyte.gz"))     # (60000, 28, 28), uint8
    rows = read_cola(Path("in_domain_train.tsv"))             # [("Our friends won't ...", 1), ...]
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from mlmodeldev.errors import UsageError


def digits_file() -> Path:
    """Return the file of handwritten digits in the scikit-learn wheel.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    # The package is found, not imported: importing scikit-learn would cost a second.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("data=digits is read from the scikit-learn wheel, which is not installed")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 8, 8), float32 in 0..16, and labels (1797,), int64."""
    with gzip.open(digits_file(), "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def read_idx(file: Path) -> np.ndarray:
    """Return the array of an IDX file of bytes, gzipped (the format of MNIST), uint8.

    Raises:
        UsageError: the file is damaged or of another kind.
    """
    try:
        with gzip.open(file) as content:
            data = content.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{file}: {error}") from None
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise UsageError(f"{file}: is no IDX file of bytes")
    begin = 4 + 4 * data[3]
    shape = [int(size) for size in np.frombuffer(data[4:begin], ">u4")]
    if len(shape) != data[3] or int(np.prod(shape)) != len(data) - begin:
        raise UsageError(f"{file}: has {len(data) - begin} values, its head says {shape}")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def read_cifar10(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 32, 32, 3) and labels (count,), uint8, of CIFAR-10's binary files.

    Raises:
        UsageError: a file is cut short.
    """
    parts = []
    for file in files:
        values = np.fromfile(file, np.uint8)
        if not len(values) or len(values) % 3073:
            raise UsageError(f"{file}: {len(values)} bytes are no whole number of records of 3073")
        parts.append(values.reshape(-1, 3073))
    records = np.concatenate(parts)
    # A record is the label, then planes of red, green and blue.
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]
