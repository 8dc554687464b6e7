"""Fine-tuning: what is frozen stays, LoRA starts at the base, a killed run ends as one that was not."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewshot.arrays import unit
from fewshot.datasets import Items
from fewshot.encoders import load_encoder
from fewshot.encoders.body import module_body, stages_of
from fewshot.errors import DataError, FingerprintMismatch, FormatError, InvalidOption, MissingInput
from fewshot.modelfile import read_model, write_model
from fewshot.testing import encoder_checks
from fewshot.training import run, supervised
from fewshot.training.adapt import choose, effective, parameters
from fewshot.training.pictures import of_split, split

CPU = torch.device("cpu")
QUICK = {"epochs": 3, "batch": 8, "rate": 1e-3}


def silent(text: str) -> None:
    pass


def tune(items: Items, out: Path, encoder: str, **more: object) -> Path:
    run.run_supervised(items, {"encoder": encoder, **QUICK, **more}, out, CPU, False, silent)
    return out


@pytest.fixture(scope="module")
def resnet(timm_file: Path) -> str:
    return f"timm:test_resnet@{timm_file}"


@pytest.fixture(params=["timm", "clip", "lite"])
def name(request: pytest.FixtureRequest) -> str:
    files = {
        "timm": lambda: f":test_resnet@{request.getfixturevalue('timm_file')}",
        "clip": lambda: f":tiny-clip@{request.getfixturevalue('clip_file')}",
    }
    return request.param + files.get(request.param, str)()


def test_a_body_is_its_encoder(name: str, colours: Items) -> None:
    encoder = load_encoder(name, "cpu")
    body = encoder.body()
    pictures = torch.stack([encoder.prepare(p) for p in colours.sources[:3]])  # type: ignore[arg-type]
    wanted = encoder.encode_prepared(pictures)
    for stage in (0, len(body.stages) - 1):
        with torch.no_grad():
            got = F.normalize(body.after({}, body.before(pictures, stage), stage).float(), dim=-1)
        visual = F.normalize(wanted[:, : got.shape[1]], dim=-1)
        assert torch.allclose(got, visual, atol=1e-5)
    assert sorted(n for names in body.stages for n in names) == sorted(body.tensors)


@pytest.mark.parametrize(("freeze", "lora"), [("none", 2), ("stages:2", 2), ("norm", 0), ("stages:1", 0), ("all", 0)])
def test_every_way_starts_at_the_base(name: str, freeze: str, lora: int, colours: Items) -> None:
    encoder = load_encoder(name, "cpu")
    body = encoder.body()
    choice = choose(body, freeze, lora)
    moved = parameters(body, choice, freeze, torch.Generator().manual_seed(0))
    assert bool(moved) == (freeze != "all")
    pictures = torch.stack([encoder.prepare(p) for p in colours.sources[:2]])  # type: ignore[arg-type]
    with torch.no_grad():
        x = body.before(pictures, choice.first)
        assert torch.equal(
            body.after(effective(body, moved), x, choice.first), body.after(body.tensors, x, choice.first)
        )


@pytest.mark.parametrize(("freeze", "lora"), [("stages:1", 0), ("stages:2", 1), ("norm", 0), ("none", 0)])
def test_only_what_was_chosen_moves(resnet: str, freeze: str, lora: int, colours: Items, tmp_path: Path) -> None:
    out = tune(colours, tmp_path / "w", resnet, freeze=freeze, lora=lora, hold_out=0.0)
    body = load_encoder(resnet, "cpu").body()
    tensors, _ = read_model(out, CPU, "weights")
    stage = [n for n in body.tensors if n.startswith("layer4")]
    two = [n for n in body.tensors if n.startswith(("layer3", "layer4")) and body.tensors[n].ndim == 4]
    norms = [n for n in body.tensors if body.tensors[n].ndim == 1]
    allowed = {"stages:1": stage, "stages:2": two, "norm": norms, "none": list(body.tensors)}[freeze]
    moved = [n for n, value in tensors.items() if not torch.equal(value, body.tensors[n])]
    assert moved
    assert set(tensors) <= set(allowed)
    if lora:
        change = (tensors[moved[0]] - body.tensors[moved[0]]).flatten(1)
        assert int(torch.linalg.matrix_rank(change, rtol=1e-4)) == 1


def test_training_lowers_the_loss_and_the_log_says_so(resnet: str, colours: Items, tmp_path: Path) -> None:
    out = tune(colours, tmp_path / "w", resnet, freeze="none", hold_out=0.0)
    lines = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert lines[3]["loss"] < lines[1]["loss"]
    assert lines[0]["recipe"]["rate"] == 1e-3
    assert (tmp_path / "w.svg").read_text().startswith("<svg")
    assert out.exists()


def test_a_killed_run_ends_as_one_that_was_not(
    resnet: str, colours: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(colours, tmp_path / "whole", resnet, lora=2, freeze="none")
    once = supervised.train_epoch

    def die(net: supervised.Net, state: supervised.State, *rest: object) -> float:
        if state.epoch == 2:
            raise KeyboardInterrupt
        return once(net, state, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(supervised, "train_epoch", die)
        with pytest.raises(KeyboardInterrupt):
            tune(colours, tmp_path / "again", resnet, lora=2, freeze="none")
    assert not (tmp_path / "again").exists()
    again = tune(colours, tmp_path / "again", resnet, lora=2, freeze="none")
    a, b = (read_model(path, CPU, "weights")[0] for path in (whole, again))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    logs = [
        [json.loads(line) for line in p.read_text().splitlines()]
        for p in (tmp_path / "whole.jsonl", tmp_path / "again.jsonl")
    ]
    for one, other in zip(*logs, strict=True):
        assert {**one, "wall_s": 0, "cpu_s": 0} == {**other, "wall_s": 0, "cpu_s": 0}


@pytest.mark.slow
def test_the_encoders_that_come_out_pass_the_checks(name: str, colours: Items, tmp_path: Path) -> None:
    out = tune(colours, tmp_path / "w", name, freeze="stages:1", epochs=1, hold_out=0.0)
    base, encoder = load_encoder(name, "cpu"), load_encoder(f"finetuned:{out}", "cpu")
    assert encoder.fingerprint != base.fingerprint
    assert encoder.modalities == base.modalities
    assert encoder.dim == base.dim
    encoder_checks(encoder)
    pictures = colours.sources[:2]
    assert not torch.equal(encoder.encode_images(pictures), base.encode_images(pictures))  # type: ignore[arg-type]
    if "text" in base.modalities:
        tuned, before = encoder.encode_texts(["red"]), base.encode_texts(["red"])
        if name == "lite":  # its texts keep their place and lose their look, which the tuned network need not share
            looks, tuned = tuned[:, :1280], unit(tuned[:, 1280:])
            assert not looks.any()
            before = unit(before[:, 1280:])
        torch.testing.assert_close(tuned, before)


def test_a_file_without_changes_is_the_base(colours: Items, resnet: str, tmp_path: Path) -> None:
    out = tune(colours, tmp_path / "w", resnet, freeze="all")
    pictures = colours.sources[:2]
    got = load_encoder(f"finetuned:{out}", "cpu").encode_images(pictures)  # type: ignore[arg-type]
    assert torch.equal(got, load_encoder(resnet, "cpu").encode_images(pictures))  # type: ignore[arg-type]


def test_stages_by_name() -> None:
    names = [
        "cls_token",
        "proj",
        "patch_embed.proj.weight",
        "blocks.0.attn.weight",
        "blocks.1.attn.weight",
        "norm.bias",
    ]
    assert stages_of(names) == (
        ("cls_token", "patch_embed.proj.weight"),
        ("blocks.0.attn.weight",),
        ("proj", "blocks.1.attn.weight", "norm.bias"),
    )
    assert stages_of(["a.weight", "a.bias", "b.weight"]) == (("a.weight", "a.bias"), ("b.weight",))
    network = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    assert module_body(network, lambda pixels: pixels).norms == {"1.weight", "1.bias"}


def test_one_of_each_class_is_held_out_where_it_has_two() -> None:
    labels = torch.tensor([0] * 10 + [1] * 2 + [2])
    train, held = split(labels, 0.2, 0)
    assert labels[held].tolist() == [0, 0, 1]
    assert sorted([*train, *held]) == list(range(13))
    with pytest.raises(DataError, match="no class has two pictures"):
        split(torch.tensor([0, 1]), 0.2, 0)


def test_splits_of_the_data() -> None:
    items = Items(("a", "b", "c"), ("x", "y", "x"), ("train", "test", "train"))
    assert of_split(items, "train") == Items(("a", "c"), ("x", "x"))
    assert of_split(items, None) is items
    with pytest.raises(DataError, match=r"no split 'val'; it has: test, train"):
        of_split(items, "val")


@pytest.mark.parametrize(
    ("freeze", "lora", "text"),
    [
        ("some", 0, "--freeze is all, none, norm or stages:N, got 'some'"),
        ("stages", 0, "got 'stages'"),
        ("stages:99", 0, r"more stages than the \d+ there are"),
        ("norm", 4, "--lora 4 does not go with --freeze norm"),
        ("none", 9999, "leaves nothing to train"),
    ],
)
def test_bad_choices(resnet: str, freeze: str, lora: int, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        choose(load_encoder(resnet, "cpu").body(), freeze, lora)


def test_what_cannot_be_trained_or_loaded(colours: Items, resnet: str, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="cannot be trained further"):
        tune(colours, tmp_path / "w", "toy")
    with pytest.raises(InvalidOption, match="--rate"):
        supervised.Recipe(rate=0.0)
    base = load_encoder(resnet, "cpu")
    about = {"kind": "encoder", "base": resnet, "base_fingerprint": base.fingerprint}
    files = {
        "odd": ({"nothing": torch.zeros(1)}, about),
        "other": ({}, {**about, "base_fingerprint": "timm-0"}),
        "kind": ({}, {"kind": "poem"}),
        "bare": ({}, {"kind": "convnet"}),
    }
    for stem, (tensors, meta) in files.items():
        write_model(tmp_path / stem, tensors, meta, kind="weights")
    for stem, error, text in (
        ("odd", FormatError, "do not fit their base: 'nothing'"),
        ("other", FingerprintMismatch, "trained from .* with fingerprint timm-0"),
        ("kind", FormatError, "weights of kind 'poem'"),
        ("bare", FormatError, "is damaged"),
    ):
        with pytest.raises(error, match=text):
            load_encoder(f"finetuned:{tmp_path / stem}", "cpu")
