"""Make docs/images/resume.gif from real runs in a real terminal: `python docs/make_resume_gif.py PROJECT`.

PROJECT is a rendered project whose environment is active. The script needs tmux. It trains a run, kills the same run
with kill -9, resumes it, and fails if the hashes differ.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

COLUMNS, LINES = 96, 19
WHOLE = "python train.py name=whole epochs=8"
KILLED = "python train.py name=killed epochs=8"
WATCHED = 0.06  # seconds that a frame of a run is shown
FOLDER = Path(matplotlib.get_data_path()) / "fonts/ttf"
REGULAR, BOLD = (
    ImageFont.truetype(str(FOLDER / f"{name}.ttf"), 15) for name in ("DejaVuSansMono", "DejaVuSansMono-Bold")
)
COLOURS = {31: "#ff6b6b", 32: "#8fd460", 33: "#e5c07b", 36: "#56b6c2", 90: "#8a8f98"}
BACKGROUND, TEXT, DIM = "#16181d", "#e6e6e6", "#8a8f98"
WIDTH, HEIGHT, MARGIN = REGULAR.getlength("m"), 19, 14


class Terminal:
    """A tmux session, and the frames that it showed: its text with colours, and seconds."""

    def __init__(self, folder: Path) -> None:
        self.name = f"ostinato-{os.getpid()}"
        self.frames: list[tuple[str, float]] = []
        shell = f"cd {folder} && PS1='$ ' exec bash --norc"
        self.tmux("new-session", "-d", "-s", self.name, "-x", str(COLUMNS), "-y", str(LINES), shell)
        path = f"{Path(sys.executable).parent}:$PATH"
        self.enter(f'export PATH="{path}" OMP_NUM_THREADS=2; clear')
        time.sleep(1)

    def tmux(self, *words: str) -> str:
        return subprocess.run(["tmux", *words], check=True, capture_output=True, text=True).stdout

    def enter(self, text: str) -> None:
        self.tmux("send-keys", "-t", self.name, text, "Enter")

    def look(self, seconds: float) -> str:
        """Take a frame. A frame like the last one makes that one longer, but a wait is shortened to 0.2 s."""
        text = self.tmux("capture-pane", "-e", "-p", "-t", self.name).rstrip()
        if not self.frames or self.frames[-1][0] != text:
            self.frames.append((text, seconds))
        elif seconds > WATCHED or self.frames[-1][1] < 0.2:
            self.frames[-1] = (text, self.frames[-1][1] + seconds)
        return text

    def show(self, command: str, until: str = r"\n\$$") -> str:
        """Type a command and watch until the terminal shows a pattern, by default the prompt. Return what it shows."""
        for end in range(0, len(command), 4):
            self.tmux("send-keys", "-t", self.name, "-l", command[end : end + 4])
            self.look(0.06)
        self.look(0.5)
        self.tmux("send-keys", "-t", self.name, "Enter")
        time.sleep(0.5)
        while not re.search(until, plain(self.look(WATCHED))):
            time.sleep(0.1)
        return plain(self.frames[-1][0])

    def clear(self) -> None:
        self.look(2.5)
        self.enter("clear")
        time.sleep(0.5)


def plain(text: str) -> str:
    """Return a terminal's text without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def hash_in(text: str) -> str:
    return re.findall(r"weights_sha256 (\w+)", text.replace("\n", ""))[-1]


def draw(text: str) -> Image.Image:
    """Return a picture of a terminal's text with ANSI colours."""
    size = (round(COLUMNS * WIDTH) + 2 * MARGIN, LINES * HEIGHT + 2 * MARGIN)
    image = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(image)
    colour, font = TEXT, REGULAR
    for row, line in enumerate(text.split("\n")):
        column = 0
        for part in re.split(r"(\x1b\[[\d;]*m)", line):
            if codes := re.fullmatch(r"\x1b\[([\d;]*)m", part):
                for code in map(int, filter(None, (codes[1] or "0").split(";"))):
                    colour = DIM if code == 2 else COLOURS.get(code, TEXT if code in (0, 22, 39) else colour)
                    font = BOLD if code == 1 else REGULAR if code in (0, 22) else font
                if not codes[1] or codes[1] == "0":
                    colour, font = TEXT, REGULAR
                continue
            pen.text((MARGIN + column * WIDTH, MARGIN + row * HEIGHT), part, fill=colour, font=font)
            column += len(part)
    return image


def main() -> None:
    terminal = Terminal(Path(sys.argv[1]).resolve())
    whole = hash_in(terminal.show(WHOLE))
    terminal.clear()
    terminal.show(f"{KILLED} &", until=r"Epoch 4/8")
    terminal.show("kill -9 %1", until="kill -9 %1")
    terminal.show("", until="Killed")  # bash tells it before its next prompt
    terminal.clear()
    resumed = hash_in(terminal.show(f"{KILLED} resume=auto"))
    terminal.look(5)
    terminal.tmux("kill-session", "-t", terminal.name)
    assert whole == resumed, (whole, resumed)
    palette = draw(max((text for text, _ in terminal.frames), key=len)).quantize(32)
    images = [draw(text).quantize(palette=palette, dither=Image.Dither.NONE) for text, _ in terminal.frames]
    durations = [round(1000 * seconds) for _, seconds in terminal.frames]
    path = Path(__file__).parent / "images/resume.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)
    print(f"{path}: {len(images)} frames, {sum(durations) / 1000:.0f} s, {path.stat().st_size / 1000:.0f} kB, {whole}")


if __name__ == "__main__":
    main()
