"""An owner who works on a project: draws edits, and remembers what must not be lost.

Every line that the owner writes holds a mark that occurs nowhere else. So a test finds the line again after an
update.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.formatting import SETTINGS, format_with
from helpers.releases import files

MARK = r"owner-\d+-\d+"


@dataclass
class Owner:
    """Edits `project`, a package called `digits`, as `draw` says."""

    project: Path
    draw: random.Random
    number: int
    owned: Callable[[str], bool]
    later: list[str]
    """Paths that the template has later."""
    address: str
    """Where the template lies now."""
    marks: dict[str, str] = field(default_factory=dict)
    """Each mark and the file it was written into."""
    cut: list[tuple[str, str]] = field(default_factory=list)
    """Lines taken out of a file, none of which occurs in it twice."""
    deleted: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    is_sparse: bool = False
    did: list[str] = field(default_factory=list)

    def work(self, edits: Sequence[Callable[["Owner"], None]]) -> None:
        """Do one to five kinds of edits. Edits of whole files come last."""
        kinds = self.draw.sample(edits, min(len(edits), self.draw.randint(1, 5)))
        for edit in sorted(kinds, key=EDITS.index):
            self.did.append(edit.__name__)
            edit(self)

    # --- How things are written

    def mark(self, path: str) -> str:
        mark = f"owner-{self.number}-{len(self.marks)}"
        self.marks[mark] = path
        return mark

    def new_file(self, path: str, head: str = "") -> None:
        file = self.project / path
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"# {self.mark(path)}\n" for _ in range(self.draw.randint(2, 12)))
        file.write_text(head + lines, encoding="utf-8")

    def insert(self, path: str, after: str | None = None) -> None:
        """A line below a random one, or below the first that matches."""
        lines = (self.project / path).read_text(encoding="utf-8").splitlines()
        places = [n for n, line in enumerate(lines) if after is None or re.search(after, line)]
        place = self.draw.choice(places) if places else len(lines) - 1
        indent = re.match(r"\s*", lines[place])[0] if lines else ""  # type: ignore[index]
        lines.insert(place + 1, f"{indent}# {self.mark(path)}")
        self.write(path, lines)

    def replace(self, path: str, pattern: str = r"\S") -> None:
        """A mark at the end of a random line that matches."""
        lines = (self.project / path).read_text(encoding="utf-8").splitlines()
        places = [n for n, line in enumerate(lines) if re.search(pattern, line) and "owner-" not in line]
        if places:
            place = self.draw.choice(places)
            lines[place] += f" # {self.mark(path)}"
            self.write(path, lines)

    def set_value(self, path: str) -> None:
        """A mark as the value of a random key. The comment behind it stays."""
        lines = (self.project / path).read_text(encoding="utf-8").splitlines()
        places = [n for n, line in enumerate(lines) if re.match(r"\s*\w+: [\w.]+", line) and "owner-" not in line]
        if places:
            place = self.draw.choice(places)
            lines[place] = re.sub(r"(?<=: )[\w.]+", self.mark(path), lines[place], count=1)
            self.write(path, lines)

    def cut_line(self, path: str) -> None:
        lines = (self.project / path).read_text(encoding="utf-8").splitlines()
        places = [
            n
            for n, line in enumerate(lines)
            if len(line.strip()) > 12 and lines.count(line) == 1 and "owner-" not in line
        ]
        if places:
            self.cut.append((path, lines.pop(self.draw.choice(places))))
            self.write(path, lines)

    def write(self, path: str, lines: Iterable[str]) -> None:
        (self.project / path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def some(self, pattern: str, owned: bool | None = None) -> list[str]:
        """One to three files whose paths match."""
        found = [p for p in files(self.project) if re.search(pattern, p) and owned in (None, self.owned(p))]
        return self.draw.sample(found, min(len(found), self.draw.randint(1, 3)))

    # --- What owners do

    def format_everything(self) -> None:
        """With other settings than the template's."""
        format_with(f"{self.draw.choice(SETTINGS)} # {self.mark('pyproject.toml')}", self.project)

    def choose_merge_drivers(self) -> None:
        """Which git would follow in every merge."""
        drivers = self.draw.choice(["* merge=ours\n", "*.py -merge\n*.yaml merge=union\n", "* merge=binary\n"])
        with open(self.project / ".gitattributes", "a", encoding="utf-8") as file:
            file.write(f"# {self.mark('.gitattributes')}\n{drivers}")

    def change_config_values(self) -> None:
        for path in self.some(r"^configs/.*\.yaml$"):
            self.set_value(path)

    def add_a_model(self) -> None:
        self.new_file("digits/models/mine.py", "from torch import nn\n")
        self.new_file("configs/model/mine.yaml", "_target_: .models.mine.Mine\n")

    def add_a_loss(self) -> None:
        self.insert("digits/losses.py")
        self.new_file("configs/loss/mine.yaml", "_target_: .losses.Mine\n")

    def add_a_data_set(self) -> None:
        self.new_file("digits/data/mine.py")
        self.new_file("configs/data/mine.yaml", "_target_: .data.mine.Mine\n")

    def add_a_dependency(self) -> None:
        """In the order of the alphabet, as `uv add` does."""
        path = "pyproject.toml"
        lines = (self.project / path).read_text(encoding="utf-8").splitlines()
        name = self.draw.choice(
            ["albumentations", "einops", "pandas", "rich", "scipy", "timm", "transformers", "xarray"]
        )
        place = lines.index("dependencies = [") + 1
        while lines[place].strip(' "') < name and lines[place] != "]":
            place += 1
        lines.insert(place, f'    "{name}", # {self.mark(path)}')
        self.write(path, lines)

    def add_a_scheduler(self) -> None:
        self.new_file("configs/scheduler/mine.yaml", "_target_: .engine.schedule.Mine\n")
        file = self.project / "digits/engine/schedule.py"
        text = file.read_text(encoding="utf-8")
        place = self.draw.choice(re.findall(r"\n\n(?:@dataclass.*\n)?(?:def|class) \w+", text))
        lines = "".join(f"# {self.mark('digits/engine/schedule.py')}\n" for _ in range(6))
        file.write_text(text.replace(place, f"\n\n{lines}{place}", 1), encoding="utf-8")

    def rewrite_the_task(self) -> None:
        self.new_file("digits/task.py")

    def change_the_scripts(self) -> None:
        self.insert(self.draw.choice(["train.py", "find_lr.py", "digits/__main__.py"]))

    def patch_the_engine(self) -> None:
        for path in self.some(r"^digits/engine/.*\.py$"):
            self.draw.choice([self.insert, self.insert, self.replace, self.cut_line])(path)

    def change_the_tools(self) -> None:
        for path in self.some(r"^(\.gitignore|\.editorconfig|\.pre-commit-config\.yaml|\.github/.*|pyproject\.toml)$"):
            self.insert(path)

    def change_tests(self) -> None:
        for path in self.some(r"^tests/.*\.py$"):
            self.insert(path)

    def write_what_the_template_adds_later(self) -> None:
        if self.later:
            self.new_file(self.draw.choice(self.later))

    def rename_files(self) -> None:
        for path in self.some(r"\.(py|yaml)$"):
            self.move(path, str(Path(path).with_stem(f"{Path(path).stem}_mine")))

    def move_files(self) -> None:
        for path in self.some(r"^(digits|configs|tests)/.*\.(py|yaml)$"):
            self.move(path, f"old/{path}")

    def move(self, path: str, target: str) -> None:
        (self.project / target).parent.mkdir(parents=True, exist_ok=True)
        (self.project / path).rename(self.project / target)
        self.marks = {mark: target if where == path else where for mark, where in self.marks.items()}
        self.cut = [(target if where == path else where, line) for where, line in self.cut]
        began = next((old for old, new in self.moved.items() if new == path), path)
        self.moved[began] = target

    def delete_files(self) -> None:
        for path in self.some(r"\.(py|yaml|md)$"):
            self.delete(path)

    def delete(self, path: str) -> None:
        (self.project / path).unlink()
        self.marks = {mark: where for mark, where in self.marks.items() if where != path}
        self.cut = [(where, line) for where, line in self.cut if where != path]
        self.moved = {old: new for old, new in self.moved.items() if new != path}
        self.deleted.add(path)

    def turn_lines_into_crlf(self) -> None:
        if self.draw.random() < 0.5:  # else git writes them back
            self.delete(".gitattributes")
        for path in self.some(r"\.(py|yaml)$") if self.draw.random() < 0.7 else files(self.project):
            file = self.project / path
            file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    def correct_the_address(self) -> None:
        """The template lies elsewhere now, and its tags may have moved, too."""
        file = self.project / ".copier-answers.yml"
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub("(?m)^_src_path: .*$", f"_src_path: {self.address}", text), encoding="utf-8")

    def link_folders(self) -> None:
        """To another disk. The links are committed, and the template ignores folders of these names."""
        for name in self.draw.sample(["runs", "data", "outputs"], 2):
            (self.project / name).symlink_to(f"../disk/{name}")
        self.new_file("links.txt")

    def move_into_src(self) -> None:
        """What this owner remembers keeps the old paths."""
        (self.project / "src").mkdir()
        (self.project / "digits").rename(self.project / "src/digits")

    def check_out_a_part(self) -> None:
        """A sparse checkout, which holds few files on the disk, and all in git."""
        self.is_sparse = True


EDITS = [
    Owner.format_everything,
    Owner.choose_merge_drivers,
    Owner.change_config_values,
    Owner.add_a_model,
    Owner.add_a_loss,
    Owner.add_a_data_set,
    Owner.add_a_dependency,
    Owner.add_a_scheduler,
    Owner.rewrite_the_task,
    Owner.change_the_scripts,
    Owner.patch_the_engine,
    Owner.change_the_tools,
    Owner.change_tests,
    Owner.write_what_the_template_adds_later,
    Owner.rename_files,
    Owner.move_files,
    Owner.delete_files,
    Owner.turn_lines_into_crlf,
    Owner.correct_the_address,
    Owner.link_folders,
    Owner.move_into_src,
    Owner.check_out_a_part,
]
