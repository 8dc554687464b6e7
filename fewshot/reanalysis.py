"""From a result back to its data: load and embed it again, and analyse one task of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot.analysis import Analysis, analyse
from fewshot.bench import data_title, of_splits, phrased
from fewshot.embed_items import embed_items
from fewshot.encoders import load_encoder
from fewshot.episodes import EpisodeSpec
from fewshot.errors import DataError, FingerprintMismatch
from fewshot.features import Features
from fewshot.options import build
from fewshot.registry import registry
from fewshot.report import Result

Place = tuple[str, Path | None]  # name of a registered data set, and where its files are


@dataclass(frozen=True, slots=True)
class Look:
    """An analysis together with the data it looked at."""

    analysis: Analysis
    features: Features


def place_of(source: str) -> Place:
    """Read what a result says of where its data was; variables are filled in."""
    name, sign, path = source.partition("=")
    return name, Path(os.path.expandvars(path)).expanduser() if sign else None


def reanalyse(
    result: Result,
    places: Sequence[Place] = (),
    *,
    others: Sequence[Result] = (),
    device: str = "auto",
    cache: Path | None = None,
    seed: int = 0,
) -> Look:
    """Find the data of a result, embed it as the result says, and analyse a task of it with the same strategy.

    Parameters
    ----------
    others:
        all results on the same data: a run embeds only the splits that one of them names.
    places:
        where to look; the one of the result's name is taken, else where the result says that its data was.

    Raises
    ------
    DataError
        when the data is not there, or its labels or splits are others than those of the result.
    FingerprintMismatch
        when the encoder does something else than it did for the result.
    FewshotError
        for a strategy or encoder that is not installed, or weights that are missing.
    """
    named = [place for place in places if result.dataset in (data_title(*place), str(place[1]))]
    if not named and not result.source:
        raise DataError(f"the result does not say where {result.dataset!r} was; pass --dataset NAME=PATH")
    name, path = named[0] if named else place_of(result.source)
    strategy = build(registry().strategy(result.strategy), result.options)
    specs = [EpisodeSpec.from_dict(r.spec) for r in (result, *others)]
    items = of_splits(registry().dataset(name)().load(path), specs)
    encoder = load_encoder(result.encoder, device) if items.features is None else None
    features, _ = embed_items(result.dataset, items, encoder, cache=cache, progress=True)
    if features.data != result.data:
        raise DataError(f"{path or name} holds other labels or splits than when the result was made")
    if features.fingerprint != result.fingerprint:
        raise FingerprintMismatch(
            f"the result was made with embeddings {result.fingerprint!r}, but {features.fingerprint!r} are here"
        )
    features = phrased(strategy, features, encoder, items)
    return Look(analyse(strategy, features, specs[0], seed=seed), features)
