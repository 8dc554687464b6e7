"""Classifying, benchmarks and fine-tuning from the command line, on a GPU."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fewshot.cli import cli
from fewshot.modelfile import read_model
from fewshot.training import supervised

pytestmark = pytest.mark.gpu


def run(*words: object) -> str:
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.stdout


@pytest.mark.parametrize("strategy", ["auto", "prototypical", "linear_probe"])
def test_pictures_get_the_class_they_get_on_the_cpu(gpu: torch.device, folder: Path, strategy: str) -> None:
    words = ["classify", folder, "--support", folder, "--strategy", strategy, "--json"]
    there, here = (run(*words, "--device", place).splitlines() for place in (gpu, "cpu"))
    assert len(there) == 24
    for one, other in zip(map(json.loads, there), map(json.loads, here), strict=True):
        assert one["path"] == other["path"]
        assert one["label"] == other["label"] == Path(one["path"]).parent.name


def test_a_killed_finetuning_goes_on(
    gpu: torch.device, folder: Path, timm_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["finetune", "--data", folder, "--encoder", f"timm:test_resnet@{timm_file}", "--freeze", "none"]
    words += ["--batch", 8, "--epochs", 3, "--device", gpu, "--json"]
    whole, again, once = tmp_path / "whole.w", tmp_path / "again.w", supervised.train_epoch

    def die(net: supervised.Net, state: supervised.State, *rest: object) -> float:
        if state.epoch == 2:
            raise KeyboardInterrupt
        return once(net, state, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(supervised, "train_epoch", die)
        assert CliRunner().invoke(cli, [str(word) for word in [*words, "--out", again]]).exit_code != 0
    for out in (whole, again):
        done = json.loads(run(*words, "--out", out))
        assert done["device"] == "cuda"
    logs = [[json.loads(line) for line in Path(f"{out}.jsonl").read_text().splitlines()] for out in (whole, again)]
    losses = [[line["held_out_loss"] for line in log if "held_out_loss" in line] for log in logs]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    tensors = [read_model(out, torch.device("cpu"), "weights")[0] for out in (whole, again)]
    assert all((tensors[0][key] - tensors[1][key]).abs().max() < 1e-3 for key in tensors[0])
    answers = run("classify", folder, "--support", folder, "--encoder", f"finetuned:{again}", "--device", gpu, "--json")
    assert len(answers.splitlines()) == 24


def test_episodes_train_an_encoder(gpu: torch.device, folder: Path, tmp_path: Path) -> None:
    words = ["--episodic", "--way", 2, "--query", 2, "--steps", 6, "--size", 16, "--widths", "8,8", "--hold-out", 0]
    done = json.loads(run("finetune", "--data", folder, *words, "--out", tmp_path / "e.w", "--device", gpu, "--json"))
    assert done["device"] == "cuda"
    assert done["recipe"]["steps"] == 6
