"""Every registered encoder passes the kit, with weights that are here: packages, or tiny random checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot.encoders import Encoder, lite_text, load_encoder
from fewshot.registry import registry
from fewshot.testing import ENCODER_CHECKS

PREFIXES = ("clip", "lite", "st", "timm", "toy")  # finetuned has its checks beside its training


@pytest.fixture(scope="module", params=[*PREFIXES, "lite:stage6"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    files: dict[str, Callable[[], str]] = {
        "clip": lambda: f":tiny-clip@{request.getfixturevalue('clip_file')}",
        "timm": lambda: f":test_resnet@{request.getfixturevalue('timm_file')}",
        "st": lambda: f":{lite_text.model_folder()}",
    }
    return load_encoder(request.param + files.get(request.param, str)(), "cpu")


@pytest.mark.parametrize("check", ENCODER_CHECKS.values(), ids=ENCODER_CHECKS.keys())
def test_passes(encoder: Encoder, check: Callable[[Encoder], None]) -> None:
    check(encoder)


def test_none_is_forgotten() -> None:
    ours = {p for p, cls in registry().encoders.items() if cls.__module__.startswith("fewshot.")}
    assert ours == {*PREFIXES, "finetuned"}


def test_a_folder_with_spaces_is_part_of_the_name(timm_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "my weights" / "ü@1.pth"
    copy.parent.mkdir()
    copy.write_bytes(timm_file.read_bytes())
    assert load_encoder(f"timm:test_resnet@{copy}", "cpu").name == f"timm:test_resnet@{copy}"
