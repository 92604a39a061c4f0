"""What MkDocs does besides its plain work: see mkdocs.yml.

Make pages below source/ of files that the docs link to, such as a test, and let the links lead there. Mend the search.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?:<([^>]+)>|([^)\s#]+))(#[^)]*)?\)")
LANGUAGES = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml", ".sh": "bash"}
ROOMS = {"mistakes": "Eleven mistakes", "zh": "中文"}
"""Folders of docs/ whose pages need no line in mkdocs.yml."""


def on_config(config: Any) -> None:
    """Add the pages of each room to the navigation."""
    for folder, title in ROOMS.items():
        if pages := sorted((DOCS / folder).glob("*.md"), key=lambda path: (path.stem not in ("index", "README"), path)):
            config.nav.append({title: [page.relative_to(DOCS).as_posix() for page in pages]})


def source(page: Path, link: str) -> Path | None:
    """Return the file or folder that a link of a page names, if it is no page or picture of the site."""
    path = (page.parent / link).resolve()
    is_page = (
        path.is_relative_to(DOCS)
        and path.suffix in (".md", ".png", ".gif")
        and not any(part.startswith("before") for part in path.parts)
    )
    return None if "://" in link or is_page or not path.exists() else path


def place(path: Path) -> str:
    """Return where the page of a file lies in the site."""
    name = path.relative_to(ROOT).as_posix().replace("{{ package_name }}", "my_project")
    return f"source/{name}" if path.suffix == ".md" else f"source/{name}.md"


def shown(path: Path) -> str:
    """Return the page of a file, or of all files of a folder."""
    if path.suffix == ".md":
        return LINK.sub(r"\1", path.read_text(encoding="utf-8"))
    title = path.relative_to(ROOT).as_posix().replace("{{ package_name }}", "my_project")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and "__" not in str(p))
    blocks = []
    for file in files:
        heading = "" if path.is_file() else f"## {file.relative_to(path).as_posix()}\n\n"
        language = LANGUAGES.get(file.suffix, "text")
        blocks.append(f"{heading}````{language}\n{file.read_text(encoding='utf-8').rstrip()}\n````\n")
    return f"# {title}\n\n" + "\n".join(blocks)


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each file that a page links to."""
    found = set()
    for page in DOCS.rglob("*.md"):
        for _, angled, plain, _ in LINK.findall(page.read_text(encoding="utf-8")):
            if path := source(page, angled or plain):
                found.add(path)
    for path in sorted(found):
        files.append(File.generated(config, place(path), content=shown(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to such files to their pages."""
    here = PurePosixPath(page.file.src_uri).parent
    depth = len(here.parts)

    def led(match: re.Match[str]) -> str:
        path = source(DOCS / page.file.src_uri, match[2] or match[3])
        return match[0] if path is None else f"[{match[1]}](<{'../' * depth}{place(path)}>)"

    return LINK.sub(led, markdown)


def on_post_build(config: Any) -> None:
    """Mend the search engine of the theme, lunr 2.

    It takes two nodes of its index for one if their texts are equal: letter and number of each edge, without a sign
    between number and next letter. A letter may be a digit, so a few words more or less in the docs broke the search.
    """
    for path in Path(config["site_dir"]).glob("assets/javascripts/workers/search.*.min.js"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\b(\w=\w\+\w\+\w\.id)\b", r'\1+"_"', text), encoding="utf-8")
