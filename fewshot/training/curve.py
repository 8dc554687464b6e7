"""The curve of a training run, from its log."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"accuracy": "training episodes", "held_out": "held out"}
COLOURS = {"accuracy": "#0072b2", "held_out": "#d55e00", "loss": "#7f7f7f", "held_out_loss": "#e69f00"}
SIZE = (7.4, 3.8)  # inches


def write_curve(path: Path, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Draw accuracy, or the loss where the log has none, against steps; without matplotlib nothing is drawn.

    Raises
    ------
    OutputError
        when the file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from fewshot.svg import draw_svg

    shown = [key for key in COLOURS if any(key in line for line in lines)]

    def paint(axes: Axes) -> None:
        other = axes.twinx() if any("loss" in key for key in shown) else axes
        for key in shown:
            points = [(line["step"], line[key]) for line in lines if key in line]
            where, factor = (other, 1) if "loss" in key else (axes, 100)
            steps, values = [p[0] for p in points], [factor * p[1] for p in points]
            name = NAMES.get(key, key.replace("_", " "))
            mark = "o" if key.startswith("held_out") else None
            where.plot(steps, values, color=COLOURS[key], marker=mark, markersize=3, label=name)
        axes.set(title="training", xlabel="steps or epochs", ylabel="accuracy, %")
        other.set_ylabel("loss")
        handles = [line for each in {axes: 0, other: 0} for line in each.get_lines()]
        axes.legend(handles=handles, loc="center right")

    try:
        path.write_text(draw_svg("training", "accuracy and loss while training", SIZE, paint), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return True
