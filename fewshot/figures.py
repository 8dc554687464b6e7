"""The figures of a report, each from plain numbers to an `<svg>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.metrics.interval import Estimate
from fewshot.svg import draw_svg, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")  # Okabe, Ito 2008
MARKS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
WIDTH = 7.4  # inches
GRID = "#e4e4e4"


@dataclass(frozen=True, slots=True)
class Line:
    """Accuracy of one strategy: for each number of shots it was run with, the estimate."""

    label: str
    points: dict[str, Estimate]


def accuracy_figure(name: str, title: str, shots: Sequence[str], lines: Sequence[Line]) -> str:
    """Draw accuracy against shots with 95 % bands, one line a strategy; with one number of shots, a point each."""
    if len(shots) == 1:
        return _points(name, title, shots[0], lines)

    def paint(axes: Axes) -> None:
        for i, line in enumerate(lines):
            place = [k for k, shot in enumerate(shots) if shot in line.points]
            mean, half = _means([line.points[shots[k]] for k in place])
            look: dict[str, Any] = {"color": COLOURS[i % 8], "marker": MARKS[i % 8], "linestyle": DASHES[i // 8 % 4]}
            axes.fill_between(place, mean - half, mean + half, color=look["color"], alpha=0.18, linewidth=0)
            axes.errorbar(place, mean, half, **look, capsize=2, elinewidth=0.8, label=line.label)
        axes.set_xticks(range(len(shots)), shots)
        axes.set(title=title, xlabel="labelled examples a class (shots)", ylabel="accuracy, %")
        axes.grid(color=GRID)
        axes.margins(x=0.04)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))

    return draw_svg(name, title, (WIDTH + 1.6, max(3.6, 1 + 0.2 * len(lines))), paint)


def _points(name: str, title: str, shot: str, lines: Sequence[Line]) -> str:
    def paint(axes: Axes) -> None:
        rows = range(len(lines))[::-1]
        mean, half = _means([line.points[shot] for line in lines])
        for i, row in enumerate(rows):
            axes.errorbar(mean[i], row, xerr=half[i], color=COLOURS[0], marker="o", capsize=3)
            axes.annotate(f"{mean[i]:.1f}", (mean[i], row), (0, 6), textcoords="offset points", ha="center")
        axes.set_yticks(rows, [line.label for line in lines])
        axes.set_ylim(-0.6, len(lines) - 0.3)
        axes.set(title=title, xlabel="accuracy, %", ylabel="strategy")
        axes.grid(color=GRID, axis="x")
        axes.margins(x=0.1)

    return draw_svg(name, title, (WIDTH, 1.2 + 0.42 * len(lines)), paint)


def _means(estimates: Sequence[Estimate]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and half widths in per cent; no half width counts as 0."""
    mean = np.array([100 * e.mean for e in estimates])
    return mean, np.nan_to_num([100 * e.half_width for e in estimates])


def reliability_figure(name: str, title: str, table: Sequence[Sequence[float]]) -> str:
    """Draw the accuracy of the predictions of each bin of confidence.  [3][bins]: predictions, confidences, right"""
    count, confidence, right = np.asarray(table, dtype=np.float64)
    used = count > 0
    centre = (np.arange(len(count)) + 0.5) / len(count)

    def paint(axes: Axes) -> None:
        width = 1 / len(count)
        share = count[used] / count.sum()
        axes.bar(centre[used], share, width, color="#dddddd", label="share of the predictions")
        axes.plot([0, 1], [0, 1], color="#888", linestyle="--", linewidth=1, label="perfectly calibrated")
        x, y = confidence[used] / count[used], right[used] / count[used]
        axes.vlines(x, np.minimum(x, y), np.maximum(x, y), color=COLOURS[1], linewidth=2, label="gap")
        axes.plot(x, y, color=COLOURS[0], marker="o", markersize=4, label="accuracy")
        axes.set(title=title, xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(color=GRID)
        axes.legend(loc="upper left", fontsize=8, frameon=True, edgecolor="none")

    return draw_svg(name, title, (4.6, 4.2), paint)


def recall_figure(name: str, title: str, recall: Sequence[tuple[str, float]]) -> str:
    """Draw the share of each class's queries that were right, in per cent, in the given order from the top."""

    def paint(axes: Axes) -> None:
        rows = range(len(recall))[::-1]
        values = [100 * value for _, value in recall]
        axes.barh(rows, values, color=COLOURS[5], height=0.7)
        for row, value in zip(rows, values, strict=True):
            axes.annotate(f"{value:.1f}", (value, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(rows, [short(name) for name, _ in recall])
        axes.set_ylim(-0.7, len(recall) - 0.3)
        axes.set(title=title, xlabel="recall, %", ylabel="class", xlim=(0, 108))
        axes.set_xticks(range(0, 101, 20))
        axes.grid(color=GRID, axis="x")

    return draw_svg(name, title, (4.6, max(4.2, 0.9 + 0.2 * len(recall))), paint)


def confusion_figure(name: str, title: str, classes: Sequence[str], share: NDArray[np.float64]) -> str:
    """Draw the share of each true class's queries (rows) that went to each class (columns).  [C, C] in [0, 1]"""

    def paint(axes: Axes) -> None:
        edges = np.arange(len(classes) + 1) - 0.5
        axes.pcolormesh(edges, edges, share, cmap="Blues", vmin=0, vmax=1, edgecolor="white", linewidth=0.5)
        axes.invert_yaxis()
        names = [short(c) for c in classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            colour = "white" if share[row, column] > 0.55 else "#333"
            size = 8 if len(names) <= 16 else 6
            axes.text(
                column, row, f"{100 * share[row, column]:.0f}", color=colour, ha="center", va="center", fontsize=size
            )
        axes.set(title=title, xlabel="predicted class", ylabel="true class")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    side = 2.4 + 0.36 * len(classes)
    return draw_svg(name, title, (min(10.0, side + 1.4), min(9.0, side)), paint)


def map_figure(
    name: str,
    title: str,
    position: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    support: int,
    wrong: NDArray[np.bool_],
) -> str:
    """Draw a map of embeddings: the first `support` rows are support, the rest queries; mistakes are ringed.

    Parameters
    ----------
    position, labels:
        [S + Q, 2] and [S + Q] in [0, C).
    wrong:
        [Q] which queries were mistaken.
    """
    query, query_labels = position[support:], labels[support:]

    def paint(axes: Axes) -> None:
        palette = _palette(len(classes))
        for c, label in enumerate(classes):
            mine = query[query_labels == c]
            axes.scatter(mine[:, 0], mine[:, 1], s=16, color=palette[c], linewidth=0, label=short(label))
            taught = position[:support][labels[:support] == c]
            axes.scatter(
                taught[:, 0],
                taught[:, 1],
                s=60,
                color=palette[c],
                marker="*",
                edgecolor="black",
                linewidth=0.6,
                zorder=3,
            )
        axes.scatter(
            query[wrong, 0],
            query[wrong, 1],
            s=60,
            facecolor="none",
            edgecolor="#d00000",
            linewidth=1.1,
            label="mistake",
        )
        if support:
            axes.scatter([], [], s=60, color="white", marker="*", edgecolor="black", label="support")
        axes.set(title=title, xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", xticks=[], yticks=[])
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)

    return draw_svg(name, title, (WIDTH + 1.6, 6.0), paint)


def _palette(count: int) -> list[tuple[float, ...]]:
    from fewshot.svg import check_matplotlib

    colours = check_matplotlib().colormaps["tab10" if count <= 10 else "tab20"]
    return [colours(i % colours.N) for i in range(count)]
