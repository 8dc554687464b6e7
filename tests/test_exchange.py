"""What is exported comes back as it was; folders of clip-retrieval become an index; what does not fit is refused."""

import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot.build import build_index
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import DataError, FormatError, InvalidOption, MissingInput, OutputExists
from fewshot.exchange import export, import_into
from fewshot.images import open_image
from fewshot.search import query
from fewshot.store import Store
from fewshot.upkeep import verify

COLOURS = {"warm": ["red", "yellow"], "cold": ["blue", "cyan"]}


@pytest.fixture
def index(tmp_path):
    for label, colours in COLOURS.items():
        for colour in colours:
            (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), colour).save(tmp_path / "photos" / label / f"{colour}.png")
    Image.new("RGB", (9, 9), "grey").save(tmp_path / "photos" / "grey.png")
    build_index([tmp_path / "photos"], tmp_path / "index", encoder="toy", device="cpu")
    return tmp_path / "index"


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_there_and_back(index, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fewshot[parquet]'")
    file = tmp_path / f"out{suffix}"
    with Store.open(index) as store:
        assert export(store, file) == 5
        entries, rows = store.entries(), np.array(store.embeddings())
        with pytest.raises(OutputExists, match="--force"):
            export(store, file)
        with pytest.raises(InvalidOption, match=r"\.npz or \.parquet"):
            export(store, tmp_path / "out.csv")
    assert import_into(file, tmp_path / "again") == 5
    assert verify(tmp_path / "again") == []
    with Store.open(tmp_path / "again") as store:
        assert (store.encoder, store.fingerprint) == ("toy", "toy-1")
        again = store.entries()
        assert [(e.path, e.label) for e in again] == [(e.path, e.label) for e in entries]
        got = store.embeddings()[[e.row for e in again]]
        np.testing.assert_allclose(got, rows[[e.row for e in entries]], atol=1e-6)
    (hits,) = query(tmp_path / "again", ["red"], top=1, device="cpu")
    assert hits[0].path.endswith("red.png")


def test_an_npz_holds_what_it_says(index, tmp_path):
    with Store.open(index) as store:
        export(store, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        for path, label, row in zip(found["paths"], found["labels"], found["embeddings"], strict=True):
            want = ToyEncoder(torch.device("cpu")).encode_images([open_image(str(path))])[0]
            np.testing.assert_allclose(row, want.numpy(), atol=1e-6)
            assert label == (next((k for k, v in COLOURS.items() if any(c in path for c in v)), ""))


def test_clip_retrieval(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fewshot[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "clip"
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 4)).astype(np.float16) for n in (3, 2)]
    for number, part in enumerate(parts):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", part)
        paths = [f"/far/{number}-{i}.jpg" for i in range(len(part))]
        table = arrow.table({"image_path": paths, "caption": [""] * len(part)})
        parquet.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    assert import_into(folder, tmp_path / "index", encoder="clip:any", fingerprint="clip-1") == 5
    want = np.concatenate(parts).astype(np.float32)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    with Store.open(tmp_path / "index") as store:
        assert (store.encoder, store.fingerprint, store.dim) == ("clip:any", "clip-1", 4)
        entries = store.entries()
        assert [e.path for e in entries] == [
            f"/far/{n}-{i}.jpg" for n, part in enumerate(parts) for i in range(len(part))
        ]
        np.testing.assert_allclose(store.embeddings()[[e.row for e in entries]], want, atol=1e-5)
    (folder / "img_emb" / "img_emb_0.npy").rename(folder / "away.npy")
    with pytest.raises(DataError, match=r"lacks img_emb/img_emb_0\.npy, whose pictures .*metadata_0\.parquet lists"):
        import_into(folder, tmp_path / "other")
    (folder / "away.npy").rename(folder / "img_emb" / "img_emb_0.npy")
    parquet.write_table(arrow.table({"image_path": ["/only/one"]}), folder / "metadata" / "metadata_1.parquet")
    with pytest.raises(DataError, match=r"2 embeddings but .*metadata_1\.parquet 1 paths"):
        import_into(folder, tmp_path / "other")


def test_what_cannot_be_imported(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "short.npz", embeddings=np.ones((3, 2)), paths=np.array(["a"]), labels=np.array([""]))
    np.savez(tmp_path / "nan.npz", embeddings=np.full((1, 2), np.nan), paths=np.array(["a"]), labels=np.array([""]))
    one, names = {"paths": np.array(["a"]), "labels": np.array([""])}, np.array([["a", "b"]])
    np.savez(tmp_path / "flat.npz", embeddings=np.ones(1), **one)
    np.savez(tmp_path / "thin.npz", embeddings=np.ones((1, 0)), **one)
    np.savez(tmp_path / "words.npz", embeddings=names, **one)
    np.savez(tmp_path / "half.npz", embeddings=np.ones((1, 2)), paths=np.array(["a"]), labels=np.array([0.5]))
    np.savez(tmp_path / "nested.npz", embeddings=np.ones((1, 2)), paths=names, labels=np.array([""]))
    for name, words in (
        ("bad.npz", "cannot read"),
        ("absent.npz", "No such file"),
        ("x.csv", "give an .npz"),
        ("empty", "img_emb"),
        ("short.npz", "3 embeddings but 1 paths"),
        ("nan.npz", "row 0 holds NaN"),
        ("flat.npz", r"must be numbers \[n, D\], got float64 of shape \[1\]"),
        ("thin.npz", r"must be numbers \[n, D\], got float64 of shape \[1, 0\]"),
        ("words.npz", r"must be numbers \[n, D\], got <U1"),
        ("nested.npz", "paths must be texts"),
        ("half.npz", "labels must be texts or whole numbers, got 0.5"),
    ):
        if name == "empty":
            pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fewshot[parquet]'")
        with pytest.raises(DataError, match=words):
            import_into(tmp_path / name, tmp_path / f"out of {name}")
        assert not (tmp_path / f"out of {name}").exists()


def test_embeddings_of_an_encoder_that_is_not_known(tmp_path):
    np.savez(tmp_path / "in.npz", embeddings=np.eye(3), paths=np.array(["a", "b", "c"]), labels=np.array([""] * 3))
    assert import_into(tmp_path / "in.npz", tmp_path / "out") == 3
    with pytest.raises(MissingInput, match=r"which encoder made the imported embeddings .* import them again with"):
        query(tmp_path / "out", ["red"], device="cpu")


def test_a_parquet_file_damaged_in_the_middle(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fewshot[parquet]'")
    from pyarrow import parquet

    file = tmp_path / "in.parquet"
    parquet.write_table(arrow.table({"path": ["/a", "/b"], "embedding": [[1.0, 2.0], [3.0, 4.0]]}), file)
    data = bytearray(file.read_bytes())
    data[4:60] = bytes(56)
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read .*in\.parquet"):
        import_into(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_huge_numbers_and_paths_that_are_there_twice(tmp_path):
    given = np.array([[3e30, 4e30], [1, 0], [0, 1]], np.float32)
    np.savez(tmp_path / "in.npz", embeddings=given, paths=np.array(["/a", "/b", "/b"]), labels=np.array([""] * 3))
    assert import_into(tmp_path / "in.npz", tmp_path / "out") == 2
    with Store.open(tmp_path / "out") as store:
        rows = store.embeddings()
        np.testing.assert_allclose([rows[entry.row] for entry in store.entries()], [[0.6, 0.8], [0, 1]], atol=1e-6)


def test_the_row_that_holds_nan_is_counted_from_the_start_of_the_file(tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fewshot[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("fewshot.exchange.BLOCK", 2)
    rows = [[1.0, 2.0]] * 3 + [[float("nan"), 1.0]]
    parquet.write_table(arrow.table({"path": list("abcd"), "embedding": rows}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match="row 3 holds NaN or infinity, that of d"):
        import_into(tmp_path / "in.parquet", tmp_path / "out")


def test_a_parquet_file_that_is_no_utf8_or_has_a_column_twice(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fewshot[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    path, embedding = arrow.array(["/a", "/b"]), arrow.array([[1.0, 2.0], [3.0, 4.0]])
    odd = arrow.Array.from_buffers(arrow.string(), 2, [None, *arrow.array([b"/a", b"\xff"]).buffers()[1:]])
    twice = arrow.Table.from_arrays([path, embedding, path, path], names=["path", "embedding", "label", "label"])
    noted = arrow.table({"path": path, "embedding": embedding}).replace_schema_metadata({"x": b"\xff"})
    for table in (arrow.table({"path": odd, "embedding": embedding}), noted, twice):
        parquet.write_table(table, tmp_path / "in.parquet")
        with pytest.raises(DataError, match=r"cannot read .*in\.parquet"):
            import_into(tmp_path / "in.parquet", tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
def test_arrays_of_clip_retrieval_that_are_no_embeddings(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fewshot[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "clip" / "img_emb").mkdir(parents=True)
    (tmp_path / "clip" / "metadata").mkdir()
    parquet.write_table(arrow.table({"image_path": ["/a"]}), tmp_path / "clip" / "metadata" / "metadata_0.parquet")
    for array in (np.float32(3), np.array([["a"]]), np.ones((1, 2), complex), np.zeros(1, [("a", "f4")])):
        np.save(tmp_path / "clip" / "img_emb" / "img_emb_0.npy", array)
        with pytest.raises(DataError, match=r"embeddings must be numbers \[n, D\], got"):
            import_into(tmp_path / "clip", tmp_path / "out")
    np.save(tmp_path / "clip" / "img_emb" / "img_emb_0.npy", np.full((1, 2), 1e300))
    with pytest.raises(DataError, match="row 0 holds NaN or infinity, that of /a"):
        import_into(tmp_path / "clip", tmp_path / "out")


def test_rows_of_length_one_stay_as_they_are_bit_for_bit(tmp_path):
    rows = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[0] = rows[1] * np.float32(1e-20)  # not of length one
    np.savez(tmp_path / "in.npz", embeddings=rows, paths=np.array([f"/{i:03}" for i in range(100)]))
    import_into(tmp_path / "in.npz", tmp_path / "out")
    with Store.open(tmp_path / "out") as store:
        got = store.embeddings()[[entry.row for entry in store.entries()]]
    np.testing.assert_array_equal(got[1:], rows[1:])
    np.testing.assert_allclose(got[0], rows[1], rtol=1e-5)


def test_labels_may_be_left_out(tmp_path):
    np.savez(tmp_path / "in.npz", embeddings=np.eye(3), paths=np.array(["a", "b", "c"]))
    assert import_into(tmp_path / "in.npz", tmp_path / "index", encoder="toy") == 3
    with Store.open(tmp_path / "index") as store:
        assert [entry.label for entry in store.entries()] == [None] * 3
    np.savez(tmp_path / "bare.npz", vectors=np.eye(3))
    with pytest.raises(DataError, match=r"bare\.npz lacks embeddings and paths; it has: vectors"):
        import_into(tmp_path / "bare.npz", tmp_path / "another", encoder="toy")


def test_labels_that_are_numbers(tmp_path):
    given = {"embeddings": np.eye(3), "paths": np.array(["/a", "/b", "/c"])}
    np.savez(tmp_path / "in.npz", labels=np.array([0, 1, 0]), **given)
    import_into(tmp_path / "in.npz", tmp_path / "out")
    with Store.open(tmp_path / "out") as store:
        assert [entry.label for entry in store.entries()] == ["0", "1", "0"]


def test_lists_of_a_parquet_file_have_one_length(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fewshot[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    for embedding in ([[1.0, 2.0], [1.0]], [[1.0, 2.0], None], [1.0, 2.0]):
        parquet.write_table(arrow.table({"path": ["a", "b"], "embedding": embedding}), tmp_path / "in.parquet")
        with pytest.raises(DataError, match="must hold lists of one length"):
            import_into(tmp_path / "in.parquet", tmp_path / "out")
    parquet.write_table(arrow.table({"path": ["a", None], "embedding": [[1.0], [2.0]]}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match="paths must be texts, got None"):
        import_into(tmp_path / "in.parquet", tmp_path / "out")


def test_embeddings_that_an_encoder_cannot_have_made(index, tmp_path):
    with Store.open(index) as store:
        export(store, tmp_path / "out.npz")
    with pytest.raises(DataError, match=r"of 64 dimensions, encoder 'lite' makes 1664"):
        import_into(tmp_path / "out.npz", tmp_path / "other", encoder="lite", fingerprint="lite-1", width=1664)
    assert import_into(tmp_path / "out.npz", tmp_path / "other", encoder="toy", fingerprint="toy-1", width=64) == 5


def test_a_build_knows_imported_pictures_again_by_their_files(index, tmp_path, monkeypatch):
    export(Store.open(index), tmp_path / "all.npz")
    import_into(tmp_path / "all.npz", tmp_path / "half", dtype="float16")
    monkeypatch.setattr("fewshot.encoders.toy.ToyEncoder.encode_images", lambda *_: pytest.fail("embedded again"))
    counts = build_index([tmp_path / "photos"], tmp_path / "half", device="cpu")
    assert (counts.embedded, counts.copies, counts.gone) == (0, 5, 0)
    assert verify(tmp_path / "half") == []


@pytest.mark.slow
def test_an_import_that_was_killed_is_begun_anew(index, tmp_path, monkeypatch):
    export(Store.open(index), tmp_path / "all.npz")
    out = tmp_path / "imported"
    with monkeypatch.context() as patch:
        patch.setattr("fewshot.exchange.refresh_index", lambda _: pytest.fail("it has not come so far"))
        patch.setattr("fewshot.exchange._add", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        child = multiprocessing.get_context("fork").Process(target=import_into, args=(tmp_path / "all.npz", out))
        child.start()
        child.join()
    assert child.exitcode == -signal.SIGKILL
    for open_it in (lambda: Store.open(out), lambda: verify(out), lambda: build_index([tmp_path / "photos"], out)):
        with pytest.raises(FormatError, match="run it again"):
            open_it()
    assert import_into(tmp_path / "all.npz", out) == 5
    assert verify(out) == []
    with pytest.raises(OutputExists):
        import_into(tmp_path / "all.npz", out)


def test_a_damaged_npz_is_refused_or_read(index, tmp_path):
    export(Store.open(index), tmp_path / "all.npz")
    whole = (tmp_path / "all.npz").read_bytes()
    refused = 0
    for at in np.random.default_rng(0).integers(0, len(whole), 300).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            import_into(tmp_path / "damaged.npz", tmp_path / "out", dtype="float16")
            shutil.rmtree(tmp_path / "out")
        except DataError:
            refused += 1
    assert refused > 100
    assert not (tmp_path / "out").exists()
