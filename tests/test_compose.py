"""`align=NAME` puts an aligning strategy before any other, with the options of both, in Python, the CLI and a file."""

import csv
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fewshot import Classifier, fit
from fewshot.cli import cli
from fewshot.compose import make_strategy
from fewshot.errors import FewshotError, InvalidOption
from fewshot.registry import registry
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.coral import Coral

INPUTS = ("support", "source", "unlabeled")
FAR = [("a red film", "warm"), ("yellow film", "warm"), ("a blue film", "cold"), ("cyan film", "cold")]
NEAR = [("red kettle", "warm"), ("blue kettle", "cold")]


@pytest.mark.parametrize("name", ["coral", "jda"])
def test_a_step_before_any_strategy_keeps_the_options_of_both(name: str) -> None:
    task = toy_task(INPUTS)
    query, _ = toy_queries(task)
    got = make_strategy("prototypical", {"align": name, "temperature": "3"})
    assert got == registry().strategy(name)(then="prototypical:temperature=3.0")
    logits = fit(got, task).logits(query)
    plain = fit(registry().strategy(name)(then="prototypical"), task).logits(query)
    assert not torch.allclose(logits, plain)
    assert make_strategy("gda", {"align": "coral:shrink=0.5"}) == Coral(shrink=0.5, then="gda")
    assert make_strategy("gda", {}) == registry().strategy("gda")()
    with pytest.raises(InvalidOption, match="'ridge' aligns nothing; use one of coral, jda, pooled, subspace, tca"):
        make_strategy("gda", {"align": "ridge"})
    with pytest.raises(FewshotError, match="Did you mean 'coral'"):
        make_strategy("gda", {"align": "corl"})
    with pytest.raises(InvalidOption, match="learns from examples, got 'zero_shot'"):
        make_strategy("zero_shot", {"align": "coral"})


def test_command_line_and_saved_classifier(tmp_path: Path) -> None:
    for name, rows in (("far", FAR), ("near", NEAR)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    far, near, model = (str(tmp_path / name) for name in ("far.csv", "near.csv", "m.fewshot"))
    words = ["fit", "--support", near, "--source", far, "--encoder", "toy", "--out", model]
    done = CliRunner().invoke(cli, [*words, "-s", "gda", "-o", "align=coral:shrink=0.5", "--json"])
    assert done.exit_code == 0, done.output
    loaded = Classifier.load(model)
    assert loaded.strategy == Coral(shrink=0.5, then="gda")
    other = Classifier("coral", "toy", options={"shrink": 0.5, "then": "gda"}).fit(near, source=far)
    query = loaded.encoder.encode_texts([text for text, _ in FAR])
    torch.testing.assert_close(loaded.logits(query), other.logits(query))
    done = CliRunner().invoke(cli, [*words, "-s", "gda", "-o", "align=corl", "--force"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "Did you mean 'coral'" in done.stderr
