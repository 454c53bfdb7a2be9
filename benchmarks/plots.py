"""Plots that can be read without the text, as SVG."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

ACCENT, GREY = "#4184e4", "#768390"
"""Both can be read on white and on black."""
POINTS = "offset points"

mpl.use("svg")
mpl.rcParams |= {
    "svg.hashsalt": "cedula",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.transparent": True,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY),
}


def plot(results: Path) -> None:
    """Draws every plot for which there are figures."""
    figures = {path.stem: json.loads(path.read_text())["rows"] for path in results.glob("*.json")}
    for name, draw in {"main": _ratios, "growth": _growth, "numbers": _numbers}.items():
        if name in figures:
            canvas, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
            draw(axes, figures[name])
            canvas.savefig(results / f"{name}.svg", metadata={"Date": None})
            plt.close(canvas)


def _ratios(axes: Axes, rows: list[dict[str, Any]]) -> None:
    mine = [row for row in rows if "ratio" in row]
    ratios = [row["ratio"] for row in mine]
    spread = [
        [row["ratio"] - row["ratio_low"] for row in mine],
        [row["ratio_high"] - row["ratio"] for row in mine],
    ]
    axes.barh([row["what"] for row in mine], ratios, xerr=spread, color=ACCENT, ecolor=GREY, capsize=3)
    for position, row in enumerate(mine):
        axes.annotate(f"{row['ratio']:.2f}", (row["ratio_high"], position), (6, -4), textcoords=POINTS)
    axes.invert_yaxis()
    axes.set_title("Requests/s as a share of a bare Flask POST; whiskers: all rounds", loc="left")
    axes.margins(x=0.15)


def _growth(axes: Axes, rows: list[dict[str, Any]]) -> None:
    mine = [row for row in rows if "of_smallest" in row]
    axes.plot([row["users"] for row in mine], [row["of_smallest"] for row in mine], "o-", color=ACCENT)
    axes.axhline(1.05, color=GREY, linestyle="--", linewidth=1)
    axes.text(mine[0]["users"], 1.07, "5 % more", color=GREY)
    axes.set(xscale="log", xlabel="stored users", ylim=(0, 1.5))
    axes.set_title("CPU time per registration, as a share of that with 1,000 stored users", loc="left")


def _numbers(axes: Axes, rows: list[dict[str, Any]]) -> None:
    axes.plot([row["share"] * 100 for row in rows], [row["calls"] for row in rows], "o-", color=ACCENT)
    for row in rows:
        place = (row["share"] * 100, row["calls"])
        axes.annotate(f"{row['calls']:.2f}", place, (-4, 6), textcoords=POINTS, ha="right")
    axes.set(xlabel="number space taken, %", ylim=(0, None))
    axes.set_title("Script calls per registration", loc="left")
