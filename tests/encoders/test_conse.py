"""The bridge's cache: used when good, built anew when damaged, done without when it cannot be written."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.encoders import conse

PHRASES = ["tench", "goldfish", "cock"], ["tench: a fish", "goldfish: a golden fish", "cock: a bird"]


@pytest.fixture(autouse=True)
def few_phrases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(conse, "imagenet_phrases", lambda: PHRASES)
    monkeypatch.setattr(conse, "cache_folder", lambda: tmp_path / "cache")


class Embed:
    """Letters as a text embedding, counting its calls."""

    calls = 0

    def __call__(self, texts: Sequence[str]) -> Tensor:
        self.calls += 1
        return unit(torch.tensor([[float(text.count(letter)) for letter in "abcdefghi"] for text in texts]))


def test_the_second_start_reads_the_cache(tmp_path: Path) -> None:
    embed = Embed()
    first = conse.load(embed, "letters")
    assert embed.calls == 2
    again = conse.load(embed, "letters")
    assert embed.calls == 2
    assert torch.equal(again.places, first.places)
    assert torch.equal(again.mean, first.mean)
    assert again.digest == first.digest
    conse.load(embed, "other weights")
    assert embed.calls == 4
    assert len(list((tmp_path / "cache").iterdir())) == 2  # and nothing half written


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b"", lambda b: b[:-4] + b"\0\0\0\0"])
def test_a_damaged_cache_is_built_anew(damage: object, tmp_path: Path) -> None:
    embed = Embed()
    first = conse.load(embed, "letters")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert torch.equal(conse.load(embed, "letters").places, first.places)
    assert embed.calls == 4
    conse.load(embed, "letters")
    assert embed.calls == 4


def test_no_cache_is_needed(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    embed = Embed()
    assert torch.equal(conse.load(embed, "letters").places, conse.build(embed).places)


def test_a_sure_picture_lies_at_its_class_and_an_unsure_one_between() -> None:
    bridge = conse.build(Embed())
    sure = bridge.place_images(torch.tensor([[0.0, 50.0, 0.0]]))
    assert torch.allclose(sure[0], bridge.places[1], atol=1e-6)
    between = bridge.place_images(torch.tensor([[9.0, 9.0, -50.0]]))
    assert torch.allclose(between[0], unit(bridge.places[0] + bridge.places[1]), atol=1e-6)
