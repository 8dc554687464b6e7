"""Name the strategy whose code failed, and the line, where a user would meet a traceback."""

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
    from fewshot.strategy import Strategy


@contextmanager
def blamed(strategy: Strategy) -> Iterator[None]:
    """Turn whatever the code of a strategy or of its head raises into a PluginError that says where.

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
    except Exception as error:  # a foreign strategy may raise anything
        if strict():
            raise
        own = getattr(sys.modules.get(type(strategy).__module__), "__file__", None)
        frames = traceback.extract_tb(error.__traceback__)
        at = ([frame for frame in frames if frame.filename == own] or frames)[-1]
        raise PluginError(
            f"strategy {strategy.name!r} failed: {type(error).__name__}: {error} ({Path(at.filename).name}, line "
            f"{at.lineno}); FEWSHOT_STRICT_PLUGINS=1 shows the whole traceback"
        ) from error
