"""Published data sets: the real files where they are at hand, and what is said of files that are not right."""

import json
import shutil
import zipfile
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot.bench import of_splits
from fewshot.cli import cli
from fewshot.datasets.caltech101 import Caltech101, read_caltech101
from fewshot.datasets.cifar_fs import CifarAwa2, CifarFs, read_cifar_fs
from fewshot.datasets.class_lists import Cub, MiniImageNet, TieredImageNet, read_class_list
from fewshot.datasets.grocery import GroceryFruit, read_grocery
from fewshot.datasets.index import Index, read_index
from fewshot.datasets.omniglot import Omniglot, OmniglotBackground, OmniglotChallenge, read_challenge
from fewshot.drawing import fixed_episodes
from fewshot.episodes import EpisodeSpec
from fewshot.errors import DataError, FormatError
from fewshot.images import open_image
from fewshot.store import Store


@pytest.mark.slow
def test_omniglot_has_the_vinyals_splits(shared_data):
    items = Omniglot().load(shared_data / "omniglot")
    assert Counter(items.splits) == {"train": 4112 * 20, "val": 688 * 20, "test": 1692 * 20}
    upright, turned = (items.labels.index(f"Gurmukhi/character42/rot{r}") for r in ("000", "090"))
    pixels = np.array(open_image(items.sources[upright]))
    np.testing.assert_array_equal(np.array(open_image(items.sources[turned])), np.rot90(pixels))
    only = of_splits(items, (EpisodeSpec(split="test"), EpisodeSpec(split="test", shot=1)))
    assert set(only.splits) == {"test"}
    assert len(only.sources) == len(only.labels) == 1692 * 20


def test_omniglot_background_is_none_of_the_challenge(shared_data):
    items = OmniglotBackground().load(shared_data / "omniglot")
    assert len(items.sources) == 19_280
    assert len(items.classes) == 964
    assert len({label.split("/")[0] for label in items.labels}) == 30
    assert not set(items.sources) & set(OmniglotChallenge().load(shared_data / "omniglot").sources)
    with pytest.raises(DataError, match="needs a path"):
        OmniglotBackground().load()


def test_omniglot_challenge_has_20_runs_of_one_alphabet_each(shared_data):
    items = OmniglotChallenge().load(shared_data / "omniglot")
    classes, labels = np.unique(items.labels, return_inverse=True)
    episodes = fixed_episodes(EpisodeSpec(fixed=True), labels, items.fixed, ())
    assert episodes.support.shape == episodes.query.shape == (20, 20)
    assert (episodes.spec.way, episodes.spec.shot, episodes.spec.query, episodes.spec.episodes) == (20, 1, 1, 20)
    with zipfile.ZipFile(shared_data / "omniglot" / "all_runs.zip") as archive:
        for run in (0, 19):
            lines = archive.read(f"run{run + 1:02}/class_labels.txt").decode().split("\n")
            for (test, training), row, label in zip(
                (line.split() for line in lines if line), episodes.query[run], episodes.query_labels[run], strict=True
            ):
                assert items.sources[row] == archive.read(test)
                assert items.sources[episodes.support[run, label]] == archive.read(training)
                assert classes[labels[row]] == training


def test_caltech101_is_in_coops_order(shared_data):
    items = Caltech101().load(shared_data / "caltech101")
    assert Counter(items.splits) == {"train16_seed1": 1600, "test": 2465}
    assert len(items.classes) == 100
    assert items.phrases["yin_yang"] == ("a photo of a yin yang.",)


def test_cifar_fs_and_its_animals(shared_data):
    items = CifarFs().load(shared_data / "cifar_fs")
    assert Counter(items.splits) == {"test": 4000, "train": 2560, "val": 800}
    animals = CifarAwa2().load(shared_data / "cifar_fs")
    assert len(animals.classes) == 20
    assert set(animals.unseen) < set(animals.classes)
    signatures = np.array(list(animals.attributes.values()))
    assert signatures.shape == (20, 85)
    assert signatures.min() >= 0
    assert signatures.max() <= 1


def test_grocery_has_studio_pictures_and_descriptions(shared_data):
    items = GroceryFruit().load(shared_data / "grocery_fruit")
    assert Counter(items.splits) == {"test": 336, "train": 280, "iconic": 28}
    assert all(len(items.phrases[c][0]) > 20 for c in items.classes)


@pytest.mark.parametrize("kind", [MiniImageNet, TieredImageNet, Cub])
def test_class_lists_over_a_folder(shared_data, tmp_path, kind):
    shutil.copytree(shared_data / "splits", tmp_path / "splits", copy_function=shutil.copyfile)
    pictures = tmp_path / "images"
    for split, wanted in kind.counts.items():
        names = read_class_list(tmp_path / "splits" / kind.pattern.format(split))
        assert len(set(names)) == wanted
        for name in names:
            (pictures / name).mkdir(parents=True)
            Image.new("RGB", (2, 2)).save(pictures / name / "1.png")
    items = kind().load(pictures)
    assert Counter(items.splits) == kind.counts
    shutil.rmtree(pictures / items.labels[0])
    with pytest.raises(DataError, match=rf"lacks 1 of .* classes, first '{items.labels[0]}'"):
        kind().load(pictures)


def test_class_lists_that_are_wrong_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"miniimagenet_ravi_train_classes\.json is neither in"):
        MiniImageNet().load(tmp_path / "images")
    file = tmp_path / "miniimagenet_ravi_train_classes.json"
    (tmp_path / "images" / file.name).write_text(json.dumps(["a", "b"]))
    with pytest.raises(DataError, match="lists 2 classes, not 64"):
        MiniImageNet().load(tmp_path / "images")
    for text in ('{"class": []}', "[1]", "{"):
        file.write_text(text)
        with pytest.raises(DataError, match=r"must hold a list|cannot be read"):
            read_class_list(file)


def test_an_index_is_measured_by_its_labels(tmp_path):
    with Store.create(tmp_path / "i", encoder="toy", fingerprint="toy-1", dim=4) as store:
        store.append(["d1", "d2"], np.eye(4, dtype=np.float32)[:2])
    with pytest.raises(DataError, match="has 0 labels"):
        read_index(tmp_path / "i")
    with pytest.raises(FormatError, match="not an index"):
        read_index(tmp_path)


def test_labels_of_an_index_are_its_folders(tmp_path):
    for label, colour in (("red", (220, 10, 10)), ("blue", (10, 10, 220))):
        (tmp_path / "p" / label).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8), (colour[0], colour[1] + 9 * i, colour[2])).save(
                tmp_path / "p" / label / f"{i}.png"
            )
    Image.new("RGB", (8, 8)).save(tmp_path / "p" / "loose.png")
    built = CliRunner().invoke(
        cli, ["index", "build", str(tmp_path / "p"), "--out", str(tmp_path / "i"), "--encoder", "toy"]
    )
    assert built.exit_code == 0, built.output
    items = read_index(tmp_path / "i")
    assert Counter(items.labels) == {"red": 4, "blue": 4}
    assert items.encoder == ("toy", "toy-1")
    words = [
        "bench",
        "run",
        "--dataset",
        tmp_path / "i",
        "--way",
        "2",
        "--shot",
        "1",
        "--query",
        "3",
        "--episodes",
        "5",
    ]
    done = CliRunner().invoke(cli, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    assert "100.0 ± 0.0" in done.stdout


@pytest.mark.parametrize(
    "kind", [Omniglot, OmniglotChallenge, Caltech101, CifarFs, CifarAwa2, GroceryFruit, Cub, Index]
)
def test_a_path_is_asked_for(kind):
    with pytest.raises(DataError, match=f"'{kind.name}' needs a path"):
        kind().load()


@pytest.mark.parametrize(
    "read", [Omniglot().load, read_challenge, read_caltech101, read_cifar_fs, CifarAwa2().load, read_grocery]
)
def test_an_empty_folder_is_refused(tmp_path, read):
    with pytest.raises(DataError, match=r"cannot be read|does not hold"):
        read(tmp_path)


def test_files_that_are_not_whole_are_refused(tmp_path):
    (tmp_path / "index.csv").write_text("path,split,label,name\na.jpg,test,0,x\n")
    with pytest.raises(DataError, match=r"holds {'test': 1} of 1 classes; CoOp's split has"):
        read_caltech101(tmp_path)
    with zipfile.ZipFile(tmp_path / "images_background.zip", "w") as archive:
        archive.writestr("images_background/A/character01/1.png", b"")
    with pytest.raises(DataError, match="holds 1 drawings, not 19280"):
        Omniglot().load(tmp_path)
    with zipfile.ZipFile(tmp_path / "all_runs.zip", "w") as archive:
        archive.writestr("run01/class_labels.txt", "run01/test/item01.png run01/training/class01.png\n")
    with pytest.raises(DataError, match="run01 is not complete"):
        read_challenge(tmp_path)
    np.savez(tmp_path / "cifar_fs_subset.npz", images=np.zeros((1, 32, 32, 3), np.uint8))
    (tmp_path / "index.csv").write_text("row,split,name\n0,test,x\n")
    (tmp_path / "splits.json").write_text('{"train": [], "val": [], "test": ["x"]}')
    with pytest.raises(DataError, match="split 'train' has 0 classes; CIFAR-FS has 64"):
        read_cifar_fs(tmp_path)
    for text in ("3", "[]", "{}", '{"train": 1}'):
        (tmp_path / "splits.json").write_text(text)
        with pytest.raises(DataError, match="does not hold CIFAR-FS as it should"):
            read_cifar_fs(tmp_path)


@pytest.mark.parametrize(
    ("read", "folder", "file", "text"),
    [
        (read_caltech101, "caltech101", "index.csv", "CoOp's split has"),
        (read_grocery, "grocery_fruit", "index.csv", "split 'train' of index.csv 1, not the same 28"),
        (read_grocery, "grocery_fruit", "classes.csv", "classes.csv has 9 classes"),
        (read_cifar_fs, "cifar_fs", "index.csv", "index.csv lists 9 rows for images"),
        (CifarAwa2().load, "attributes", "awa2_class_attributes.csv", "does not hold the AwA2 tables"),
        (CifarAwa2().load, "attributes", "awa2_class_map.csv", "names 9 CIFAR-100 classes, not 20"),
    ],
)
def test_a_table_that_was_cut_short_is_refused(shared_data, tmp_path, read, folder, file, text):
    for name in {folder, "cifar_fs"}:
        (tmp_path / name).mkdir()
        for part in (shared_data / name).iterdir():
            (tmp_path / name / part.name).symlink_to(part)
    lines = (shared_data / folder / file).read_bytes().splitlines(keepends=True)
    (tmp_path / folder / file).unlink()
    (tmp_path / folder / file).write_bytes(b"".join(lines[:10]))
    with pytest.raises(DataError, match=text):
        read(tmp_path / ("cifar_fs" if folder == "attributes" else folder))
