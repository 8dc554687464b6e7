"""Name the strategy or encoder whose code failed, and the line, where a user would meet a traceback."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.errors import FewshotError, PluginError
from fewshot.registry import strict

if TYPE_CHECKING:
    from fewshot.encoders import Encoder
    from fewshot.strategy import Strategy


@contextmanager
def blamed(plugin: Strategy | Encoder) -> Iterator[None]:
    """Turn whatever the code of a strategy, of its head or of an encoder raises into a PluginError that says where.

    Errors of ours pass, and so does every error with `FEWSHOT_STRICT_PLUGINS=1`, for its traceback.

    Raises
    ------
    PluginError
        in place of any other exception.
    """
    try:
        yield
    except (FewshotError, MemoryError):
        raise
    except Exception as error:  # a foreign plugin may raise anything
        if strict():
            raise
        own = getattr(sys.modules.get(type(plugin).__module__), "__file__", None)
        frames = traceback.extract_tb(error.__traceback__)
        at = ([frame for frame in frames if frame.filename == own] or frames)[-1]
        kind = "strategy" if hasattr(plugin, "fit") else "encoder"
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        where = f"{Path(at.filename).name}, line {at.lineno}"
        hint = "FEWSHOT_STRICT_PLUGINS=1 shows the whole traceback"
        raise PluginError(f"{kind} {plugin.name!r} failed: {what} ({where}); {hint}") from error
