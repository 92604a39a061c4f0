"""`python -m benchmarks [NAME …] [--quick] [--out FILE]`"""

import argparse
import importlib
from pathlib import Path

from . import common

HEAD = """# What it costs

`python -m benchmarks` measures this on your machine (in an environment that can run the tests; `--quick` takes
half a minute). Everything in a row was measured in turn in one process: times are medians with the middle half
of the measurements, ratios are of medians. Ratios hold on other machines, times do not."""
NAMES = {"resume": "keyed randomness, reaching a batch, saving"}


def main() -> None:
    listed = "; ".join(f"{name}: {what}" for name, what in NAMES.items())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=f"Measure: {listed}.")
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], metavar="NAME", help="default: all")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--out", type=Path, help="write the tables to this Markdown file too")
    options = parser.parse_args()
    common.render()
    pieces = [HEAD, f"Measured on {common.machine()}."]
    print(pieces[1], flush=True)
    for name in options.names or NAMES:
        for table in importlib.import_module(f".{name}", __package__).run(options.quick):
            pieces.append(table.markdown())
            print(f"\n{pieces[-1]}", flush=True)
    if options.out:
        options.out.write_text("\n\n".join(pieces) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
