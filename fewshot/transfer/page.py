"""Advice as plain lines and as one HTML page that needs neither network nor JavaScript."""

from __future__ import annotations

from collections.abc import Iterator

from fewshot.metrics.interval import Estimate
from fewshot.transfer.advice import Advice
from fewshot.transfer.picture import Pictures
from fewshot.transfer.what import Suitability

SCORES = {"logme": "LogME", "h_score": "H-score", "loo_ridge": "leave-one-out", "leep": "LEEP", "nce": "NCE"}


def points(e: Estimate) -> str:
    """A difference of accuracies in points with its half width."""
    return f"{100 * e.mean:+.1f} +- {100 * e.half_width:.1f}"


def scores_of(row: Suitability) -> list[str]:
    """An encoder's scores as text; `-` for those that need a source."""
    values = [getattr(row, name) for name in SCORES]
    return ["-" if v is None else f"{v:.3f}" for v in values]


def strategy_rows(advice: Advice) -> list[tuple[str, str, str]]:
    """Name, accuracy and gain of every strategy tried, best first."""
    order = sorted(advice.accuracy, key=lambda name: -advice.accuracy[name].mean)
    return [
        (name, f"{100 * advice.accuracy[name].mean:.1f}", points(advice.gains[name]) if name in advice.gains else "")
        for name in order
    ]


def gap_text(advice: Advice) -> str:
    """The distances in one line."""
    gap = advice.gap
    return (
        f"MMD^2 {gap.mmd2:.4f} (p {gap.p:.3f}), CORAL: covariances {gap.covariance:.3f} apart, proxy A-distance "
        f"{gap.a_distance:.2f} of 2"
    )


def lines(advice: Advice) -> Iterator[str]:
    """What `fewshot advise` prints."""
    yield f"what: use {advice.encoder}"
    for row, rank in advice.what:
        named = ", ".join(f"{title} {text}" for title, text in zip(SCORES.values(), scores_of(row), strict=True))
        yield f"  {row.encoder}: mean rank {rank:.2f} ({named})"
    yield f"when: {advice.when} ({advice.plain} against the target alone)"
    yield f"  gap: {gap_text(advice)}"
    yield f"  quadrant: {advice.quadrant.advice}; {advice.quadrant.reason}"
    yield f"how: {advice.strategy}; {advice.how}"
    for name, accuracy, gain in strategy_rows(advice):
        yield f"  {name}: {accuracy} %{f', {gain} points' if gain else ''}"
    for name, reason in advice.left_out.items():
        yield f"  {name} was not tried: {reason}"
    if advice.tuning:
        yield f"to fine-tune: {advice.tuning}"
    yield f"run: {advice.command}"


def render(advice: Advice, pictures: Pictures, source: str, target: str) -> str:
    """Return the page; names are escaped."""
    import jinja2
    from markupsafe import Markup

    loader = jinja2.PackageLoader("fewshot", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["drawing"] = Markup  # what `draw_svg` made, in which matplotlib escaped the names
    return environment.get_template("advice.html").render(
        advice=advice,
        source=source,
        target=target,
        titles=list(SCORES.values()),
        encoders=[(row.encoder, f"{rank:.2f}", scores_of(row)) for row, rank in advice.what],
        strategies=strategy_rows(advice),
        gap=gap_text(advice),
        pictures=pictures,
    )
