"""The page of a report: its numbers are the results', hostile names stay names, and it stands on its own."""

import dataclasses
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from fewshot.analysis import analyse
from fewshot.drawing import draw
from fewshot.episodes import EpisodeSpec
from fewshot.errors import OutputError, OutputExists
from fewshot.evaluate import evaluate
from fewshot.features import Features, make_features
from fewshot.metrics.interval import Estimate
from fewshot.reanalysis import Look
from fewshot.registry import registry
from fewshot.report import Report, load_report, save_report
from fewshot.report_page import merged, render_page, write_page
from fewshot.report_sections import focus_of

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "$\\frac{a$ & 'b'",
    "日本 \x07\ud800",
    "_hidden",
]


class Page(HTMLParser):
    """Tables as rows of cells, texts inside drawings, and every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.drawn: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self._open and self._open[-1] in ("text", "tspan"):
            self.drawn.append(data)
        if "style" not in self._open:
            self.text += data

    def table(self, *heads: str) -> list[dict[str, str]]:
        """Rows of the first table that has these heads."""
        head, *rows = next(t for t in self.tables if set(heads) <= set(t[0]))
        return [dict(zip(head, row, strict=True)) for row in rows]


def blobs(names: list[str]) -> Features:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(names), 10, generator=generator).repeat_interleave(30, 0)
    x = x + 1.5 * torch.randn(x.shape, generator=generator)
    return make_features("blobs", x, [n for n in names for _ in range(30)])


def measured(features: Features, *shots: int) -> Report:
    results = []
    for shot in shots:
        for marginal in ("balanced", "dirichlet"):
            spec = EpisodeSpec(episodes=30, shot=shot, query=4, marginal=marginal)
            for name in ("prototypical", "knn"):
                strategy = registry().strategy(name)()
                results.append(evaluate(strategy, features, draw(spec, features.labels)))
    return Report(tuple(results))


@pytest.fixture(scope="module")
def features() -> Features:
    return blobs([f"class {i}" for i in range(8)])


@pytest.fixture(scope="module")
def report(features) -> Report:
    return measured(features, 1, 5, 9)


@pytest.fixture(scope="module")
def page(report, features) -> Page:
    def look(result, others):
        assert set(map(id, others)) == set(map(id, report.results))
        return Look(analyse(registry().strategy(result.strategy)(), features, EpisodeSpec(shot=5)), features)

    return Page(render_page(report, look, strategy="prototypical"))


def written(estimate) -> str:
    return f"{100 * estimate.mean:.1f} ± {100 * estimate.half_width:.1f}"


def test_the_comparison_shows_the_results_numbers(page, report):
    rows = page.table("strategy", "accuracy, balanced", "accuracy, dirichlet", "n", "NLL")
    assert len(rows) == 6
    for row in rows:
        balanced, dirichlet = (
            next(
                r
                for r in report.results
                if (f"5w{r.spec['shot']}s", r.strategy, r.spec["marginal"]) == (row["task"], row["strategy"], m)
            )
            for m in ("balanced", "dirichlet")
        )
        assert row["accuracy, balanced"] == written(balanced.metrics["accuracy"])
        assert row["accuracy, dirichlet"] == written(dirichlet.metrics["accuracy"])
        assert row["macro-F1"] == written(balanced.metrics["macro_f1"])
        assert row["ECE"] == written(balanced.metrics["ece"])
        assert row["NLL"] == f"{balanced.metrics['nll'].mean:.3f} ± {balanced.metrics['nll'].half_width:.3f}"
        assert row["n"] == "30"


def test_differences_are_paired(page, report):
    rows = page.table("difference", "win/tie/loss")
    assert len(rows) == 6
    for row, first, second in zip(rows, report.results[::2], report.results[1::2], strict=True):
        gain = np.array(second.accuracies) - np.array(first.accuracies)
        assert row["difference"].startswith(f"{100 * gain.mean():.1f} ± ")
        assert row["win/tie/loss"] == "/".join(str((np.sign(gain) == s).sum()) for s in (1, 0, -1))
        assert (row["queries"], row["strategy"], row["against"]) == (second.spec["marginal"], "knn", "prototypical")


def test_cost_and_labels_are_told(page, report):
    rows = page.table("seconds", "episodes/s", "peak MB", "labels an episode")
    for row, result in zip(rows, report.results, strict=True):
        assert float(row["seconds"]) == pytest.approx(result.cost.seconds, rel=0.06)
        assert row["episodes/s"] == f"{result.cost.episodes_per_second:.0f}"
        assert row["dim"] == str(result.cost.dim)
        assert row["labels an episode"] == str(5 * result.spec["shot"])
    assert "validation" not in rows[0]  # nobody was shown any


def test_every_number_of_the_closer_look_is_the_results(page, report):
    result = next(r for r in report.results if (r.strategy, r.spec["shot"]) == ("prototypical", 9))
    assert f"accuracy {written(result.metrics['accuracy'])}" in page.text
    recall = {row["class"]: row for row in page.table("class", "recall, %")}
    assert len(recall) == 8
    for name, (right, total) in result.recall.items():
        assert (recall[name]["right"], recall[name]["queries"]) == (str(right), str(total))
        assert recall[name]["recall, %"] == f"{100 * right / total:.1f}"
        assert f"{100 * right / total:.1f}" in page.drawn  # beside its bar
        assert f"{100 * right / total:.0f}" in page.drawn  # on the diagonal
    for row, (true, taken, count) in zip(page.table("true class", "taken for"), result.mistakes, strict=False):
        assert list(row.values())[:3] == [true, taken, str(count)]
        assert row["% of the class"] == f"{100 * count / result.recall[true][1]:.1f}"
        assert f"{100 * count / result.recall[true][1]:.0f}" in page.drawn


def test_marks_in_the_figures_stand_where_the_numbers_say(report, features):
    text = render_page(report, lambda *_: "not here", strategy="prototypical")
    figure = text[text.index('<svg role="img" aria-label="blobs: accuracy, 5 classes, balanced') :]
    figure = figure[: figure.index("</svg>")]
    marks: dict[str, list[tuple[float, float]]] = {}
    for kind, x, y in re.findall(r'<use xlink:href="(\S+)" x="([\d.]+)" y="([\d.]+)"[^>]*fill: #0072b2', figure):
        marks.setdefault(kind, []).append((float(x), float(y)))
    balanced = [r for r in report.results if (r.strategy, r.spec["marginal"]) == ("prototypical", "balanced")]
    wanted = np.array([r.metrics["accuracy"].mean for r in balanced])  # in order of shots
    heights = [[y for _, y in sorted(points)[:3]] for points in marks.values() if len(points) >= 3]  # no legend
    errors = [fit_error(np.array(three), wanted) for three in heights]
    assert min(errors) < 0.01


def fit_error(y: np.ndarray, values: np.ndarray) -> float:
    """Largest distance, in points, of y from a straight line through (values, y)."""
    return float(np.abs(np.polyval(np.polyfit(values, y, 1), values) - y).max())


def test_the_page_stands_on_its_own(page):
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("#", "data:image/jpeg;base64,"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["xlink:href"][1:] for _, a in page.tags if "xlink:href" in a} <= set(ids)
    figures = [a for tag, a in page.tags if tag == "svg"]
    assert len(figures) == 2 + 3 + 1
    assert all(a["aria-label"] for a in figures)
    for label in ("accuracy, %", "confidence", "recall, %", "predicted class", "t-SNE 1 (no unit)"):
        assert label in page.drawn


def test_hostile_names_stay_names():
    features = blobs(HOSTILE)
    report = measured(features, 5)
    renamed = [dataclasses.replace(r, dataset=HOSTILE[0], encoder=HOSTILE[1]) for r in report.results]

    def look(result, _):
        return Look(analyse(registry().strategy(result.strategy)(), features, EpisodeSpec(shot=5)), features)

    text = render_page(Report(tuple(renamed)), look)
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert {row["class"] for row in page.table("class", "recall, %")} == set(HOSTILE)
    assert "<script>alert(1)</scr" not in text
    assert "$\\frac{a$ & 'b'" in page.drawn  # no formula
    assert "日本 \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}" in page.drawn
    assert "_hidden" in page.drawn


@pytest.fixture(scope="module")
def few(report) -> Report:
    return Report(tuple(r for r in report.results if r.spec["shot"] == 5 and r.spec["marginal"] == "balanced"))


def test_other_items_of_the_same_data_have_a_title_of_their_own(few):
    (first, *_) = few.results
    other = dataclasses.replace(first, data="x", spec={**first.spec, "split": "train>test"})
    page = Page(render_page(Report((first, other)), lambda *_: "no"))
    assert "blobs (all splits)" in page.text
    assert "blobs (train>test)" in page.text


def test_what_is_missing_is_said(few):
    page = Page(render_page(few, lambda *_: "the folder <gone> is not there"))
    assert "could not be looked at: the folder <gone> is not there" in page.text
    assert page.table("strategy", "n")
    assert "gone" not in {tag for tag, _ in page.tags}


def test_one_number_of_shots_is_drawn_as_points_the_same_each_time(few):
    text = render_page(few, lambda *_: "")
    page = Page(text)
    for result in few.results:
        assert f"{100 * result.metrics['accuracy'].mean:.1f}" in page.drawn
    assert render_page(few, lambda *_: "") == text


def test_without_matplotlib_one_line_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OutputError, match=r"need matplotlib: pip install 'fewshot\[report\]'"):
        render_page(report, lambda *_: "")


def test_nothing_is_overwritten_unasked(tmp_path):
    write_page(tmp_path / "p.html", "one")
    with pytest.raises(OutputExists, match="pass --force"):
        write_page(tmp_path / "p.html", "two")
    assert (tmp_path / "p.html").read_text() == "one"
    write_page(tmp_path / "p.html", "two", overwrite=True)
    assert (tmp_path / "p.html").read_text() == "two"
    with pytest.raises(OutputExists, match="is a folder"):
        write_page(tmp_path, "x", overwrite=True)
    with pytest.raises(OutputError, match="no folder"):
        write_page(tmp_path / "no" / "p.html", "x")


def test_reports_are_merged_without_repeating_results(report, tmp_path):
    save_report(tmp_path / "r.json", report)
    again = load_report(tmp_path / "r.json")
    assert len(merged([report, again]).results) == len(report.results)


def test_the_closer_look_is_at_the_widest_task_with_the_most_shots(report):
    def variant(way: int, shot: int, mean: float):
        spec = {**report.results[0].spec, "way": way, "shot": shot}
        metrics = {**report.results[0].metrics, "accuracy": Estimate(mean, 0.1, 30)}
        return dataclasses.replace(report.results[0], spec=spec, metrics=metrics)

    results = [variant(5, 1, 0.9), variant(5, 5, 0.8), variant(0, 5, 0.5), variant(0, 5, 0.6), variant(0, 2, 0.7)]
    assert focus_of(results) is results[3]
    assert focus_of([*results, report.results[1]], "knn") is report.results[1]
