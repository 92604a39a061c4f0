"""Which files of an image folder are samples."""

import shutil

import numpy as np
import pytest
from PIL import Image


def names(data, split):
    part = data.split(split)
    return [] if part is None else [path.rpartition("pets/")[2] for path in part.samples]


def test_hidden_folders_and_those_of_tools_are_no_data(image_folder, pets):
    root = pets(10)
    expected = {split: names(image_folder(root), split) for split in ("train", "val")}
    for folder in ("cat/.ipynb_checkpoints", "cat/@eaDir/00.png", "__MACOSX/cat", ".cache", "@eaDir"):
        shutil.copytree(root / "dog", root / folder)
    (root / "cat/Thumbs.db").touch()
    data = image_folder(root)
    assert data.info["class_names"] == ["cat", "dog"]
    assert {split: names(data, split) for split in expected} == expected


def test_a_run_is_tested_without_training_pictures(image_folder, pets):
    root = pets(3, "test/cat", "test/dog")
    shutil.rmtree(root / "test/cat")  # one class is enough
    info = {"shape": (1, 5, 6), "classes": 2, "class_names": ["cat", "dog"]}
    data = image_folder(root, info=info)
    assert data.split("train") is None
    assert names(data, "test") == ["test/dog/00.png", "test/dog/01.png", "test/dog/02.png"]
    assert data.split("test").labels.tolist() == [1, 1, 1]
    (root / "test/dog").rename(root / "test/cow")
    with pytest.raises(Exception, match=r"Class 'cow' is in .*test, but not in the run"):
        image_folder(root, info=info).split("test")


def test_a_run_of_an_older_release_keeps_its_samples(image_folder, pets):
    root = pets(10)
    shutil.copytree(root / "dog", root / "cat/.ipynb_checkpoints")
    (root / "cat/new.jfif").touch()
    assert sum(len(names(image_folder(root, skip=None), split)) for split in ("train", "val")) == 30


def test_other_endings_are_read_or_counted(image_folder, pets, told):
    root = pets(10)
    draw = np.random.default_rng(0)
    for name, kind in (("x.jfif", "JPEG"), ("y.JPE", "JPEG"), ("z.avif", "AVIF")):
        Image.fromarray(draw.integers(0, 256, (5, 6), dtype=np.uint8)).save(root / "cat" / name, kind)
    image_folder(root)
    assert told == []
    (root / "cat/a.heic").touch()
    (root / "dog/b.HEIC").touch()
    (root / "dog/README").touch()
    data = image_folder(root)
    assert {"cat/x.jfif", "cat/y.JPE", "cat/z.avif"} <= {*names(data, "train"), *names(data, "val")}
    (text,) = told
    assert "2 .heic, 1 without ending" in text
    told.clear()
    image_folder(root, skip=["*.heic", "*.HEIC", "README"])
    assert told == []


@pytest.mark.parametrize(("colours", "channels"), [(1, 1), (6, 3)])
def test_few_colour_pictures_do_not_decide(image_folder, pets, told, colours, channels):
    root = pets(50)
    for number in range(colours):
        Image.new("RGB", (6, 5), (200, 10, 10)).save(root / f"cat/{number:02}.png")
    data = image_folder(root, val_fraction=0.02)
    assert data.info["shape"][0] == channels
    assert any("become grey" in text for text in told) == (channels == 1)
    assert image_folder(root, val_fraction=0.02, colour_share=0.0).info["shape"][0] == 3
    told.clear()
    assert image_folder(root, channels=3).info["shape"][0] == 3
    assert told == []


def test_a_flat_test_folder_is_left_out_aloud(image_folder, pets, tmp_path, told):
    root = tmp_path / "pets"
    pets(6, root=root / "train")
    shutil.copytree(root / "train/cat", root / "test")
    data = image_folder(root)
    assert data.split("test") is None
    assert [text for text in told if "test has no folders of classes" in text]


def test_a_flat_test_folder_beside_the_classes_is_named(image_folder, pets, told):
    root = pets(6)
    shutil.copytree(root / "cat", root / "test")
    assert image_folder(root).info["class_names"] == ["cat", "dog", "test"]
    assert [text for text in told if "no folder 'train', so test is read as a class." in text]
    told.clear()
    assert image_folder(root, skip=["test"]).info["class_names"] == ["cat", "dog"]
    assert told == []


def test_shares_are_held_out_of_each_class(image_folder, pets):
    root = pets(40)
    val = names(image_folder(root), "val")
    data = image_folder(root, test_fraction=0.1)
    assert names(data, "val") == val, "a test share changes no validation picture"
    assert len(val) == 16
    for split, each in (("train", 28), ("val", 8), ("test", 4)):
        own = names(data, split)
        assert [sum(name.startswith(kind) for name in own) for kind in ("cat", "dog")] == [each, each]
    everything = [name for split in ("train", "val", "test") for name in names(data, split)]
    assert len(set(everything)) == len(everything) == 80
    assert names(image_folder(root, test_fraction=0.1), "test") == names(data, "test")


def test_pictures_of_a_list_are_left_out(engine, image_folder, pets, tmp_path):
    root, listed = pets(10), tmp_path / "broken.txt"
    whole = image_folder(root)
    val = names(whole, "val")
    listed.write_text(f"cat/03.png\n{root}/dog/04.png\n\n{val[0]}\n")
    data = image_folder(root, leave_out=str(listed))
    left = {"cat/03.png", "dog/04.png", val[0]}
    for split in ("train", "val"):
        assert names(data, split) == [name for name in names(whole, split) if name not in left]
        labels = dict(zip(names(whole, split), whole.split(split).labels.tolist(), strict=True))
        assert data.split(split).labels.tolist() == [labels[name] for name in names(data, split)]
    assert data.fingerprint() != whole.fingerprint()
    listed.write_text("cat/99.png\n")
    with pytest.raises(engine("errors").UserError, match=r"names .*cat/99.png, which is not in the data"):
        image_folder(root, leave_out=str(listed))
    with pytest.raises(engine("errors").UserError, match="cannot be read"):
        image_folder(root, leave_out=str(tmp_path / "nowhere.txt"))
