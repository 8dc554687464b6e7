"""Result of one strategy on one set of episodes, and Report: results in a JSON file that says where they came from."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot.errors import FormatError, OutputError, OutputExists
from fewshot.metrics.interval import Estimate

FORMAT = "fewshot report"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a strategy was shown, so that results with different budgets are not confused."""

    support: float  # labelled items an episode, on average
    unlabeled: float = 0  # items an episode seen without their labels
    unlabeled_from: str = ""  # "queries" or "apart"
    validation: int = 0  # labels used to choose options; the bench itself never uses any
    source: int = 0  # labelled items of another domain
    phrases: int = 0  # texts a class
    attributes: int = 0  # attributes a class


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run took: the only part of a result that differs between two runs of the same program."""

    seconds: float  # fitting, scoring and measuring, without drawing and embedding
    fit_seconds: float
    episodes_per_second: float
    peak_mb: float  # largest resident memory of the process so far (of the GPU's allocator, on a GPU)
    embedded_per_second: float = math.nan  # items, when the encoder met them; NaN for embeddings that were there
    dim: int = 0  # numbers an embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything known of one strategy on one set of episodes."""

    dataset: str
    data: str  # hash of the labels
    encoder: str
    fingerprint: str
    strategy: str
    options: dict[str, Any]
    transductive: bool
    spec: dict[str, Any]
    episodes: str  # checksum of the drawn rows
    metrics: dict[str, Estimate]
    accuracies: list[float]  # one an episode, for paired comparison
    recall: dict[str, tuple[int, int]]  # class: (right, queries)
    mistakes: list[tuple[str, str, int]]  # (true class, predicted class, queries), most frequent first
    reliability: list[list[float]]  # [3][bins]: predictions, sum of confidences, right ones
    budget: Budget
    device: str
    versions: dict[str, str]
    cost: Cost
    calibrated: bool = False  # leave-one-out temperature scaling, which moves probabilities and no decision
    source: str = ""  # where the data was, as written for `--dataset`: NAME or NAME=PATH, variables not filled in


@dataclass(frozen=True, slots=True)
class Report:
    """Results of one run."""

    results: tuple[Result, ...] = field(default_factory=tuple)


def result_to_dict(result: Result) -> dict[str, Any]:
    """Return a result as JSON values; NaN becomes null."""
    plain: dict[str, Any] = _without_nan(dataclasses.asdict(result))
    return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def result_from_dict(values: dict[str, Any]) -> Result:
    """Read what `result_to_dict` wrote; raises KeyError or TypeError for anything else."""

    def number(value: Any) -> Any:
        return math.nan if value is None else value

    metrics = {k: Estimate(number(v["mean"]), number(v["half_width"]), v["n"]) for k, v in values["metrics"].items()}
    return Result(
        **{
            **values,
            "metrics": metrics,
            "recall": {k: (v[0], v[1]) for k, v in values["recall"].items()},
            "mistakes": [(a, b, n) for a, b, n in values["mistakes"]],
            "accuracies": [number(v) for v in values["accuracies"]],
            "budget": Budget(**values["budget"]),
            "cost": Cost(**{k: number(v) for k, v in values["cost"].items()}),
        }
    )


def save_report(path: str | Path, report: Report, *, overwrite: bool = False) -> None:
    """Write a report as JSON, one result a line.

    Raises
    ------
    OutputExists
        when the file is there and `overwrite` is not set.
    OutputError
        when it cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    lines = ",\n".join(json.dumps(result_to_dict(r), allow_nan=False) for r in report.results)
    text = f'{{"format": "{FORMAT}", "version": {VERSION}, "results": [\n{lines}\n]}}\n'
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def check_output(path: Path, *, overwrite: bool) -> None:
    """Find out before the work is done that a file cannot be written.

    Raises
    ------
    OutputExists
        when the file is there and `overwrite` is not set, or is a folder.
    OutputError
        when its folder is missing.
    """
    if path.is_dir():
        raise OutputExists(f"{path} is a folder; choose the name of a file")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: no folder {path.parent}")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} is there already; choose another name or pass --force")


def load_report(path: str | Path) -> Report:
    """Read a report.

    Raises
    ------
    FormatError
        when the file is no report, or one of another version.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} is not a report that can be read: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise FormatError(f"{path} is not a report of `fewshot bench run`")
    if values.get("version") != VERSION:
        raise FormatError(f"{path} is a report of version {values.get('version')}; this program reads {VERSION}")
    try:
        return Report(tuple(result_from_dict(v) for v in values["results"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path} is damaged: {type(error).__name__}: {error}") from error
