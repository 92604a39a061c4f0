"""Transparent pixels get the colour of data.background."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def logos(tmp_path):
    """Black squares on transparent ground, in two classes: RGBA, grey with alpha, palette."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:6, 2:6] = 255
    black = np.zeros((8, 8), np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.stack([black] * 3 + [alpha], -1)).save(tmp_path / name / "0.png")
        Image.fromarray(np.stack([black, alpha], -1)).save(tmp_path / name / "1.png")
        palette = Image.fromarray((alpha > 0).astype(np.uint8), "P")
        palette.putpalette([9, 9, 9, 0, 0, 0])
        palette.save(tmp_path / name / "2.png", transparency=0)
    return tmp_path, alpha > 0


@pytest.mark.parametrize(
    ("background", "colour"), [("white", (1, 1, 1)), ("#804020", (128 / 255, 64 / 255, 32 / 255)), (None, (0, 0, 0))]
)
def test_the_ground_has_the_colour(image_folder, logos, background, colour):
    root, square = logos
    data = image_folder(root, background=background, channels=3, size=8, mean=0.0, std=1.0)
    expected = torch.tensor(colour).view(3, 1, 1) * torch.from_numpy(~square)
    for split in ("train", "val"):
        for image, _ in data.split(split):
            assert torch.allclose(image, expected.float(), atol=1e-6)


def test_pictures_that_become_one_colour_are_told(image_folder, logos, told):
    image_folder(logos[0], background="black")
    assert any("4 of 4 transparent pictures become one colour" in text for text in told)
    told.clear()
    image_folder(logos[0])
    assert not any("one colour" in text for text in told)


def test_an_unknown_colour_is_refused(engine, image_folder, logos):
    with pytest.raises(engine("errors").UserError, match=r"data\.background.*whit"):
        image_folder(logos[0], background="whit")
