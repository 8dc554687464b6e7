"""Whether the hub is worth asking, and what its cache holds."""

import socket
from pathlib import Path

import huggingface_hub.constants
import pytest

from fewshot.encoders import hub


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*hub.PROXIES, "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def refuse(*args: object, **kwargs: object) -> None:
    raise OSError("no route")


def test_the_network_is_tried_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert hub.offline()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert not hub.offline()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.offline()


def test_a_network_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: ours)
    assert not hub.offline()
    theirs.close()


def test_the_cache_is_read_in_order_of_preference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--someone--something"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "snapshots" / "abc" / "model.bin").write_text("weights")
    found = hub.cached("someone/something", ["model.safetensors", "model.bin"])
    assert found is not None
    assert found.read_text() == "weights"
    assert hub.cached("someone/something", ["model.safetensors"]) is None
    assert hub.cached("someone/else", ["model.bin"]) is None
