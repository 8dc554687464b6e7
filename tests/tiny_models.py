"""Checkpoints of tiny models with random weights, saved as a user would have them."""

import json
import logging
from pathlib import Path

import open_clip
import pytest
import timm
import torch

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State dict of the architecture `tiny-clip`, which open_clip knows from here on."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # it warns that the weights are random
    model = open_clip.create_model("tiny-clip")
    logging.disable(logging.NOTSET)
    torch.save(model.state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"


@pytest.fixture(scope="session")
def timm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State dict of timm's `test_resnet`, classifier included."""
    path = tmp_path_factory.mktemp("timm") / "test_resnet.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    return path
