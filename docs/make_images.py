"""Make the pictures of TensorBoard in docs/images from real runs: `uv run python docs/make_images.py PROJECT`.

PROJECT is a rendered project with a few finished runs, such as those of `python train.py -m lr=0.003,0.0007`. The
script needs Chromium; the variable CHROMIUM may name its path.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent / "images"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PINNED = '?pinnedCards=[{"plugin":"scalars","tag":"train/loss"},{"plugin":"scalars","tag":"val/loss"}]'
"""What docs/logging.md adds to the address of TensorBoard, so that the losses are on top."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows the runs below `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A relative path, as TensorBoard shows it on its pages.
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name, "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert server.poll() is None, "TensorBoard does not start"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def open_tab(page: Any, address: str, tab: str, *texts: str) -> None:
    """Show a tab of TensorBoard and wait for what it must say. Raises TimeoutError."""
    query = PINNED if tab == "timeseries" else ""
    page.goto("about:blank")
    page.goto(f"{address}/{query}#{tab}")
    for text in texts:
        page.get_by_text(text).first.wait_for(timeout=60_000)


def draw_tensorboard(folder: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    with tensorboard(folder) as address:
        for tab, texts in TABS.items():
            open_tab(page, address, tab, *texts)
            page.wait_for_timeout(4_000)  # charts are drawn after their titles
            if tab == "timeseries":
                page.get_by_role("button", name="Settings").last.click()
                page.wait_for_timeout(2_000)
            page.screenshot(path=IMAGES / ("tensorboard.png" if tab == "timeseries" else f"tensorboard-{tab}.png"))


TABS = {
    "timeseries": ("2 cards",),
    "custom_scalars": ("training and validation",),
    "images": ("train/inputs",),
    "hparams": ("Trial ID", "best/acc"),
}
"""The tabs that the README and the docs show, and what tells that they are there."""


def main() -> None:
    project = Path(sys.argv[1]).resolve()
    IMAGES.mkdir(exist_ok=True)
    with chromium() as browser:
        draw_tensorboard(project / "runs", browser)


if __name__ == "__main__":
    main()
