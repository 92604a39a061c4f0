"""TensorBoard, opened in a browser on real runs."""

import importlib.util
import shutil
import sys
from collections.abc import Callable

import pytest
from helpers.template import ROOT

sys.path.insert(0, str(ROOT / "docs"))
from make_images import CHROMIUM, PINNED, chromium, open_tab, tensorboard

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None, reason="needs Chromium and playwright"
)

COMMAND = "epochs=1 log.every=5 log.histograms=10 lr="


@pytest.fixture(scope="module")
def look(project, server, tmp_path_factory) -> "Callable":
    """`look(tab, *texts)`: the page of a tab, for a sweep of two runs, once it shows these texts."""
    workspace = tmp_path_factory.mktemp("tabs") / "digits"
    shutil.copytree(project, workspace, ignore=shutil.ignore_patterns("runs"))
    for lr in ("0.003", "0.0007"):
        done = server.run(workspace / "train.py", *f"{COMMAND}{lr}".split())
        assert done.code == 0, done.out
    with tensorboard(workspace / "runs") as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})

        def look(tab: str, *texts: str):
            open_tab(page, address, tab, *texts)
            return page

        yield look


def test_scalars(look):
    look("scalars", "best/acc", "lr/all")


def test_time_series(look):
    assert f"http://localhost:6006/{PINNED}" in (ROOT / "docs/logging.md").read_text(encoding="utf-8")
    page = look("timeseries", "2 cards", "best/acc")
    titles = [page.locator("scalar-card .tag").nth(n).inner_text() for n in range(3)]
    assert ["".join(title.split()) for title in titles] == ["train/loss", "val/loss", "best/acc"]


def test_training_and_validation_in_one_chart(look):
    page = look("custom_scalars", "training and validation", "learning rate")
    page.get_by_text("Matches (6)").first.wait_for()  # of two runs: train, train_epoch and val


def test_images(look):
    page = look("images", "train/inputs", "val/predictions", "val/mistakes")
    picture = page.locator("img[src*='individualImage']").first
    picture.wait_for()
    page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [424, 488]


def test_graphs(look):
    page = look("graphs", "Main Graph")
    for name in ("input", "CNN", "output"):
        page.locator("g.node text", has_text=name).first.wait_for()


def test_histograms(look):
    look("histograms", "gradients", "weights")


def test_texts(look):
    page = look("text", f"python train.py {COMMAND}0.003", f"python train.py {COMMAND}0.0007")
    page.get_by_text("name: default").first.wait_for()


def test_hparams_with_the_best_value(look):
    look("hparams", "Trial ID", "best/acc", "0.0030000", "0.00070000")
