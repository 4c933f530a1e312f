"""A flipped bit or a cut anywhere: refused in one line, nothing written; sound archives pass.

Where a format has no sum over a field (gzip's time and name, a zip's permissions, tar's content),
a flip there can't be seen: then the content must be what the archive says, or the same.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from mlmodeldev.fetch.archive import ArchiveError
from mlmodeldev.fetch.unpacking import MARKER, unpack

RANDOM = random.Random(5)
FILES = {
    "top/noise.bin": RANDOM.randbytes(6000),
    "top/words.txt": b" ".join(RANDOM.choices([b"one", b"two", b"three"], k=3000)),
    "top/foo": b"1" * 512,
    "top/sub/last": RANDOM.randbytes(700),
}
PACK = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}


def tar_bytes(files=FILES, padded=True, ends=2):
    """Write a tar; `ends`: how many blocks of zeros stand at its end, where it is not padded."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
        length = file.offset
    return out.getvalue() if padded else out.getvalue()[: length + 512 * ends]


def zip_bytes():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.mkdir("top")
        for name, content in FILES.items():
            file.writestr(name, content)
    return out.getvalue()


def archive_bytes(kind):
    return zip_bytes() if kind == "zip" else PACK.get(kind, bytes)(tar_bytes())


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARKER
    }


def outcome(content, tmp_path, kind):
    """Return what came out, or None where it was refused in one line and left nothing."""
    (tmp_path / f"x.{kind}").write_bytes(content)
    try:
        folder = unpack(tmp_path / f"x.{kind}", tmp_path / "out")
    except ArchiveError as error:
        assert "\n" not in str(error) and f"x.{kind}" in str(error)
        assert [path.name for path in tmp_path.iterdir()] == [f"x.{kind}"]
        return None
    result = tree(folder)
    shutil.rmtree(folder)
    return result


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_a_flipped_bit_anywhere(tmp_path, kind):
    whole = archive_bytes(kind)
    assert outcome(whole, tmp_path, kind) == FILES
    random_ = random.Random(kind)
    accepted = 0
    for _ in range(60):
        bit = random_.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        result = outcome(bytes(damaged), tmp_path, kind)
        accepted += result is not None
        assert result in (None, FILES), (bit // 8, bit % 8)
    assert accepted <= 3, "but few bits are of fields without a sum"


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_every_bit_of_the_trailer(tmp_path, kind):
    """What stands behind the last member: the sums, and how long it was."""
    whole = archive_bytes(kind)
    for place in range(len(whole) - 8, len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            result = outcome(bytes(damaged), tmp_path, kind)
            padding = kind == "tar.bz2" and place == len(whole) - 1  # bzip2 fills up a byte
            assert result is None or (padding and result == FILES), (place, bit)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_a_cut_anywhere(tmp_path, kind):
    whole = archive_bytes(kind)
    random_ = random.Random(kind)
    end = len(tar_bytes(padded=False, ends=0)) if kind == "tar" else len(whole)
    for length in random_.sample(range(1, end), 20):
        assert outcome(whole[:length], tmp_path, kind) is None, length


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("count", range(4))
def test_a_tar_cut_at_the_border_of_a_member(tmp_path, kind, count):
    few = dict(list(FILES.items())[: count + 1])
    cut = tar_bytes(few, padded=False, ends=0)
    assert tar_bytes().startswith(cut)
    assert outcome(PACK.get(kind, bytes)(cut), tmp_path, kind) is None


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("place", range(len(FILES)))
def test_a_damaged_header_is_not_the_end(tmp_path, place, kind):
    whole = bytearray(tar_bytes())
    header = len(tar_bytes(dict(list(FILES.items())[:place]), padded=False, ends=0)) if place else 0
    whole[header + 148] ^= 1  # the sum itself
    assert outcome(PACK.get(kind, bytes)(bytes(whole)), tmp_path, kind) is None


SOUND = {
    "python": tar_bytes(),
    "two blocks, no padding": tar_bytes(padded=False),
    "a lone block": tar_bytes(padded=False, ends=1),
    "gzip in two parts": gzip.compress(tar_bytes()[:5000]) + gzip.compress(tar_bytes()[5000:]),
    "gzip padded with zeros": gzip.compress(tar_bytes()) + bytes(700),
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_archives_pass(tmp_path, kind):
    assert outcome(SOUND[kind], tmp_path, "tar.gz" if kind.startswith("gzip") else "tar") == FILES


@pytest.mark.parametrize("style", ["gnu", "pax", "ustar", "v7"])
@pytest.mark.parametrize("blocks", ["1", "20"])
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_gnu_tar(tmp_path, style, blocks, kind):
    origin = tmp_path / "in"
    for name, content in FILES.items():
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_bytes(content)
    command = ["tar", f"--format={style}", "-b", blocks, "-C", origin, "-cf", "-", "top"]
    content = subprocess.run(command, check=True, capture_output=True).stdout
    shutil.rmtree(origin)
    assert outcome(PACK.get(kind, bytes)(content), tmp_path, kind) == FILES


def test_two_archives_in_one_file_are_refused(tmp_path):
    """Other programs would leave the second out without a word."""
    both = tar_bytes({"a": b"1"}) + tar_bytes({"b": b"2"})
    assert outcome(both, tmp_path, "tar") is None


def test_a_file_that_became_a_folder(tmp_path):
    """One bit makes ``foo`` of the index to ``fo/``: then nothing of it would be read."""
    whole = zip_bytes()
    place = whole.rindex(b"top/foo") + len(b"top/fo")
    damaged = bytearray(whole)
    damaged[place] ^= ord("o") ^ ord("/")
    assert outcome(bytes(damaged), tmp_path, "zip") is None
