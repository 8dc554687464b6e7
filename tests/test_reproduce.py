"""benchmarks/reproduce.py: what counts as a difference, and which rows are put in place of committed ones."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

from fewshot.drawing import draw
from fewshot.episodes import EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.features import make_features
from fewshot.metrics.interval import Estimate
from fewshot.registry import registry
from fewshot.report import Report

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "reproduce.py"


@pytest.fixture(scope="module")
def reproduce():
    spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    features = make_features("noise", x, [f"c{i % 4}" for i in range(40)])
    episodes = draw(EpisodeSpec(way=3, shot=1, query=2, episodes=4), features.labels)
    return Report(tuple(evaluate(registry().strategy(n)(), features, episodes) for n in ("knn", "ridge", "knn")))


def changed(result, **fields):
    return dataclasses.replace(result, **fields)


def test_the_last_bit_of_a_metric_counts_and_time_and_versions_do_not(reproduce, report):
    first, *rest = report.results
    slower = changed(first, cost=dataclasses.replace(first.cost, seconds=99.0), versions={"torch": "3"})
    assert reproduce.differences(report, Report((slower, *rest))) == []
    assert "(made with fewshot" in reproduce.version_note(report, Report((slower,)))
    value = first.metrics["accuracy"]
    nudged = Estimate(value.mean + 1e-16 + 2**-53, value.half_width, value.n)
    other = changed(first, metrics={**first.metrics, "accuracy": nudged})
    assert reproduce.differences(report, Report((other, *rest))) == ["noise 3w1s features knn: metrics differ"]
    assert "3 results are committed, 2" in reproduce.differences(report, Report(tuple(rest)))[0]


def test_only_the_named_strategies_are_renewed(reproduce, report):
    again = Report(tuple(changed(r, device="new") for r in report.results[::2]))
    found = reproduce.renewed(report, again, ["knn"])
    assert [(r.strategy, r.device) for r in found.results] == [("knn", "new"), ("ridge", "cpu"), ("knn", "new")]
    assert reproduce.renewed(report, again, []) == again
    with pytest.raises(SystemExit, match="write the whole suite"):
        reproduce.renewed(report, Report(again.results[:1]), ["knn"])
