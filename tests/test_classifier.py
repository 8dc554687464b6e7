"""Classifier: every kind of input, fusing, saving and loading, and what it refuses."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from colours import colour_folders, colour_picture
from fewshot import Classifier
from fewshot.datasets import Items
from fewshot.errors import DataError, FewshotError, FingerprintMismatch, FormatError, InvalidTask, MissingInput
from fewshot.modelfile import read_model, write_model
from fewshot.store import Store

COLOURS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def support(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_folders(tmp_path_factory.mktemp("support"))


@pytest.fixture(scope="module")
def fitted(support: Path) -> Classifier:
    return Classifier("prototypical", "toy").fit(support)


def test_folder_in_label_out(fitted: Classifier, tmp_path: Path) -> None:
    colour_picture("green", 99).save(tmp_path / "new one.png")
    [found] = fitted.predict(tmp_path / "new one.png")
    assert fitted.classes == COLOURS
    assert (found.path, found.label) == (str(tmp_path / "new one.png"), "green")
    assert found.probability == found.top[0][1] > 0.5
    assert sum(p for _, p in found.top) == pytest.approx(1, abs=1e-5)
    assert found.nearest is not None
    assert "green" in found.nearest


def test_every_kind_of_query_gives_the_same_answer(fitted: Classifier, tmp_path: Path) -> None:
    picture = colour_picture("red", 7)
    picture.save(tmp_path / "a.png")
    pixels = np.asarray(picture)
    embedding = fitted.encoder.encode_images([picture])
    kinds = [tmp_path / "a.png", str(tmp_path), [tmp_path / "a.png"], picture, pixels, [pixels], embedding]
    kinds += [embedding.numpy(), embedding * 7, (tmp_path / "a.png").read_bytes()]
    answers = [fitted.predict(kind)[0] for kind in kinds]
    assert {answer.label for answer in answers} == {"red"}
    assert [a.probability for a in answers] == pytest.approx([answers[0].probability] * len(kinds), abs=1e-5)


def test_scores_too_close_for_their_probabilities_are_told_apart(support: Path) -> None:
    rows = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    cold = Classifier("prototypical", "toy", options={"temperature": 1e-8}).fit(support)
    rows = torch.nn.functional.pad(rows, (0, cold.encoder.dim - 16))
    best = cold.logits(torch.nn.functional.normalize(rows, dim=-1)).argmax(-1).tolist()
    assert [found.label for found in cold.predict(rows)] == [cold.classes[i] for i in best]


def test_every_kind_of_support_gives_the_same_classifier(support: Path, fitted: Classifier, tmp_path: Path) -> None:
    paths = sorted(support.glob("*/*.png"))
    labels = [path.parent.name for path in paths]
    lines = "".join(f"{path},{label}\n" for path, label in zip(paths, labels, strict=True))
    (tmp_path / "s.csv").write_text("path,label\n" + lines)
    rows = [json.dumps({"path": str(path), "label": label}) for path, label in zip(paths, labels, strict=True)]
    (tmp_path / "s.jsonl").write_text("\n".join(rows))
    pictures = [colour_picture(path.parent.name, int(path.stem)) for path in paths]
    embeddings = fitted.encoder.encode_images(pictures)
    kinds = [(tmp_path / "s.csv", None), (tmp_path / "s.jsonl", None), (paths, labels), (pictures, labels)]
    kinds += [(embeddings, labels), (embeddings.numpy(), labels), (Items(tuple(paths), tuple(labels)), None)]
    query = fitted.encoder.encode_images([colour_picture("red", 50), colour_picture("blue", 51)])
    for data, names in kinds:
        other = Classifier("prototypical", fitted.encoder).fit(data, names)
        assert torch.allclose(other.logits(query), fitted.logits(query), atol=1e-4)


def test_an_index_is_classified_without_its_pictures(fitted: Classifier, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from fewshot.cli import cli

    photos = colour_folders(tmp_path / "photos", 2)
    made = ["index", "build", str(photos), "--out", str(tmp_path / "index"), "--encoder", "toy"]
    assert CliRunner().invoke(cli, made).exit_code == 0
    for picture in photos.glob("*/*.png"):
        picture.unlink()
    found = fitted.predict(tmp_path / "index")
    assert len(found) == 6
    assert all(Path(one.path).parent.name == one.label for one in found)


def test_index_of_another_encoder_is_refused(
    fitted: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from fewshot.cli import cli

    photos = colour_folders(tmp_path / "photos", 1)
    CliRunner().invoke(cli, ["index", "build", str(photos), "--out", str(tmp_path / "index"), "--encoder", "toy"])
    monkeypatch.setattr(fitted.encoder, "fingerprint", "toy-2")
    with pytest.raises(FingerprintMismatch, match=r"toy-1.*toy-2"):
        fitted.predict(tmp_path / "index")
    with Store.open(tmp_path / "index") as store:
        assert store.fingerprint == "toy-1"


def test_zero_shot_by_names_and_phrases() -> None:
    for classes in ("red,blue", ["red", "blue"], {"red": "red things", "blue": ["a blue wall", "blue sky"]}):
        classifier = Classifier(encoder="toy").fit(classes=classes)
        assert classifier.strategy is not None
        assert classifier.strategy.name == "zero_shot"
        assert [p.label for p in classifier.predict([colour_picture("blue"), colour_picture("red")])] == ["blue", "red"]


def test_names_and_examples_are_fused(support: Path) -> None:
    classifier = Classifier(encoder="toy").fit(support, classes=["red", "green", "blue"])
    assert classifier.strategy is not None
    assert classifier.strategy.name == "auto"
    assert classifier.classes == ("red", "green", "blue")
    assert [p.label for p in classifier.predict([colour_picture("blue"), colour_picture("red")])] == ["blue", "red"]


def test_unseen_class_by_attributes(support: Path, tmp_path: Path) -> None:
    rows = "class,r,g,b\nred,1,0,0\ngreen,0,1,0\nblue,0,0,1\nwhite,1,1,1\n"
    (tmp_path / "a.csv").write_text(rows)
    classifier = Classifier(encoder="toy").fit(support, attributes=tmp_path / "a.csv")
    assert classifier.strategy is not None
    assert classifier.strategy.name == "eszsl"
    assert classifier.classes == ("red", "green", "blue", "white")


def test_save_and_load(fitted: Classifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m")
    query = [colour_picture("red", 3), colour_picture("green", 4)]
    assert [(p.label, p.top) for p in loaded.predict(query)] == [(p.label, p.top) for p in fitted.predict(query)]
    assert loaded.predict(query)[0].nearest is None
    with pytest.raises(FileExistsError):
        fitted.save(tmp_path / "m")
    fitted.save(tmp_path / "m", overwrite=True)


def test_model_of_another_encoder_is_refused(
    fitted: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitted.encoder, "fingerprint", "toy-0")
    fitted.save(tmp_path / "m")
    with pytest.raises(FingerprintMismatch, match=r"toy-0.*toy-1"):
        Classifier.load(tmp_path / "m")


def test_damaged_model_is_refused(fitted: Classifier, tmp_path: Path) -> None:
    from fewshot.modelfile import write_model

    write_model(tmp_path / "m", {}, {"encoder": "toy"})
    with pytest.raises(FormatError, match="lacks or garbles 'fingerprint'"):
        Classifier.load(tmp_path / "m")


def test_nothing_fitted() -> None:
    with pytest.raises(MissingInput, match=r"call fit\(\) first"):
        Classifier("prototypical", "toy").predict(colour_picture("red"))
    with pytest.raises(MissingInput, match=r"call fit\(\) first"):
        Classifier("prototypical", "toy").save("anything")


def test_bad_pictures_are_skipped_and_named(fitted: Classifier, support: Path, tmp_path: Path) -> None:
    copy = colour_folders(tmp_path / "s", 2)
    (copy / "red" / "broken.png").write_bytes(b"not a picture")
    classifier = Classifier("prototypical", "toy").fit(copy)
    assert [Path(str(skip.source)).name for skip in classifier.skipped] == ["broken.png"]
    assert len(classifier.predict(copy)) == 6


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda root: None, "neither a folder"),
        (lambda root: root.mkdir(), "holds no class folders"),
        (lambda root: colour_folders(root, 1, ("red",)), "one class only, 'red'"),
        (lambda root: (colour_folders(root, 1), (root / "empty").mkdir()), "class folder .*empty holds no pictures"),
        (
            lambda root: (colour_folders(root, 1), (root / "red" / "0.png").write_bytes(b"x")),
            "no picture of class 'red'",
        ),
    ],
)
def test_bad_support(prepare: object, text: str, tmp_path: Path) -> None:
    prepare(tmp_path / "s")  # type: ignore[operator]
    with pytest.raises(DataError, match=text):
        Classifier("prototypical", "toy").fit(tmp_path / "s")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("path,label\nnone.png,red\n", r"row 2: .*none\.png is not there"),
        ("path\nx.png\n", "columns path and label"),
        ("path,label\n", "lists no pictures"),
        ("path,label\n,red\n", "row 2: wants a path or a text, and a label"),
    ],
)
def test_bad_tables(content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=text):
        Classifier("prototypical", "toy").fit(tmp_path / "t.csv")


def test_bad_jsonl(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("\n{broken\n")
    with pytest.raises(DataError, match="row 2: not JSON"):
        Classifier("prototypical", "toy").fit(tmp_path / "t.jsonl")
    (tmp_path / "t.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="row 1: wants an object"):
        Classifier("prototypical", "toy").fit(tmp_path / "t.jsonl")


def test_all_labels_that_are_no_class_are_named(support: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red\npink\n")
    wanted = r"'blue', 'green', which are not among the classes given: red, pink; name every class that has examples"
    with pytest.raises(DataError, match=wanted):
        Classifier("prototypical", "toy").fit(support, classes=tmp_path / "names.txt")


def test_bad_combinations(support: Path, fitted: Classifier) -> None:
    cases: list[tuple[dict[str, object], type[FewshotError], str]] = [
        ({}, MissingInput, "nothing to go by"),
        ({"support": support, "classes": "red,green"}, DataError, "labelled 'blue', which is not among the classes"),
        ({"support": support, "classes": "red,green,blue,pink"}, MissingInput, "class 'pink' has no example"),
        ({"support": [colour_picture("red")]}, DataError, "need labels"),
        ({"support": [colour_picture("red")], "labels": ["a", "b"]}, DataError, "2 labels for 1 examples"),
        ({"support": torch.ones(2, 5), "labels": ["a", "b"]}, InvalidTask, r"\[n, 64\], got \[2, 5\]"),
        ({"support": torch.full((2, 64), torch.nan), "labels": ["a", "b"]}, InvalidTask, "row 0 .* not finite"),
        ({"support": torch.ones(2, 64), "labels": ["a", "a"]}, DataError, "one class only, 'a'"),
        ({"classes": "red,blue"}, MissingInput, "needs labelled examples"),
    ]
    for given, kind, text in cases:
        with pytest.raises(kind, match=text):
            Classifier("prototypical", fitted.encoder).fit(**given)  # type: ignore[arg-type]


class Absent:
    """As pandas.NA, which is neither equal to itself nor not."""

    def __ne__(self, other: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    def __repr__(self) -> str:
        return "<NA>"


@pytest.mark.parametrize("missing", [None, float("nan"), "", " ", Absent()])
def test_an_example_without_a_label_is_no_class_of_its_own(missing: object) -> None:
    pictures = [colour_picture(colour) for colour in ("red", "blue", "red")]
    with pytest.raises(DataError, match="example 1 has no label"):
        Classifier(encoder="toy").fit(pictures, ["red", missing, "blue"])  # type: ignore[list-item]


def test_an_array_of_pictures_or_of_paths_is_a_sequence_of_them(
    fitted: Classifier, support: Path, tmp_path: Path
) -> None:
    pictures = np.stack([np.asarray(colour_picture(colour)) for colour in ("red", "blue")])  # [2, H, W, 3]
    assert [found.label for found in fitted.predict(pictures)] == ["red", "blue"]
    paths = sorted(support.glob("*/*.png"))
    for array in (np.array([str(path) for path in paths]), np.array(paths, dtype=object)):
        assert fitted.predict(array) == fitted.predict(paths)
    (tmp_path / "empty.png").touch()
    some = Classifier(encoder="toy").fit(
        np.array([*paths, tmp_path / "empty.png"]), [p.parent.name for p in paths] + ["red"]
    )
    assert [skip.reason for skip in some.skipped] == ["empty file"]
    with pytest.raises(InvalidTask, match="have shape"):  # one embedding is a row: [1, D]
        fitted.predict(np.zeros(64, dtype=np.float32))


def test_labels_go_by_position_whatever_index_they_have() -> None:
    class Column(dict[int, str]):
        """As pandas has it: items by index, iteration by position."""

        def __iter__(self) -> Iterator[str]:  # type: ignore[override]
            return iter(self.values())

    pictures = [colour_picture(colour) for colour in ("red", "blue")]
    shuffled = Column({1: "red", 0: "blue"})
    fitted = Classifier("prototypical", "toy").fit(pictures, shuffled)  # type: ignore[arg-type]
    assert [found.label for found in fitted.predict(pictures)] == ["red", "blue"]


def test_attributes_alone_are_not_enough(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("class,x\na,1\nb,0\n")
    with pytest.raises(MissingInput, match="attributes alone say nothing"):
        Classifier(encoder="toy").fit(attributes=tmp_path / "a.csv")


def test_no_pictures_to_classify(fitted: Classifier, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures found"):
        fitted.predict(tmp_path)
    with pytest.raises(DataError, match="no pictures given"):
        fitted.predict([])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"classes": []}, "names 0 classes"),
        ({"classes": ["a", "b", "c", "d"]}, "names 4 classes"),
        ({"classes": ["a", "a", "a"]}, "damaged"),
        ({"options": None}, "damaged"),
        ({"options": [1]}, "damaged"),
    ],
)
def test_models_with_a_garbled_header(change: dict[str, object], text: str, fitted: Classifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    tensors, meta = read_model(tmp_path / "m", torch.device("cpu"))
    write_model(tmp_path / "bad", tensors, {**meta, **change})
    with pytest.raises(FormatError, match=text):
        Classifier.load(tmp_path / "bad")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t[..., :-1], "do not fit|names 3 classes"),
        (lambda t: t.long(), "do not fit"),
        (lambda t: t[None], "do not fit|names 3 classes"),
        (lambda t: t * torch.nan, "NaN"),
    ],
)
def test_models_with_garbled_tensors(
    change: Callable[[torch.Tensor], torch.Tensor], text: str, fitted: Classifier, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "m")
    tensors, meta = read_model(tmp_path / "m", torch.device("cpu"))
    write_model(tmp_path / "bad", {name: change(tensor) for name, tensor in tensors.items()}, meta)
    with pytest.raises(FormatError, match=text):
        Classifier.load(tmp_path / "bad")
