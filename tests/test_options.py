"""Options of strategies from text, JSON and code."""

from dataclasses import dataclass

import pytest

from fewshot.errors import InvalidOption, UnknownName
from fewshot.options import build, option, option_infos, split_pairs, to_json


@dataclass(frozen=True)
class Sample:
    """Options of every kind."""

    name = "sample"
    k: int = option(5, "neighbours", min=1)
    temperature: float = option(0.5, "softness", min=0.0, max=10.0)
    lam: float | None = option(None, "chosen by leave-one-out when none")
    fast: bool = option(False, "skip the slow part")
    mode: str = option("mean", "how to pool", choices=("mean", "max"))


def test_text_becomes_typed_values() -> None:
    built = build(Sample, {"k": "3", "temperature": "1e-1", "lam": "2", "fast": "yes", "mode": "max"})
    assert built == Sample(3, 0.1, 2.0, True, "max")
    assert build(Sample, {"lam": "none"}).lam is None


def test_json_round_trip() -> None:
    sample = Sample(7, 2.5, 0.125, True, "max")
    assert build(Sample, to_json(sample)) == sample


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"k": "few"}, "option k wants int, got 'few'"),
        ({"k": "2.5"}, "option k wants int"),
        ({"k": "0"}, r"option k must lie in \[1, inf\], got 0"),
        ({"temperature": "11"}, r"must lie in \[0.0, 10.0\]"),
        ({"temperature": "nan"}, "wants float"),
        ({"temperature": True}, "wants float"),
        ({"fast": "maybe"}, "wants bool"),
        ({"mode": "median"}, "wants one of mean, max, got 'median'"),
        ({"lam": "x"}, r"wants float \| none"),
    ],
)
def test_bad_values(values: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        build(Sample, values)


def test_unknown_option_suggests() -> None:
    with pytest.raises(UnknownName, match=r"unknown option of sample 'temprature'\. Did you mean 'temperature'"):
        build(Sample, {"temprature": "1"})


def test_pairs() -> None:
    assert split_pairs(["a=1", "b-c = x=y"]) == {"a": "1", "b_c": "x=y"}
    with pytest.raises(InvalidOption, match="'alone' is not of the form"):
        split_pairs(["alone"])


def test_infos_describe_every_option() -> None:
    infos = {info.name: info for info in option_infos(Sample)}
    assert list(infos) == ["k", "temperature", "lam", "fast", "mode"]
    assert (infos["k"].type, infos["k"].default, infos["k"].range) == ("int", 5, "[1, inf]")
    assert infos["lam"].type == "float | none"
    assert infos["mode"].range == "mean | max"
