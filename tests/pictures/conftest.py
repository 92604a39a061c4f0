"""Fixtures: a folder of pictures in several classes, and the data set of it."""

import logging

import numpy as np
import pytest
import yaml
from PIL import Image


@pytest.fixture
def image_folder(engine, project, monkeypatch):
    """`image_folder(root, **options)`: the data that configs/data/image_folder.yaml makes of `root`."""
    monkeypatch.chdir(project)
    module = engine("datasets.image_folder")
    options = yaml.safe_load((project / "configs/data/image_folder.yaml").read_text())
    del options["_target_"]

    def image_folder(root, kind=module.ImageFolder, **changed):
        return kind(**{**options, "root": str(root), "shift": 0.0, **changed})

    return image_folder


@pytest.fixture
def picture_table(engine, image_folder, project):
    """`picture_table(root, train, **options)`: the data that configs/data/picture_table.yaml makes."""
    engine("rng")  # makes `digits` importable
    from digits.data.tables import PictureTable

    def picture_table(root, train, **changed):
        own = {"train": train, "val": None, "test": None, "label_columns": None, "separator": None, **changed}
        return image_folder(root, PictureTable, **own)

    return picture_table


@pytest.fixture
def told(engine):
    """The messages of the engine at level info and above."""
    messages: list[str] = []
    handler, logger = logging.Handler(), engine("text").logger
    handler.emit = lambda record: messages.append(record.getMessage())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def pets(tmp_path):
    """`pets(count, *classes)`: that many grey PNG files of 6×5 pixels for each class, below pets/."""
    draw = np.random.default_rng(0)

    def pets(count=10, *classes, root=tmp_path / "pets"):
        for name in classes or ("cat", "dog"):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (5, 6), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{number:02}.png")
        return root

    return pets


@pytest.fixture
def photos(tmp_path):
    """Smooth pictures of 60×40 pixels in two classes: PNG, JPEG, grey JPEG, turned JPEG, CMYK JPEG."""
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        small = draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((60, 40), Image.Resampling.BICUBIC)
        image.save(folder / "0.png")
        image.save(folder / "1.jpg", quality=95)
        image.convert("L").save(folder / "2.jpg", quality=95)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(folder / "3.jpg", quality=95, exif=exif)
        image.convert("CMYK").save(folder / "4.jpg", quality=95)
    return tmp_path / "photos"
