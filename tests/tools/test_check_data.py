"""`python -m digits check-data KEY=VALUE…`."""

import shutil

import pytest
from helpers.snippets import SNIPPETS


@pytest.fixture
def broken(pictures):
    """Three pictures that cannot be read: cut, empty, and no picture at all."""
    bad = [pictures / name for name in ("cross/3.png", "disc/0.png", "方块/17.png")]
    bad[0].write_bytes(bad[0].read_bytes()[:-30])
    bad[1].write_bytes(b"")
    bad[2].write_text("<html>Not found</html>")
    return bad


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_are_listed_and_left_out(tool, train, pictures, broken, workspace, tmp_path, workers):
    data = ("data=image_folder", f"data.root='{pictures}'", f"workers={workers}")
    listed = tmp_path / "broken.txt"
    done = tool("check-data", *data, "--out", listed, project=workspace)
    assert done.code == 1, done.out
    assert sorted(listed.read_text().splitlines()) == sorted(map(str, broken))
    assert "3 of 120 samples cannot be read." in done.last
    assert done.out.count("\n") == 4, "one line for each, and no traceback"
    refused = train(*data, "logger=none")
    assert refused.code == 2
    assert refused.out.count("\n") == 1
    assert "cannot be read" in refused.last
    assert "check-data" in refused.last
    assert not list((workspace / "runs").glob("*/*"))
    done = tool("check-data", *data, f"data.leave_out={listed}", project=workspace)
    assert (done.code, done.last) == (0, "All 117 samples can be read.")
    done = train(*data, f"data.leave_out={listed}", "model=mlp", "batch_size=16", "epochs=1", "logger=none")
    assert done.code == 0, done.out


def test_a_run_goes_on_without_a_picture_that_breaks_meanwhile(tool, train, pictures, workspace, tmp_path, stopping):
    options = (*stopping, "data=image_folder", f"data.root='{pictures}'", "batch_size=16", "logger=none", "workers=0")
    assert train(*options, AT="4", WITH="SIGTERM").code == 75
    (run,) = (workspace / "runs/default").iterdir()
    (pictures / "cross/3.png").write_bytes(b"")
    listed = tmp_path / "broken.txt"
    listed.write_text("cross/3.png\n")
    done = train(f"resume={run}", f"data.leave_out={listed}")
    assert done.code == 2, done.out
    assert "allow_changed_data=true" in done.last
    done = train(f"resume={run}", f"data.leave_out={listed}", "allow_changed_data=true")
    assert done.code == 0, done.out
    assert f"leave_out: {listed}" in (run / "config.yaml").read_text()


def test_data_that_are_no_pictures(tool, train, workspace):
    done = tool("check-data", "data=digits", "workers=0", project=workspace)
    assert (done.code, done.last) == (0, "All 1,797 samples can be read.")
    done = tool("check-data", "data=digit", project=workspace)
    assert done.code == 2
    assert done.out.count("\n") == 1


def test_samples_of_your_own_data_are_counted(tool, workspace):
    shutil.copy(workspace / "digits/data/digits.py", workspace / "digits/data/mine.py")
    path = workspace / "digits/data/mine.py"
    path.write_text(path.read_text() + "\n\nclass Mine(Digits):\n    def split(self, name):\n        return Bad()\n\n\n"
                    "class Bad(Dataset):\n    def __len__(self):\n        return 50\n\n"
                    "    def __getitem__(self, index):\n        return 1 / (index % 20)\n")  # fmt: skip
    done = tool("check-data", "data._target_=.data.mine.Mine", "workers=0", project=workspace)
    assert done.code == 1
    assert "train 20: division by zero" in done.out
    assert "9 of 150 samples cannot be read" in done.last


def test_data_that_make_whole_batches_only(tool, workspace):
    shutil.copy(SNIPPETS / "whole_batches.py", workspace / "digits/data/rows.py")
    done = tool("check-data", "data._target_=.data.rows.All", "~data.shift", "workers=0", project=workspace)
    assert done.code == 1, done.out
    assert "train 3: row 3 is torn" in done.out
    assert "1 of 5 samples cannot be read." in done.last
