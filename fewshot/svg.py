"""The only file that imports matplotlib: draws one pair of axes and returns it as an `<svg>` to put into a page."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fewshot.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#888",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be selected, searched and read aloud
}
FONTS = "'DejaVu Sans', 'Bitstream Vera Sans', Verdana, sans-serif"  # of equal widths, for who lacks the first


def check_matplotlib() -> Any:
    """Return matplotlib.

    Raises
    ------
    OutputError
        when it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise OutputError("a report's figures need matplotlib: pip install 'fewshot[report]'") from error
    return matplotlib


def draw_svg(name: str, about: str, size: tuple[float, float], paint: Callable[[Axes], None]) -> str:
    """Call `paint` with axes of `size` inches and return what it drew.

    `name` makes the ids of this figure its own, and `about` tells a reader who cannot see it what it shows. The same
    drawing gives the same text, whatever the user's matplotlibrc says.
    """
    matplotlib = check_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that the measuring font lacks: the browser has its own
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        paint(axes)
        plain_text(figure.findobj(matplotlib.text.Text))
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    own = re.compile(r'(\bid="|url\(#|xlink:href="#)')
    drawing = re.sub(r"<[^>]*>", lambda tag: own.sub(rf"\g<1>{name}-", tag[0]).replace("'DejaVu Sans'", FONTS), drawing)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{html.escape(about)}"', 1)


def plain_text(texts: Iterable[Text]) -> None:
    """Keep dollar signs in names from being read as formulas."""
    for text in texts:
        text.set_parse_math(False)


def short(name: str, most: int = 22) -> str:
    """Cut a name in the middle, and drop characters that XML cannot hold."""
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return kept if len(kept) <= most else f"{kept[: most // 2]}…{kept[len(kept) - (most - 1 - most // 2) :]}"
