import json

import numpy as np
import pytest

from fewshot.datasets.npz import read_npz
from fewshot.drawing import draw
from fewshot.episode_files import load_episodes, save_episodes
from fewshot.episodes import ARRAYS, EpisodeSpec, data_hash
from fewshot.errors import DataError, FormatError, OutputError, OutputExists

LABELS = np.repeat(np.arange(6), 30)


@pytest.fixture
def saved(tmp_path):
    episodes = draw(EpisodeSpec(way=(2, 4), shot=2, query=3, unknown=1, episodes=7), LABELS)
    save_episodes(tmp_path / "e.npz", episodes)
    return tmp_path / "e.npz", episodes


def test_a_file_gives_back_every_row(saved):
    path, episodes = saved
    found = load_episodes(path, data=data_hash(LABELS))
    assert found.spec == episodes.spec
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(episodes, name))


def test_nothing_is_overwritten_unasked(saved):
    path, episodes = saved
    with pytest.raises(OutputExists, match="is there already"):
        save_episodes(path, episodes)
    save_episodes(path, episodes, overwrite=True)
    with pytest.raises(OutputError, match="cannot write"):
        save_episodes(path.parent / "no" / "e.npz", episodes)


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    for key, value in changes.items():
        if key in header:
            header[key] = value
        else:
            arrays[key] = value
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 2}, "'fewshot episodes' version 2, this program reads 'fewshot episodes' version 1"),
        ({"format": "cake"}, "holds 'cake'"),
        ({"support": np.zeros((7, 8), np.int32)}, "checksum does not match"),
        ({"spec": {"wya": 3}}, "damaged: unknown episode setting 'wya'"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_other_files_are_refused(saved, changes, text):
    path, _ = saved
    rewrite(path, **changes)
    with pytest.raises(FormatError, match=text):
        load_episodes(path)


def test_other_data_and_other_kinds_of_file_are_refused(saved, tmp_path):
    path, _ = saved
    with pytest.raises(FormatError, match="drawn from other data"):
        load_episodes(path, data=data_hash(LABELS[:-1]))
    (tmp_path / "x.npz").write_text("hello")
    with pytest.raises(FormatError, match="not an episodes file"):
        load_episodes(tmp_path / "x.npz")
    with pytest.raises(FormatError, match="not an episodes file"):
        load_episodes(tmp_path / "missing.npz")


def test_damage_is_told_without_advice_to_trust_the_file(saved, tmp_path):
    whole = saved[0].read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    hurt = bytearray(whole)
    hurt[80:99] = bytes(19)  # of the compressed header
    for number, content in enumerate([b"\x93" * 99, whole[:-50], bytes(hurt), (tmp_path / "array.npy").read_bytes()]):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"\.npz is (not an episodes file|damaged)") as caught:
            load_episodes(path)
        assert "pickle" not in str(caught.value)
        with pytest.raises(DataError, match=r"no \.npz file of plain arrays") as caught:
            read_npz(path)
        assert "pickle" not in str(caught.value)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(FormatError, match="no array 'header'"):
        load_episodes(tmp_path / "other.npz")


def test_a_run_that_dies_while_saving_leaves_no_file(saved, tmp_path, monkeypatch):
    def dies(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", dies)
    with pytest.raises(KeyboardInterrupt):
        save_episodes(tmp_path / "new.npz", saved[1])
    assert not (tmp_path / "new.npz").exists()
