"""Reports: a file gives back what was written, refuses what it does not know, and is never overwritten unasked."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from fewshot.compare import compare, compare_reports, compare_within
from fewshot.drawing import draw
from fewshot.episodes import EpisodeSpec
from fewshot.errors import FormatError, OutputError, OutputExists
from fewshot.evaluate import evaluate
from fewshot.features import make_features
from fewshot.metrics.interval import Estimate
from fewshot.registry import registry
from fewshot.report import Report, load_report, result_to_dict, save_report
from fewshot.report_table import (
    comparison_json,
    comparison_rows,
    percent,
    report_lines,
    report_rows,
    span,
    speed,
    table_lines,
    task_names,
    text_table,
)


@pytest.fixture(scope="module")
def report() -> Report:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 10, generator=generator).repeat_interleave(30, 0) + torch.randn(240, 10, generator=generator)
    features = make_features("blobs", x, [f"c{i}" for i in range(8) for _ in range(30)], text=x[::30].unsqueeze(1))
    results = []
    for marginal in ("balanced", "dirichlet"):
        episodes = draw(EpisodeSpec(episodes=30, shot=2, query=4, marginal=marginal), features.labels)
        for name in ("prototypical", "zero_shot"):
            results.append(evaluate(registry().strategy(name)(), features, episodes))
    one = draw(EpisodeSpec(episodes=1, way=0, shot=2), features.labels)
    results.append(evaluate(registry().strategy("prototypical")(), features, one))
    return Report(tuple(results))


def test_a_file_gives_back_every_result(report, tmp_path):
    save_report(tmp_path / "r.json", report)
    found = load_report(tmp_path / "r.json")
    assert math.isnan(found.results[-1].metrics["accuracy"].half_width)  # one episode has no interval
    assert [result_to_dict(r) for r in found.results] == [result_to_dict(r) for r in report.results]
    first, wanted = (dataclasses.replace(each.results[0], cost=None) for each in (found, report))  # it may hold NaN
    assert first == wanted


def test_nothing_is_overwritten_unasked(report, tmp_path):
    save_report(tmp_path / "r.json", report)
    with pytest.raises(OutputExists, match="is there already"):
        save_report(tmp_path / "r.json", Report())
    save_report(tmp_path / "r.json", Report(), overwrite=True)
    assert load_report(tmp_path / "r.json") == Report()
    with pytest.raises(OutputError, match="cannot write"):
        save_report(tmp_path / "no" / "r.json", report)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a report that can be read"),
        ("[]", "is not a report of `fewshot bench run`"),
        ('{"format": "fewshot report", "version": 2}', "version 2; this program reads 1"),
        ('{"format": "fewshot report", "version": 1}', "damaged: KeyError"),
        ('{"format": "fewshot report", "version": 1, "results": [{}]}', "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(FormatError, match=message):
        load_report(tmp_path / "r.json")


def test_every_number_has_its_provenance(report):
    values = json.loads(json.dumps(result_to_dict(report.results[0])))
    assert values["spec"]["seed"] == 0
    assert {"fewshot", "torch", "numpy", "python"} <= set(values["versions"])
    assert values["budget"]["validation"] == 0
    assert values["cost"]["episodes_per_second"] > 0
    for metric in values["metrics"].values():
        assert set(metric) == {"mean", "half_width", "n"}
        assert metric["n"] == 30


def test_paired_comparison_matches_scipy(report):
    a, b = report.results[:2]
    found = compare(a, b)
    assert found is not None
    paired = stats.ttest_rel(b.accuracies, a.accuracies)
    low, high = paired.confidence_interval(0.95)
    assert found.difference.mean == pytest.approx(np.mean(b.accuracies) - np.mean(a.accuracies))
    assert found.difference.half_width == pytest.approx((high - low) / 2)
    assert (found.wins, found.ties, found.losses) == tuple(
        sum(sign(y - x) for x, y in zip(a.accuracies, b.accuracies, strict=True))
        for sign in (lambda d: d > 0, lambda d: d == 0, lambda d: d < 0)
    )
    assert found.bootstrap[0] < found.difference.mean < found.bootstrap[1]


def test_only_results_on_the_same_episodes_are_compared(report):
    a, b, c, *_ = report.results
    assert compare(a, c) is None
    assert [(x.first, x.second) for x in compare_within(report)] == [(a, b), (c, report.results[3])]
    changed = dataclasses.replace(a, options={"temperature": 3.0})
    pairs = compare_reports(Report((a,)), Report((changed, b)))  # no strategy of the same options: all pairs
    assert [(x.first, x.second) for x in pairs] == [(a, changed), (a, b)]
    pairs = compare_reports(Report((a, b)), Report((b, c)))  # the same strategy meets itself
    assert [(x.first, x.second) for x in pairs] == [(b, b)]


def test_the_table_shows_both_marginals_side_by_side(report):
    rows = report_rows(report)
    assert [row["task"] for row in rows] == ["5w2s", "5w2s", "allw2s"]
    first = report.results[0].metrics["accuracy"]
    assert rows[0]["balanced"] == f"{100 * first.mean:.1f} ± {100 * first.half_width:.1f}"
    assert rows[0]["dirichlet"].startswith(f"{100 * report.results[2].metrics['accuracy'].mean:.1f}")
    assert rows[2]["dirichlet"] == "-"


def test_tables_have_at_most_80_columns(report):
    long = dataclasses.replace(report.results[0], strategy="s" * 50, dataset="d" * 40, encoder="clip:" + "e" * 40)
    both = Report((*report.results, long))
    for line in "\n".join(report_lines(both)).splitlines():
        assert len(line) <= 80
    assert max(map(len, table_lines(comparison_rows(compare_within(report))))) <= 80
    assert report_lines(Report()) == ["nothing was run"]


def test_every_number_of_a_crowded_table_stays_whole(report):
    base = report.results[0]
    fields = {"strategy": "a_strategy_of_a_long_name", "metrics": {**base.metrics, "auroc": base.metrics["accuracy"]}}
    crowd = [
        dataclasses.replace(base, dataset=f"data set {i}", encoder=f"clip:ViT-B-32/{i}", data=str(i), **fields)
        for i in range(2)
    ]
    crowd += [dataclasses.replace(r, spec={**r.spec, "marginal": "dirichlet"}) for r in crowd]
    lines = report_lines(Report((*report.results, *crowd)))
    assert max(map(len, lines)) <= 80
    assert "\n".join(lines).count(percent(base.metrics["accuracy"])) == 1 + 2 * 3  # balanced, dirichlet and auroc each
    titles = [line for line in lines if "; encoder: " in line and not line.startswith("data: ")]
    assert titles == ["blobs; encoder: features", *(f"{c.dataset}; encoder: {c.encoder}" for c in crowd[:2])]
    heads = [line for line in lines if line.startswith("task")]
    assert ["auroc" in head for head in heads] == [False, True, True]  # no column that holds nothing


def test_encoders_are_compared_by_what_they_cost(report):
    a, b = report.results[:2]
    costs = [
        dataclasses.replace(a.cost, embedded_per_second=81.4, dim=1536),
        dataclasses.replace(a.cost, embedded_per_second=math.nan, dim=512),
    ]
    pair = [dataclasses.replace(a, encoder=name, cost=c) for name, c in zip(("lite", "clip"), costs, strict=True)]
    rows = report_rows(Report(tuple(pair)))
    assert [(r["encoder"], r["embed/s"], r["dim"]) for r in rows] == [("lite", "81", "1536"), ("clip", "-", "512")]
    assert "embed/s" not in report_rows(Report((a, b)))[0]  # one encoder
    assert any(line.startswith("embed/s: ") for line in report_lines(Report(tuple(pair))))


def test_tasks_of_one_name_say_in_what_they_differ(report):
    a = report.results[0]
    b = dataclasses.replace(a, spec={**a.spec, "query": 9}, episodes="9")
    c = dataclasses.replace(a, spec={**a.spec, "split": "train>test"}, episodes="c")
    assert task_names([a, a]) == ["5w2s", "5w2s"]
    assert task_names([a, b]) == ["5w2s query=4", "5w2s query=9"]
    assert task_names([a, c]) == ["5w2s", "5w2s train>test"]


def test_comparisons_say_which_queries_and_encoders_they_are_of(report):
    a, b, c, d, _ = report.results
    rows = comparison_rows(compare_within(Report((a, b, c, d))))
    assert [row["queries"] for row in rows] == ["balanced", "dirichlet"]
    other = dataclasses.replace(a, encoder="lite")
    (row,) = comparison_rows(compare_within(Report((a, other))))
    assert (row["first"], row["second"]) == ("prototypical, features", "prototypical, lite")
    assert "queries" not in row


def test_one_episode_has_no_interval(report):
    one = report.results[-1]
    (found,) = compare_within(Report((one, dataclasses.replace(one, strategy="knn"))))
    (row,) = comparison_rows([found])
    assert (row["difference"], row["bootstrap"]) == ("0.0", "-")
    assert json.dumps(comparison_json(found), allow_nan=False)
    assert comparison_json(found)["bootstrap"] is None


def test_every_number_of_a_crowded_comparison_stays_whole(report):
    a, b, c, d, _ = report.results
    crowd = [dataclasses.replace(r, dataset=f"a data set {r.spec['marginal']}", data="x") for r in (a, b, c, d)]
    pairs = compare_within(Report((a, b, c, d))) + compare_within(Report(tuple(crowd)))
    rows = comparison_rows(pairs)
    lines = table_lines(rows, 66)
    assert max(map(len, lines)) <= 66
    for row in rows:
        assert any(row["bootstrap"] in line and row["difference"] in line for line in lines)
    assert "blobs; queries: balanced; first: prototypical" in lines
    assert not any("~" in line for line in lines)
    assert "a data set dirichlet; queries: dirichlet; first: prototypical" in lines


def test_a_report_of_before_costs_of_encoders_is_read(report, tmp_path):
    save_report(tmp_path / "r.json", report)
    values = json.loads((tmp_path / "r.json").read_text())
    for result in values["results"]:
        del result["cost"]["embedded_per_second"], result["cost"]["dim"]
    (tmp_path / "r.json").write_text(json.dumps(values))
    cost = load_report(tmp_path / "r.json").results[0].cost
    assert math.isnan(cost.embedded_per_second)
    assert cost.dim == 0


def test_percent():
    assert percent(Estimate(0.5, math.nan, 1)) == "50.0"
    assert percent(None) == "-"
    assert percent(Estimate(-1e-5, 0.01, 9)) == "0.0 ± 1.0"
    assert span((-1e-5, 0.5)) == "[0.0, 50.0]"
    assert span((math.nan, math.nan)) == "-"
    assert text_table([]) == "nothing to show"


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (9.96, "10"), (0.5, "0.5"), (0.0123, "0.012"), (0.0, "0")]
)
def test_speed(value, text):
    assert speed(value) == text
    assert speed(math.nan) == "-"
