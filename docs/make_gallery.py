"""Train the tasks of docs/gallery/ and draw their curves into docs/images/: `python docs/make_gallery.py PROJECT`.

PROJECT is a rendered project called `my_project`. The script writes the files of the pages into it.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent


def main() -> None:
    project = Path(sys.argv[1]).resolve()
    for page in sorted((DOCS / "gallery").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        files = re.findall(
            r"^```(?:python|yaml)\n# ((?:my_project|configs)/\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL
        )
        for place, content in files:
            (project / place).parent.mkdir(parents=True, exist_ok=True)
            (project / place).write_text(content, encoding="utf-8")
        commands = re.findall(r"^python train.py experiment=.*$", text, re.MULTILINE)
        for command in commands:
            subprocess.run(command.replace("python", sys.executable, 1), shell=True, cwd=project, check=True)
        if commands:
            last = max(project.glob("runs/*/*/curves.png"), key=lambda path: path.stat().st_mtime)
            shutil.copyfile(last, DOCS / f"images/gallery-{page.stem}.png")


if __name__ == "__main__":
    main()
