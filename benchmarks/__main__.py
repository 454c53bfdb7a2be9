"""`python -m benchmarks [CONTENT …]`: a table on stdout; JSON and plots in `.bench/` or `--into`."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contents import CONTENTS, Report
from benchmarks.plots import plot
from benchmarks.stage import missing

RESULTS = Path(".bench")


def interpreter() -> str:
    """Which Python this is: how it was compiled decides a tenth of every figure."""
    return f"{platform.python_implementation()} {platform.python_version()} ({sys.base_prefix})"


def main() -> None:
    """Measures what is asked for, everything by default."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("contents", nargs="*", metavar="CONTENT", help=f"of: {', '.join(CONTENTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of each contender")
    parser.add_argument("--seconds", type=int, default=5, help="of load in a round")
    parser.add_argument("--into", type=Path, default=RESULTS, help="folder for figures and plots")
    told = parser.parse_args()
    unknown = set(told.contents) - set(CONTENTS)
    if unknown or missing():
        sys.exit(f"unknown: {', '.join(unknown)}" if unknown else f"needs: {', '.join(missing())}")
    told.into.mkdir(parents=True, exist_ok=True)
    print(f"{interpreter()}, {os.cpu_count()} cores")
    for name in told.contents or CONTENTS:
        print(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="cedula-bench-") as folder:
            report = Report(told.rounds, told.seconds, Path(folder))
            CONTENTS[name](report)
        figures = {
            "content": name,
            "measured": time.strftime("%Y-%m-%d"),
            "python": interpreter(),
            "rounds": told.rounds,
            "seconds": told.seconds,
            "rows": report.rows,
        }
        (told.into / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot(told.into)


if __name__ == "__main__":
    main()
