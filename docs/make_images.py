"""Make docs/images from a real run: `uv run --with rich --with playwright python docs/make_images.py PROJECT`.

PROJECT is a rendered project with a finished default run. The script needs tmux and Chromium; the variable CHROMIUM
may name its path.
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
COLUMNS, LINES = 110, 26


def terminal(project: Path) -> str:
    """What a real terminal shows of a run, with its colours, as ANSI text."""
    name = f"ostinato-{os.getpid()}"
    command = f"cd {project} && PS1='$ ' && clear && {sys.executable} train.py epochs=10"
    subprocess.run(["tmux", "new-session", "-d", "-s", name, "-x", str(COLUMNS), "-y", str(LINES), "bash --norc"])
    subprocess.run(["tmux", "send-keys", "-t", name, command, "Enter"], check=True)
    text = ""
    while "weights_sha256" not in text:
        time.sleep(0.5)
        text = subprocess.check_output(["tmux", "capture-pane", "-e", "-p", "-t", name], text=True)
    subprocess.run(["tmux", "kill-session", "-t", name], check=True)
    return text.rstrip()


def draw_terminal(text: str, browser) -> None:
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(text))
    svg = console.export_svg(title="python train.py epochs=10", theme=MONOKAI)
    page = browser.new_page(viewport={"width": 1400, "height": 900}, device_scale_factor=1)
    page.set_content(f"<body style='margin:0'><div style='width:1400px'>{svg}</div></body>")
    page.locator("svg").screenshot(path=IMAGES / "terminal.png")


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
    query = "?tagFilter=epoch%7Cval%7Clr" if tab == "timeseries" else ""
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
    "timeseries": ("val",),
    "custom_scalars": ("training and validation",),
    "images": ("train/inputs",),
    "hparams": ("Trial ID", "best/acc"),
}
"""The tabs that the README and the docs show, and what tells that they are there."""


def main() -> None:
    project = Path(sys.argv[1]).resolve()
    IMAGES.mkdir(exist_ok=True)
    with chromium() as browser:
        draw_terminal(terminal(project), browser)
        draw_tensorboard(project / "runs", browser)


if __name__ == "__main__":
    main()
