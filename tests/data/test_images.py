"""Images from files as inference reads them: size, channels, scale, and clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mlmodeldev.data.images import read_image
from mlmodeldev.errors import UsageError


def write(path, pixels, mode=None):
    Image.fromarray(np.asarray(pixels, dtype=np.uint8), mode).save(path)
    return path


def test_grey_pixels_are_scaled_to_one_and_normalised(tmp_path):
    path = write(tmp_path / "a.png", [[0, 255], [51, 204]])
    image = read_image(path, size=2, channels=1, mean=0.5, std=0.25)
    assert image.dtype == torch.float32
    expected = torch.tensor([[[-2.0, 2.0], [-1.2, 1.2]]])
    assert torch.allclose(image, expected)


def test_colours_are_channels_first(tmp_path):
    path = write(tmp_path / "a.png", [[[255, 0, 51], [0, 255, 102]]])
    image = Image.open(path).resize((2, 2), Image.Resampling.NEAREST)
    image.save(path)
    image = read_image(path, size=2, channels=3, mean=0.0, std=1.0)
    assert image.shape == (3, 2, 2)
    assert torch.allclose(image[:, 0, 0], torch.tensor([1.0, 0.0, 0.2]))
    assert torch.allclose(image[:, 0, 1], torch.tensor([0.0, 1.0, 0.4]))


def test_any_size_and_mode_is_brought_to_what_the_model_takes(tmp_path):
    grey = np.full((30, 17), 128)
    colour = np.dstack([grey] * 3)
    write(tmp_path / "grey.png", grey)
    write(tmp_path / "colour.png", colour)
    write(tmp_path / "alpha.png", np.dstack([grey] * 3 + [np.full_like(grey, 255)]))
    Image.fromarray(colour.astype(np.uint8)).save(tmp_path / "photo.jpg")
    Image.fromarray(grey.astype(np.uint8)).convert("P").save(tmp_path / "palette.gif")
    for file in tmp_path.iterdir():
        for channels in (1, 3):
            image = read_image(file, size=8, channels=channels, mean=0.0, std=1.0)
            assert image.shape == (channels, 8, 8), file
            assert torch.allclose(image, torch.full_like(image, 128 / 255), atol=0.02), file


def test_what_is_no_image_is_reported_in_one_line(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    whole = write(tmp_path / "torn.png", np.random.default_rng(0).integers(0, 255, (64, 64)))
    whole.write_bytes(whole.read_bytes()[:-2000])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.png", "torn.png", "empty.png", "."):
        with pytest.raises(UsageError, match="is no image") as error:
            read_image(tmp_path / name, 8, 1, 0.0, 1.0)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png", 8, 1, 0.0, 1.0)


@pytest.mark.parametrize("scale", [1, 2, 5])
def test_a_bitmap_is_read_as_the_digits_were_made(tmp_path, scale):
    """Theirs: 32x32 points, of which the dark ones are counted in squares of 4x4, 0 to 16."""
    points = np.random.default_rng(0).integers(0, 2, (32, 32))
    counts = points.reshape(8, 4, 8, 4).sum((1, 3))
    larger = np.kron(points, np.ones((scale, scale)))
    image = read_image(write(tmp_path / "a.png", larger * 255), 8, 1, mean=0.0, std=1.0)
    assert torch.allclose(image[0] * 16, torch.from_numpy(counts).float(), atol=1e-4)


def test_cropping_keeps_the_middle_and_the_proportions(tmp_path):
    wide = np.zeros((10, 30, 3))
    wide[:, 10:20] = [255, 0, 0]
    image = read_image(write(tmp_path / "a.png", wide), 4, 3, mean=0.0, std=1.0, crop=True)
    assert torch.equal(image, torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 4, 4))
