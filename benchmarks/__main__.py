"""`python -m benchmarks [CONTENT …]`: one table on stdout, JSON and plots in `benchmarks/results/`."""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contents import CONTENTS, Report
from benchmarks.plots import plot
from benchmarks.stage import missing

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measures what is asked for, everything by default."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("contents", nargs="*", metavar="CONTENT", help=f"of: {', '.join(CONTENTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of each contender")
    parser.add_argument("--seconds", type=int, default=5, help="of load in a round")
    told = parser.parse_args()
    unknown = set(told.contents) - set(CONTENTS)
    if unknown or missing():
        sys.exit(f"unknown: {', '.join(unknown)}" if unknown else f"needs: {', '.join(missing())}")
    RESULTS.mkdir(exist_ok=True)
    for name in told.contents or CONTENTS:
        print(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="cedula-bench-") as folder:
            report = Report(told.rounds, told.seconds, Path(folder))
            CONTENTS[name](report)
        figures = {
            "content": name,
            "measured": time.strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "rounds": told.rounds,
            "seconds": told.seconds,
            "rows": report.rows,
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot(RESULTS)


if __name__ == "__main__":
    main()
