"""Model files: whole or refused, never half, never overwritten unasked."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fewshot.encoders.weights import state_sha256
from fewshot.errors import FormatError, OutputError, OutputExists
from fewshot.modelfile import read_model, write_model

CPU = torch.device("cpu")
TENSORS = {"weight": torch.arange(6.0).reshape(2, 3).mT, "bias": torch.tensor([1, 2])}


def test_round_trip(tmp_path: Path) -> None:
    write_model(tmp_path / "m", TENSORS, {"classes": ["ä", "b"]})
    tensors, meta = read_model(tmp_path / "m", CPU)
    assert meta == {"classes": ["ä", "b"]}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_others_may_read_a_model_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_model(tmp_path / "m", TENSORS, {})
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o640


def test_existing_file_stays(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("precious")
    with pytest.raises(OutputExists, match="--force"):
        write_model(tmp_path / "m", TENSORS, {})
    assert (tmp_path / "m").read_text() == "precious"
    write_model(tmp_path / "m", TENSORS, {}, overwrite=True)
    assert read_model(tmp_path / "m", CPU)[1] == {}


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_model(tmp_path / "file" / "m", TENSORS, {})
    with pytest.raises(OutputError, match="cannot write"):
        write_model(tmp_path / "none" / "m", TENSORS, {})


@pytest.mark.parametrize("keep", [0, 4, 40, 0.5, -1])
def test_truncated_file(keep: float, tmp_path: Path) -> None:
    write_model(tmp_path / "m", TENSORS, {"classes": ["a", "b"]})
    whole = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(FormatError, match="damaged"):
        read_model(tmp_path / "m", CPU)


@pytest.mark.parametrize(
    ("of", "text"), [(None, "tensors are not those that were saved"), (b"red", "header is not the one that was saved")]
)
def test_a_flipped_bit_is_noticed(of: bytes | None, text: str, tmp_path: Path) -> None:
    write_model(tmp_path / "m", TENSORS, {"classes": ["red", "blue"]})
    content = bytearray((tmp_path / "m").read_bytes())
    content[-1 if of is None else content.index(of)] ^= 1
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(FormatError, match=text):
        read_model(tmp_path / "m", CPU)


def test_a_model_of_before_headers_had_a_checksum(tmp_path: Path) -> None:
    header = {"format": "fewshot-classifier", "version": "1", "meta": '{"a": 1}', "sha256": state_sha256(TENSORS)}
    save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, tmp_path / "m", header)
    assert read_model(tmp_path / "m", CPU)[1] == {"a": 1}


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not there"):
        read_model(tmp_path / "none", CPU)
    save_file({"x": torch.ones(1)}, tmp_path / "other")
    with pytest.raises(FormatError, match="not a fewshot model"):
        read_model(tmp_path / "other", CPU)
    header = {"format": "fewshot-classifier", "version": "99", "meta": "{}"}
    save_file({"x": torch.ones(1)}, tmp_path / "new", header)
    with pytest.raises(FormatError, match="format 99, this program reads 1"):
        read_model(tmp_path / "new", CPU)
    saved = {**header, "version": "1", "meta": "{", "sha256": state_sha256({"x": torch.ones(1)})}
    save_file({"x": torch.ones(1)}, tmp_path / "bad", saved)
    with pytest.raises(FormatError, match="header cannot be read"):
        read_model(tmp_path / "bad", CPU)
