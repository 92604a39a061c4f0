"""`python -m benchmarks [NAME …] [--quick] [--out FILE]`"""

import argparse
import importlib
from pathlib import Path

from . import common

HEAD = """# What it costs

`python -m benchmarks` measures all of this on your machine. It needs the environment of the tests. `--quick` takes two
minutes and installs nothing. Other libraries are installed on demand, in their own environment, with the same torch,
flags and threads.

The rows of a table are measured in turn (A B A B …). A time is a median, with the middle half of the measurements in
parentheses. A ratio is the median of the ratios of neighbouring measurements. Ratios are similar on other machines;
times are not. CPU time counts only what the process itself computed."""
NAMES = {
    "steps": "a training step beside bare loops and libraries",
    "data": "pictures per CPU second",
    "groups": "many parameter groups",
    "startup": "until a command answers, and until its first step",
    "template": "one epoch of MNIST beside lightning-hydra-template",
    "resume": "keyed randomness, saving",
    "gpu": "what is only known on a GPU",
    "growth": "costs by size of data and model, processes, length of the run",
}


def main() -> None:
    listed = "; ".join(f"{name}: {what}" for name, what in NAMES.items())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=f"Measure: {listed}.")
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], metavar="NAME", help="default: all")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--out", type=Path, help="also write the tables to this Markdown file")
    parser.add_argument("--template", metavar="SOURCE", help="lightning-hydra-template: a git folder or URL")
    parser.add_argument("--results", type=Path, metavar="FILE", help="results.jsonl of the bundle, for gpu")
    options = parser.parse_args()
    common.project()
    measured = f"Measured on {common.machine()}{', in quick mode' if options.quick else ''}."
    print(measured, flush=True)
    page = Page(options.out) if options.out else None
    for name in options.names or NAMES:
        elsewhere = name == "gpu" and options.results is not None  # its first table names the machine
        pieces = [f"## {heading(name)}", *([] if elsewhere else [measured])]
        for number, table in enumerate(importlib.import_module(f".{name}", __package__).run(options), start=1):
            pieces.append(table.markdown())
            print(f"\n{pieces[-1]}", flush=True)
            if page and table.bars:
                pieces.append(page.draw(table.bars, f"benchmark-{name}-{number}.png"))
        if page:
            page.put(name, "\n\n".join(pieces))


def heading(name: str) -> str:
    """Return a title such as "Steps: a training step beside bare loops and libraries"."""
    return f"{name.capitalize()}: {NAMES[name]}"


class Page:
    """A Markdown file with a section for each benchmark. Sections that are not measured again stay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        parts = [part.strip() for part in ("\n" + old).split("\n## ")[1:]]
        titles = {heading(name): name for name in NAMES}
        found = {titles.get(part.split("\n", 1)[0]): f"## {part}" for part in parts}
        self.sections = {name: found[name] for name in NAMES if name in found}

    def put(self, name: str, section: str) -> None:
        self.sections[name] = section
        ordered = [self.sections[name] for name in NAMES if name in self.sections]
        self.path.write_text("\n\n".join([HEAD, *ordered]) + "\n", encoding="utf-8")

    def draw(self, bars: common.Bars, name: str) -> str:
        """Draw a plot beside the page. Return the line that shows it."""
        folder = self.path.parent / "images"
        folder.mkdir(exist_ok=True)
        bars.draw(folder / name)
        return f"![{bars.title}](images/{name})"


if __name__ == "__main__":
    main()
