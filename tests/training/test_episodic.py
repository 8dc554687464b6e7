"""Episodic training: the loss by a loop, draws, symmetries, resuming, and the encoder that comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fewshot.datasets import Items
from fewshot.encoders import convnet, load_encoder
from fewshot.errors import DataError, FormatError, InvalidOption
from fewshot.modelfile import read_model
from fewshot.testing import encoder_checks
from fewshot.training import episodic, journal, run
from fewshot.training.augment import jitter, symmetric
from fewshot.training.bank import paper_and_spread, read_bank
from fewshot.training.episodic import Recipe, draw, hold_out, loss_of

CPU = torch.device("cpu")
SMALL = {"way": 6, "group": 3, "query": 2, "steps": 60, "size": 16, "widths": (8, 16), "symmetry": "rotations"}


def silent(text: str) -> None:
    pass


def trained(items: Items, out: Path, **more: object) -> Path:
    run.run_episodic(items, {**SMALL, **more}, out, CPU, False, silent)
    return out


@pytest.fixture(scope="module")
def weights(characters: Items, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(characters, tmp_path_factory.mktemp("episodic") / "strokes.w", hold_out=0.25)


@pytest.mark.parametrize("shot", [1, 2])
def test_loss_is_the_mean_over_queries_and_turns(shot: int) -> None:
    x = F.normalize(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    losses, rights = [], []
    for turn in range(4):
        support = [(turn + i) % 4 for i in range(shot)]
        prototypes = [F.normalize(sum(x[c, i] for i in support) / shot, dim=0) for c in range(3)]
        for c in range(3):
            for q in set(range(4)) - set(support):
                scores = torch.stack([7 * x[c, q] @ p for p in prototypes])
                losses.append(scores.exp().sum().log() - scores[c])
                rights.append(float(scores.argmax() == c))
    loss, right = loss_of(x, torch.tensor(7.0), shot)
    assert float(loss) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    assert float(right) == pytest.approx(np.mean(rights))


def test_a_draw_holds_distinct_pictures_of_classes_of_one_group(characters: Items) -> None:
    bank, _ = read_bank(characters, lambda image: torch.zeros(1, 2, 2, dtype=torch.uint8), 3)
    recipe = Recipe(way=10, group=4, query=2, symmetry="all")
    for seed in range(20):
        parts = list(draw(bank, recipe, np.random.default_rng(seed)))
        assert [len(p) for p, _ in parts] == [4, 4, 2]
        for positions, turn in parts:
            assert 0 <= turn < 8
            assert len(set(positions.flatten().tolist())) == positions.size
            names = [{characters.labels[i] for i in row} for row in positions]
            assert all(len(row) == 1 for row in names)
            assert len(set.union(*names)) == len(positions)
            assert len({label.split("/")[0] for row in names for label in row}) == 1


def test_held_out_alphabets_are_not_trained_on(characters: Items) -> None:
    bank, _ = read_bank(characters, lambda image: torch.zeros(1, 2, 2, dtype=torch.uint8), 3)
    train, held = hold_out(bank, Recipe(hold_out=0.25))
    assert (len(train.groups), len(held.groups)) == (3, 1)
    assert sorted(np.concatenate([*train.groups, *held.groups]).tolist()) == list(range(24))


def test_the_eight_symmetries_differ_and_keep_the_pixels() -> None:
    pixels = torch.arange(9).reshape(1, 3, 3)
    found = {tuple(symmetric(pixels, i).flatten().tolist()) for i in range(8)}
    assert len(found) == 8
    assert symmetric(pixels, 1).tolist() == [[[2, 5, 8], [1, 4, 7], [0, 3, 6]]]
    assert all(sorted(f) == list(range(9)) for f in found)


def test_jitter_moves_a_little_and_leaves_paper() -> None:
    x = torch.zeros(50, 1, 33, 33)
    x[:, :, 14:19, 14:19] = 1
    moved = jitter(x, 1.0, torch.Generator().manual_seed(0))
    place = torch.arange(33.0)
    centre = (moved.sum((1, 2)) * place).sum(-1) / moved.sum((1, 2, 3))  # [n]
    assert 0.5 < float((centre - 16).abs().max()) < 0.06 * 33 + 0.5
    assert float(moved[:, :, 0].abs().max()) == 0
    assert torch.equal(jitter(x, 0.0, torch.Generator()), x)


def test_paper_is_the_commonest_value() -> None:
    pixels = torch.tensor([255, 255, 255, 0], dtype=torch.uint8).reshape(1, 1, 2, 2)
    paper, spread = paper_and_spread(pixels)
    assert paper == 255
    assert spread == pytest.approx(np.std([255, 255, 255, 0]), abs=1e-3)


def test_it_learns(characters: Items, weights: Path) -> None:
    lines = [json.loads(line) for line in weights.with_name("strokes.w.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 50, 60]
    assert lines[2]["loss"] < lines[1]["loss"] < np.log(6)
    assert lines[2]["held_out"] > 0.6  # of 3 alike
    assert weights.with_name("strokes.w.svg").read_text().startswith("<svg")
    assert not weights.with_name("strokes.w.checkpoint").exists()


def test_the_encoder_passes_the_checks(weights: Path) -> None:
    encoder = load_encoder(f"finetuned:{weights}", "cpu")
    assert encoder.dim == 16 * 4 * 4
    encoder_checks(encoder)


def test_views_are_averaged(weights: Path, characters: Items) -> None:
    tensors, meta = read_model(weights, CPU, "weights")
    plan = convnet.plan_of(meta["plan"])
    network = convnet.build(plan)
    network.load_state_dict(tensors)
    pictures = [source for source in characters.sources[:3] if not isinstance(source, str | bytes)]
    pixels = torch.stack([convnet.prepare(p, plan) for p in pictures])  # type: ignore[arg-type]
    x = (pixels.float() - plan.paper) / plan.spread
    with torch.no_grad():
        grids = [F.affine_grid(one.expand(3, 2, 3), [3, 1, 16, 16], align_corners=False) for one in convnet.views()]
        each = [F.normalize(network.eval()(F.grid_sample(x, g, align_corners=False)), dim=-1) for g in grids]
    wanted = F.normalize(torch.stack(each).mean(0), dim=-1)
    got = load_encoder(f"finetuned:{weights}", "cpu").encode_images(pictures)  # type: ignore[arg-type]
    assert torch.allclose(got, wanted, atol=1e-5)


def test_a_killed_run_ends_as_one_that_was_not(
    characters: Items, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EVERY", 0.0)
    monkeypatch.setattr(episodic, "REPORT", 10)
    rate_at = episodic.rate_at

    def die(step: int, recipe: Recipe) -> float:
        if step == 33:
            raise KeyboardInterrupt
        return rate_at(step, recipe)

    with monkeypatch.context() as patch:
        patch.setattr(episodic, "rate_at", die)
        with pytest.raises(KeyboardInterrupt):
            trained(characters, tmp_path / "strokes.w", hold_out=0.25)
    assert (tmp_path / "strokes.w.checkpoint").exists()
    assert not (tmp_path / "strokes.w").exists()
    trained(characters, tmp_path / "strokes.w", hold_out=0.25)
    again, whole = (read_model(p, CPU, "weights")[0] for p in (tmp_path / "strokes.w", weights))
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "strokes.w.jsonl").read_text().splitlines()]
    assert steps == [0, 10, 20, 30, 40, 50, 60]


def test_a_checkpoint_of_another_run_is_refused(
    characters: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"recipe": {"way": 6}, "data": "other"}
    journal.Journal(tmp_path / "strokes.w", about).save(10, {"x": torch.zeros(1)})
    with pytest.raises(FormatError, match=r"of another run: data was 'other', now it is .*--force"):
        trained(characters, tmp_path / "strokes.w")


def test_bad_options_and_data(characters: Items, tmp_path: Path) -> None:
    for option, value in {"symmetry": "some", "way": 1, "rate": 0.0, "hold_out": 1.0, "size": 2}.items():
        with pytest.raises(InvalidOption, match="--"):
            Recipe(**{option: value})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"0 of 24 classes have the 10 readable pictures"):
        trained(characters, tmp_path / "w", shot=8)
    with pytest.raises(DataError, match="leaves fewer than two classes"):
        trained(characters, tmp_path / "w", hold_out=0.95)


def test_truncated_and_foreign_files(weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.w"
    cut.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FormatError, match="is not a fewshot weights file, or is damaged"):
        load_encoder(f"finetuned:{cut}", "cpu")
    with pytest.raises(FormatError, match="is not there"):
        load_encoder(f"finetuned:{tmp_path / 'none.w'}", "cpu")
    journal.Journal(tmp_path / "x", {}).save(1, {"x": torch.zeros(1)})
    with pytest.raises(FormatError, match="not a fewshot weights file; make one with `fewshot finetune`"):
        load_encoder(f"finetuned:{tmp_path / 'x.checkpoint'}", "cpu")
    with pytest.raises(InvalidOption, match="finetuned:FILE"):
        load_encoder("finetuned", "cpu")
