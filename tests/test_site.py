"""The site of the docs is built without a network, and works in a browser: links, search, pages from the code."""

import functools
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.template import ROOT

sys.path.insert(0, str(ROOT / "docs"))
from make_images import CHROMIUM, chromium


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site. A broken link or anchor is an error, because mkdocs.yml is strict."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"  # nothing listens there
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "http_proxy": nowhere, "https_proxy": nowhere}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not included" not in done.stdout + done.stderr, "each page is in the navigation"
    return folder


class Loaded(HTMLParser):
    """Collects what a browser loads for a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in ("script", "img", "iframe") and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.found.append(str(given["href"]))


def test_no_page_loads_anything_from_another_server(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        assert [address for address in Loaded(page).found if re.match("(https?:)?//", address)] == [], page


def test_a_link_to_a_file_of_the_repository_is_a_page(site):
    assert "training_step" in (site / "source/template/my_project/engine/loop.py.html").read_text()
    assert "source/template/my_project/engine/loop.py.html" in (site / "engine.html").read_text()
    assert "Semantic Versioning" in (site / "source/CHANGELOG.html").read_text()


@pytest.fixture(scope="module")
def browsed(site) -> Iterator:
    """A browser's page, and the address of the site."""
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("needs Chromium and playwright")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1400, "height": 900}), f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("clip_grad_norm", "Config keys"),
        ("The data have changed", "Messages about stopping, saving and resuming"),
        ("cross-validate", "How do I cross-validate?"),
        ("layers learning rates", "How do I give layers their own learning rates?"),
    ],
)
def test_the_search_finds_a_page(browsed, words, title):
    page, address = browsed
    page.goto(f"{address}/index.html")
    page.locator("input.md-search__input").press_sequentially(words)  # the page listens to keys
    page.locator(".md-search-result__item", has_text=title).first.wait_for(timeout=20_000)


def test_a_reader_walks_from_the_start_to_a_task(browsed):
    page, address = browsed
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto(f"{address}/index.html")
    page.locator("nav.md-tabs").get_by_text("Gallery").click()
    page.get_by_role("heading", name="Gallery").first.wait_for()
    page.locator("article").get_by_role("link", name="GAN").click()
    page.get_by_role("heading", name="GAN: two networks in turn").wait_for()
    picture = page.locator("article img").first
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    page.locator("article").get_by_role("link", name="two optimizers").click()
    page.get_by_role("heading", name="How do I train with two optimizers?").wait_for()
    assert problems == []
