"""`data.cache`: decoded pictures in a file that all processes read."""

import hashlib
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from helpers.runs import result, the_run
from PIL import Image, ImageOps

KEYS = np.arange(1, 9, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
PLAIN = {"mean": 0.0, "std": 1 / 255, "channels": 3}
BOXES = ["RandomResizedCrop", "RandomHorizontalFlip"]


@pytest.fixture
def counted(engine, monkeypatch):
    """The paths that are decoded for a cache."""
    cache, found = engine("datasets.cache"), []
    decoded = cache.decoded
    monkeypatch.setattr(cache, "decoded", lambda *args: found.append(args[-1]) or decoded(*args))
    return found


@pytest.fixture
def data(image_folder, photos, tmp_path):
    """`data(**options)`: the pictures of `photos`, with a cache."""
    return lambda **options: image_folder(photos, **{"size": 16, "cache": tmp_path / "cache", **PLAIN, **options})


def by_pillow(path, side):
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if min(image.size) > side:
        scale = side / min(image.size)
        image = image.resize([round(scale * length) for length in image.size], Image.Resampling.BICUBIC)
    return np.asarray(image)


def forbidden(*_, **__):
    raise AssertionError("A picture was read from its file.")


@pytest.mark.parametrize("side", [256, 30])
def test_cached_pictures_are_pillows(engine, data, monkeypatch, side):
    """PNG, JPEG, grey, turned and CMYK pictures, whole or with a shorter side of `side`."""
    monkeypatch.setattr(engine("datasets.image_folder"), "SIDE", side)
    made = data()
    for split in ("train", "val"):
        files = made.split(split)
        for index, path in enumerate(files.samples):
            assert np.array_equal(files.cache[index], by_pillow(path, side)), path
            assert min(files.cache[index].shape[:2]) == min(40, side)


def test_a_larger_size_has_larger_pictures(data, photos):
    Image.new("RGB", (900, 700)).save(photos / "a/0.png")
    for size, side in ((224, 256), ([100, 448], 512), (16, 256)):
        files = data(size=size, val_fraction=0.01).split("train")
        places = {os.path.basename(path): index for index, path in enumerate(files.samples) if "/a/" in path}
        assert min(files.cache[places["0.png"]].shape[:2]) == side


@pytest.mark.parametrize("augment", [None, BOXES])
def test_no_file_is_opened_once_the_cache_is_there(data, monkeypatch, augment, counted):
    """And the pixels are those of the files, because these pictures are smaller than the cache's."""
    options = {"size": 40, "augment": augment}  # Pillow decodes JPEG files smaller for smaller sizes
    made = data(**options), data(**options, cache=None)
    files, plain = ([own.split(name) for name in ("train", "val")] for own in made)
    assert len(counted) == len(set(counted)) == 10
    right = [own.batch(np.arange(len(own)), KEYS[: len(own)]) for own in plain]
    for name in ("PIL.Image.open", "numpy.fromfile", "torchvision.io.decode_jpeg"):
        monkeypatch.setattr(name, forbidden)
    for own, (images, labels) in zip(files, right, strict=True):
        for again in (own, pickle.loads(pickle.dumps(own))):  # as a loader worker has it
            found = again.batch(np.arange(len(own)), KEYS[: len(own)])
            assert (found[0] - images).abs().max() <= 1, "decoders may differ by one"
            assert torch.equal(found[1], labels)
        alone = torch.cat([own.batch(np.array([n]), KEYS[[n]])[0] for n in range(len(own))])
        assert torch.equal(alone, own.batch(np.arange(len(own)), KEYS[: len(own)])[0])
    assert len(counted) == 10


def test_a_second_run_decodes_nothing_and_folds_share(data, counted):
    data().split("train")
    assert len(counted) == 10
    for fraction in (0.2, 0.4):
        data(val_fraction=fraction).split("val")
    assert len(counted) == 10
    data(size=300).split("train")
    data(background="black").split("train")
    assert len(counted) == 30


def test_a_changed_file_makes_a_new_cache(data, photos, counted, tmp_path):
    data().split("train")
    before, path = os.stat(photos / "a/0.png"), photos / "a/0.png"
    pixels = np.asarray(Image.open(path)).copy()
    Image.fromarray(255 - pixels).save(path)
    path.write_bytes(path.read_bytes()[: before.st_size].ljust(before.st_size, b"\0"))  # of equal size
    Image.fromarray(255 - pixels).save(path)
    files = data(val_fraction=0.01).split("train")
    assert len(counted) == 20
    (place,) = [index for index, own in enumerate(files.samples) if own == str(path)]
    assert np.array_equal(files.cache[place], 255 - pixels)
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 1, "it replaces the old one"
    os.utime(path)
    data().split("train")
    assert len(counted) == 30
    shutil.copy(path, photos / "a/9.png")
    data().split("train")
    assert len(counted) == 41


@pytest.mark.parametrize("damage", ["short", "no digest", "empty", "long"])
def test_a_half_written_cache_is_not_used(data, counted, tmp_path, damage):
    data().split("train")
    (file,) = (tmp_path / "cache").glob("*.pixels")
    whole = file.read_bytes()
    broken = {"short": whole[:-1], "no digest": bytes(64) + whole[64:], "empty": b"", "long": whole + b"\0"}
    file.write_bytes(broken[damage])
    stray = file.with_name(f".{file.name}.0123.tmp")
    stray.write_bytes(whole[:9])
    data().split("train")
    assert len(counted) == 20
    assert file.read_bytes() == whole
    assert not stray.exists()
    assert (file.parent / ".gitignore").read_text() == "*\n"


def test_a_folder_in_use_keeps_its_gitignore(data, tmp_path):
    (tmp_path / ".gitignore").write_text("/runs\n")
    data(cache=tmp_path).split("train")
    assert (tmp_path / ".gitignore").read_text() == "/runs\n"


def test_a_failure_on_the_way_leaves_no_cache(engine, data, photos, tmp_path):
    whole = (photos / "b/4.jpg").read_bytes()
    (photos / "b/4.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(engine("errors").UserError, match=r"4\.jpg cannot be read"):
        data().split("train")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix in (".pixels", ".tmp")]


def test_two_processes_make_one_cache(engine, data, tmp_path, monkeypatch):
    """One writes it, the other waits. No picture is decoded twice."""
    fork, cache = multiprocessing.get_context("fork"), engine("datasets.cache")
    count, both, decoded = fork.Value("i", 0), fork.Barrier(3), cache.decoded

    def slow(*arguments):
        with count:
            count.value += 1
        return decoded(*arguments)

    monkeypatch.setattr(cache, "decoded", slow)
    made, found = data(), fork.SimpleQueue()

    def child():
        both.wait()
        files = made.split("train")
        found.put(hashlib.sha256(b"".join(files.cache[n].tobytes() for n in range(len(files)))).hexdigest())

    children = [fork.Process(target=child) for _ in range(2)]
    for process in children:
        process.start()
    both.wait()
    assert found.get() == found.get()
    for process in children:
        process.join()
        assert process.exitcode == 0
    assert count.value == 10
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 1


def test_no_room(engine, data, tmp_path, monkeypatch):
    errors, cache = engine("errors"), engine("datasets.cache")
    monkeypatch.setattr(cache, "_JUDGED", 4)
    usage, made = shutil.disk_usage(tmp_path)._replace(free=1000), data()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(errors.SaveError, match=r"has no room: 0\.0 GiB are needed, 0\.0 are free\. Make room"):
            made.split("train")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(errors.SaveError, match=r"has no room: No space left on device\. Make room"):
            made.split("train")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix in (".pixels", ".tmp")]


def test_mistakes(engine, data, photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(engine("errors").UserError, match=r"cannot be written: .* Name another folder"):
        data(cache=tmp_path / "file").split("train")
    with pytest.raises(engine("errors").UserError, match=r"would be a class\. Name a folder elsewhere"):
        data(cache=photos / "cache")
    assert data(cache="").cache is None
    deep = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
    Image.fromarray(deep).save(photos / "a/0.png")
    with pytest.raises(engine("errors").UserError, match="holds pictures of 8 bits only"):
        data(channels=1)


def test_a_cache_that_goes_away(engine, data, tmp_path):
    files = pickle.loads(pickle.dumps(data().split("train")))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(engine("errors").UserError, match="was changed or deleted"):
        files.batch(np.arange(2), KEYS[:2])


def test_a_run_repeats_with_any_workers_and_another_place(train, workspace, photos, server):
    base = (
        "data=image_folder", f"data.root={photos}", "data.size=16", "batch_size=2", "epochs=3", "model=mlp",
        "data.augment=[RandomResizedCrop,RandomHorizontalFlip]", "logger=none", "log.curves=false",
    )  # fmt: skip
    hashes = set()
    for workers in (0, 2):
        done = train(*base, f"workers={workers}", f"name=w{workers}", "data.cache=cache")
        assert done.code == 0, done.out
        assert done.out.count("Decoding 10 pictures") == (workers == 0)
        hashes.add(result(the_run(workspace, f"w{workers}"))["weights_sha256"])
    assert len(hashes) == 1
    run = the_run(workspace, "w0")
    (workspace / "cache").rename(workspace / "elsewhere")
    done = train(f"resume={run}", "data.cache=elsewhere", "epochs=4")
    assert done.code == 0, done.out
    assert "Decoding" not in done.out
    done = train(f"resume={run}", "data.cache=null", "epochs=5")
    assert done.code == 2, done.out
    # A check reads the files themselves.
    broken, facts = photos / "a/0.png", os.stat(photos / "a/0.png")
    broken.write_bytes(bytes(facts.st_size))
    os.utime(broken, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    options = [option for option in base if option.startswith("data")]
    done = server.run(workspace / "digits/__main__.py", "check-data", *options, "data.cache=elsewhere", cwd=workspace)
    assert done.code == 1, done.out
    assert "a/0.png" in done.out
