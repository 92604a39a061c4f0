"""Makes docs/images from a real run: `uv run --with rich --with playwright python docs/make_images.py PROJECT`.

PROJECT is a rendered project whose default run was made. Needs tmux and a Chromium (CHROMIUM names it).
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
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


def draw_tensorboard(project: Path, browser) -> None:
    from playwright.sync_api import Error

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "runs", "--port", str(port)]
    server = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page = browser.new_page(viewport={"width": 1400, "height": 800})
        for _ in range(60):
            try:
                page.goto(f"http://127.0.0.1:{port}/?tagFilter=epoch%7Cval%7Clr#timeseries")
                break
            except Error:  # TensorBoard does not answer yet
                time.sleep(1)
        page.wait_for_timeout(8_000)
        page.get_by_role("button", name="Settings").last.click()
        page.wait_for_timeout(4_000)
        page.screenshot(path=IMAGES / "tensorboard.png")
    finally:
        server.terminate()


def main() -> None:
    from playwright.sync_api import sync_playwright

    project = Path(sys.argv[1]).resolve()
    IMAGES.mkdir(exist_ok=True)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        draw_terminal(terminal(project), browser)
        draw_tensorboard(project, browser)
        browser.close()


if __name__ == "__main__":
    main()
