"""What the console shows: columns that stay in place, colour and a bar on a terminal, plain lines in a pipe."""

import fcntl
import io
import logging
import math
import multiprocessing
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from helpers.runs import the_run

QUICK = ("logger=none", "model=mlp", "log.curves=false")

UGLY = (0.5, -0.5, math.nan, 1e-12, 123456789.0, -1e-100, math.inf, 0.0, 99999.6, -0.0012345, 7.0, 12.0)

NOISY = """
    def training_step(self, model, batch, ctx):
        import logging
        import warnings

        from torch import tensor

        from .engine.api import record

        record("ugly value 数", tensor({ugly}[ctx.step % {count}], dtype=float))
        warnings.warn(f"step {{ctx.step}}\\n is odd")
        logging.getLogger("some.library").warning("seen %d batches", ctx.step)
        logging.getLogger("some.library").info("never shown")
        return self.usual_step(model, batch, ctx)

    def usual_step("""


def make_noisy(workspace: Path) -> None:
    """A task whose steps record ugly values, warn, and use a library that logs."""
    path = workspace / "digits/task.py"
    ugly = "(" + ", ".join(f"float('{value}')" for value in UGLY) + ")"
    step = NOISY.format(ugly=ugly, count=len(UGLY))
    path.write_text(path.read_text().replace("\n    def training_step(", step, 1))


# ---------------------------------------------------------------- whole runs


def test_columns_stay_in_place_whatever_the_values(train, workspace):
    make_noisy(workspace)
    done = train(*QUICK, "epochs=12", "log.every=1", "limit_train_batches=2")
    assert done.code == 0, done.out
    lines = [line for line in done.out.splitlines() if line.startswith("Epoch")]
    points = [line for line in lines if "  eta " in line]
    assert len(points) == 24
    assert len(lines) == 36
    for label in ("lr", "loss", "acc", "ugly value 数", "eta", "time", "data"):
        assert len({line.index(f"  {label} ") for line in points}) == 1, label
    assert len({line.index("  loss ") for line in lines}) == 1  # validation below training
    shown = " ".join(points)
    for text in ("nan", "1.00e-12", "1.23e+08", "-1e-100", "inf", "100000", "-0.00123"):
        assert text in shown
    assert "new best acc" in done.out


def test_a_pipe_gets_plain_lines_and_the_file_all_of_them(train, workspace):
    make_noisy(workspace)
    done = train(*QUICK, "-q", "epochs=1", "limit_train_batches=3", "log.every=1")
    assert done.code == 0, done.out
    # Said once, though it was said in every step with another number; nothing but warnings with -q.
    assert re.fullmatch(r"UserWarning: step 0 is odd \(task.py, line \d+\)\nsome.library: seen 0 batches\n", done.out)
    text = (the_run(workspace) / "train.log").read_text()
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) +rank 0  \S.*|.* rank 0    .*"
    assert all(re.fullmatch(pattern, line) for line in text.splitlines())
    assert text.count("WARNING rank 0  UserWarning: step 0 is odd") == text.count("UserWarning") == 1
    assert text.count("WARNING rank 0  some.library: seen 0 batches") == text.count("some.library") == 1
    assert text.count("  Epoch 1/1 [") == 4
    assert re.search(r"DEBUG   rank 0  validation took \d+\.\d+ s", text)
    assert "\x1b" not in text


def test_more_is_said_on_request(train, workspace):
    done = train(*QUICK, "-v", "epochs=1", "limit_train_batches=1")
    assert done.code == 0, done.out
    assert "validation took" in done.out
    assert "save took" in done.out
    assert "\x1b" not in done.out
    assert "\r" not in done.out


def test_contradicting_levels(train, workspace):
    done = train("-q", "-v", "lr=0.1")
    assert (done.code, done.out.count("\n")) == (2, 1), done.out
    assert "-q and -v contradict each other" in done.out
    done = train("log.level=info", "-v")
    assert (done.code, done.out.count("\n")) == (2, 1), done.out
    assert not (workspace / "runs").exists()


def test_why_a_run_ended_is_in_its_log(train, workspace):
    done = train(*QUICK, "max_minutes=0.0001")
    assert done.code == 75, done.out
    assert done.out.count("Stopped by max_minutes") == 1
    assert "INFO    rank 0  Stopped by max_minutes" in (the_run(workspace) / "train.log").read_text().splitlines()[-1]


def screen(output: str) -> list[str]:
    """The lines that a terminal shows of `output`. A carriage return goes back to the start of its line."""
    lines, place = [""], 0
    for part in re.split(r"(\r|\n)", re.sub(r"\x1b\[[\d;]*m", "", output)):
        if part == "\n":
            lines.append("")
        elif part == "\r":
            place = 0
        else:
            lines[-1] = lines[-1][:place] + part + lines[-1][place + len(part) :]
            place += len(part)
    return [line.rstrip() for line in lines]


def on_terminal(command: list[str], cwd: Path, columns: int, **env: str) -> tuple[int, str]:
    """The exit code and what a command writes to a terminal of this width."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    plain = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "COLUMNS", "LINES")}
    plain |= {"TERM": "xterm", "OMP_NUM_THREADS": "1"} | env
    process = subprocess.Popen(command, cwd=cwd, stdin=child, stdout=child, stderr=child, env=plain)
    os.close(child)
    chunks = []
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(parent)
    return process.wait(), b"".join(chunks).decode()


def test_a_terminal_shows_whole_lines_colour_and_a_bar_that_goes_away(workspace):
    make_noisy(workspace)
    command = [sys.executable, "train.py", *QUICK, "epochs=3", "log.every=1", "limit_train_batches=7"]
    code, output = on_terminal(command, workspace, 80)
    assert code == 0, output
    assert re.search(r"\r +\d+% █* +.*/21 steps", output)  # the bar …
    assert "\x1b[2mloss\x1b[0m" in output
    assert "\x1b[32mnew best acc\x1b[0m" in output
    assert "\x1b[33mUserWarning: step" in output
    shown = screen(output)
    assert "steps " not in "\n".join(line for line in shown if "CNN" not in line and " steps on " not in line)  # … gone
    said = [line.split(" rank 0  ", 1)[1] for line in (the_run(workspace) / "train.log").read_text().splitlines()
            if " DEBUG " not in line]  # fmt: skip
    shown = [line for line in shown if line]
    assert len(shown) == len(said)
    for mine, line in zip(shown, said, strict=True):
        if mine.endswith("…"):  # a hash is whole in the file only
            assert line.startswith(mine[:-1])
            continue
        assert line.startswith(mine)
        assert len(mine) <= 80 or "  time " not in mine, mine
        assert re.fullmatch(r"( +(time|data) \d+\.\d+)*", line.removeprefix(mine)), "only times are left out"


def test_a_pipe_beside_a_terminal_gets_no_bar(workspace):
    """`python train.py | tee log`: the bar would be torn by lines that tee writes."""
    code = "import sys; sys.path.insert(0, '.'); from digits.engine.log.console import progress_bar\n"
    code += "bar = progress_bar(5, 0, True); bar.update(); bar.refresh(); bar.close()"
    whole = on_terminal([sys.executable, "-c", code], workspace, 80)
    assert "1/5 steps" in whole[1]
    assert "/5 steps" not in on_terminal([sys.executable, "-c", code], workspace, 80, CI="true")[1]
    piped = on_terminal(["bash", "-c", '"$0" -c "$1" | cat', sys.executable, code], workspace, 80)
    assert piped == (0, "")


# ---------------------------------------------------------------- parts of it


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.83812, "0.8381"),
        (12.3456, "12.35"),
        (0, "0.000"),
        (-0.00123456, "-0.00123"),
        (123456.7, "123457"),
        (1e-12, "1.00e-12"),
        (-1.2345e-100, "-1e-100"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers(engine, value, text):
    assert engine("text").number(value) == text


def test_every_number_fits_its_column(engine):
    text = engine("text")
    for exponent in range(-310, 309, 3):
        for mantissa in (1.0, -1.0, 9.99999999, -9.99999999, 1.23456789012345678):
            shown = text.number(mantissa * 10.0**exponent)
            assert len(shown) <= text.NUMBER_WIDTH, shown
            if 10.0**exponent > 0:
                assert float(shown) == pytest.approx(mantissa * 10.0**exponent, rel=0.5)


def test_flags_stand_beside_the_overrides(engine):
    read = engine("config.compose").read_flags
    assert read(["lr=1,2", "-m", "-q"]) == ["-m", "log.level=warning", "lr=1,2"]
    assert read(["lr=1,2", "--multirun", "epochs=2"]) == ["--multirun", "lr=1,2", "epochs=2"]
    assert read(["-v", "-m", "lr=1"]) == ["-m", "log.level=debug", "lr=1"]
    assert read(["-q", "-q"]) == ["log.level=warning"]
    assert read(["--cfg=job", "-v"]) == ["--cfg=job", "log.level=debug"]
    assert read(["log.level=info", "seed=1"]) == ["log.level=info", "seed=1"]


def test_a_narrow_terminal_loses_times(engine, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    line, place = engine("log.console").line, "Epoch 3/20 [120/450]"
    cells = [("lr", "1.0e-02"), ("loss", "0.8381  "), ("eta", "0:04:12 ")]
    times = [("time", "0.019 "), ("data", "0.004 "), ("mem", "3.1G")]

    def fitted(columns):
        return re.sub(r"\x1b\[\d+m", "", line(place, cells, times, None, columns))

    whole = "Epoch 3/20 [120/450]  lr 1.0e-02  loss 0.8381    eta 0:04:12   time 0.019   data 0.004   mem 3.1G"
    assert line(place, cells, times, None, 0) == fitted(len(whole)) == whole
    assert fitted(len(whole) - 1) == whole.removesuffix("   mem 3.1G")
    short = whole.partition("   time")[0]
    assert fitted(len(short)) == fitted(20) == short, "values are never left out"
    coloured = line(place, cells, [], "acc", 80)
    assert coloured.count("\x1b[2m") == 3
    assert coloured.endswith("  \x1b[32mnew best acc\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert line(place, cells, [], "acc", 80) == f"{short}   new best acc"


def test_wide_letters_count_twice(engine, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    line = engine("log.console").line
    assert line("Epoch", [("损失", "1.0")], [("b", "2")], None, 20) == "Epoch  损失 1.0  b 2"
    assert line("Epoch", [("损失", "1.0")], [("b", "2")], None, 19) == "Epoch  损失 1.0"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def console(engine, monkeypatch):
    """`console(stdout, **env)`: what a warning looks like there."""

    def console(stdout, **env):
        for key in ("CI", "NO_COLOR"):
            monkeypatch.delenv(key, raising=False)
        for key, value in {"TERM": "xterm", **env}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(sys, "stdout", stdout)
        record = logging.makeLogRecord({"levelno": logging.WARNING, "msg": "low 数"})
        engine("log.console").Console().handle(record)
        return stdout.getvalue() if isinstance(stdout, io.StringIO) else stdout.buffer.getvalue()

    return console


def test_colour_is_for_terminals(console):
    assert console(Terminal()) == "\x1b[33mlow 数\x1b[0m\n"
    assert console(io.StringIO()) == "low 数\n"  # such as a notebook
    assert console(Terminal(), NO_COLOR="1") == console(Terminal(), CI="true") == "low 数\n"
    assert console(Terminal(), TERM="dumb") == "low 数\n"
    assert console(Terminal(), NO_COLOR="", CI="false") == "\x1b[33mlow 数\x1b[0m\n"


def test_a_loader_worker_clears_the_bar_before_its_line(engine, monkeypatch):
    """It does so without the lock of the bar, because a killed worker would never give the lock back."""
    console = engine("log.console").Console()
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    record = logging.makeLogRecord({"levelno": logging.INFO, "msg": "low"})
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    for stdout, expected in ((Terminal(), "\r\x1b[Klow\n"), (io.StringIO(), "low\n")):
        monkeypatch.setattr(sys, "stdout", stdout)
        console.handle(record)
        assert stdout.getvalue() == expected


def test_letters_that_the_console_lacks(console):
    assert console(io.TextIOWrapper(io.BytesIO(), "ascii")) == b"low ?\n"


def test_loggers_that_keep_what_they_say(engine, tmp_path, monkeypatch):
    """Such as torch's: they write to the terminal themselves, again and again."""
    log, stderr = engine("log.console"), io.StringIO()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", stderr)
    other = logging.getLogger("shy.library")
    other.propagate = False
    other.addHandler(logging.StreamHandler(stderr))
    log.open_log("info")
    other.warning("before there is a folder, 1")
    log.open_file(tmp_path)
    for number in range(2, 5):
        other.warning("before there is a folder, %d", number)
    other.error("twice\nthe same")
    other.error("twice\nthe same")
    log.close_log()
    expected = ["shy.library: before there is a folder, 1", *["shy.library: twice the same"] * 2]
    assert sys.stdout.getvalue().splitlines() == expected
    assert [line.split(" rank 0  ")[1] for line in (tmp_path / "train.log").read_text().splitlines()] == expected
    assert stderr.getvalue() == ""
    other.warning("afterwards")
    assert stderr.getvalue() == "afterwards\n"


def test_loader_workers_do_not_repeat_a_warning(engine, monkeypatch):
    log, library = engine("log.console"), logging.getLogger("some.library")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    log.open_log("warning")
    try:
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=library.warning, args=("a picture is odd: 3",))
        process.start()
        process.join()
        library.warning("a picture is odd: 4.5")
        library.warning("a picture is even: 4")
    finally:
        log.close_log()
    assert sys.stdout.getvalue().splitlines() == ["some.library: a picture is even: 4"]
