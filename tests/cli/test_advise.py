"""`fewshot advise` from files to answers: JSON, page, indexes, a map between encoders; one line for a mistake."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot.cli import cli
from fewshot.store import Store
from fewshot.transfer.advice import command, tuning

COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (50, 60, 200)}


def make(folder: Path, each: int, *, names: dict[str, str] | None = None, dark: float = 1.0, seed: int = 0) -> Path:
    """Noisy pictures of one colour a class, darkened as another lamp would."""
    rng = np.random.default_rng(seed)
    for name, rgb in COLOURS.items():
        home = folder / (names or {}).get(name, name)
        home.mkdir(parents=True, exist_ok=True)
        for i in range(each):
            pixels = rng.normal(np.array(rgb) * dark, 60, (32, 32, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(home / f"{i}.png")
    return folder


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["advise", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def index(folder: Path, out: Path, encoder: str = "toy") -> Path:
    done = CliRunner().invoke(cli, ["index", "build", str(folder), "--out", str(out), "--encoder", encoder])
    assert done.exit_code == 0, done.output
    return out


def test_folders_to_json_and_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    source, target = make(tmp_path / "studio", 6), make(tmp_path / "shelf", 4, dark=0.7, seed=1)
    words = ["--source", source, "--target", target, "--encoder", "toy", "--rounds", 1]
    words += ["-s", "pooled", "-s", "coral", "--json", tmp_path / "a.json", "--html", tmp_path / "a.html"]
    code, out, _ = run(*words)
    assert code == 0
    for start in ("what: use toy", "when: ", "how: ", f"run: fewshot fit --support {target} --encoder toy -s "):
        assert any(line.startswith(start) for line in out.splitlines()), start
    assert re.search(r"  gap: .*CORAL: covariances 0\.\d*[1-9]\d* apart", out), "no power of ten that means nothing"
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found) == {"what", "encoder", "when", "how"}
    assert set(found["how"]["accuracy"]) == {"ridge", "pooled", "coral"}
    assert found["when"]["verdict"] in ("helps", "hurts", "no difference", "cannot tell")
    assert 0 < found["when"]["gap"]["p"] <= 1
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == 2
    assert "after coral" in page
    assert run(*words)[0] == 2  # nothing is overwritten


def test_indexes_bring_their_encoder_and_their_command_runs(tmp_path: Path) -> None:
    source, target = make(tmp_path / "s", 4), make(tmp_path / "t", 4, dark=0.7, seed=1)
    ours, theirs = index(source, tmp_path / "s.index"), index(target, tmp_path / "t.index")
    code, out, _ = run("--source", ours, "--target", theirs, "--rounds", 1, "-s", "pooled", "-s", "biased_ridge")
    assert code == 0
    words = out.splitlines()[-1].removeprefix("run: fewshot ").split()
    words[-1] = str(tmp_path / "m.fewshot")
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output


def test_items_of_the_target_without_a_label_count_for_the_gap_alone(tmp_path: Path) -> None:
    source, target = make(tmp_path / "s", 6), make(tmp_path / "t", 4, seed=1)
    ours, theirs = index(source, tmp_path / "s.index"), index(target, tmp_path / "t.index")
    dark = make(tmp_path / "dark", 12, dark=0.3, seed=2)
    words = ["--source", ours, "--rounds", 1, "-s", "pooled", "--json"]
    assert run(*words, tmp_path / "a.json", "--target", theirs)[0] == 0
    for i, file in enumerate(sorted(dark.rglob("*.png"))):  # beside the class folders, so they have no label
        file.rename(target / f"{i}.png")
    assert run(*words, tmp_path / "b.json", "--target", index(target, tmp_path / "t.index"))[0] == 0
    few, more = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert more["when"]["gap"]["a_distance"] > few["when"]["gap"]["a_distance"] + 0.3
    assert more["what"][0]["logme"] == pytest.approx(few["what"][0]["logme"])
    assert more["how"]["accuracy"] == few["how"]["accuracy"]


def test_a_map_joins_two_encoders(tmp_path: Path) -> None:
    """The source's index is turned into another encoder's by permuting its columns, which a map can undo."""
    source, target = make(tmp_path / "s", 8), make(tmp_path / "t", 4, dark=0.7, seed=1)
    shared = make(tmp_path / "shared", 12, seed=2)
    theirs, bridge = index(target, tmp_path / "t.index"), index(shared, tmp_path / "b.index")
    other_source, other_bridge = index(source, tmp_path / "s2.index"), index(shared, tmp_path / "b2.index")
    for store in (other_source, other_bridge):
        rewrite(store)
    words = ["--source", other_source, "--target", theirs, "--rounds", 1, "-s", "pooled"]
    code, _, error = run(*words)
    assert (code, error.count("\n")) == (2, 1)
    assert "index both with one encoder, or pass --map" in error
    code, _, error = run(*words, "--map", other_bridge, bridge)
    assert code == 0, error
    assert re.search(r"map: (ridge|cca) on 36 shared pictures, explains \d+ % of those left out", error)
    code, _, error = run(*words, "--map", bridge, other_bridge)
    assert code == 2
    assert "give two indexes made by these two" in error


def test_a_source_of_another_encoder_is_learned_from_through_the_map(tmp_path: Path) -> None:
    target, shared = make(tmp_path / "t", 4, seed=1), make(tmp_path / "shared", 12, seed=2)
    bridge, other = index(shared, tmp_path / "b.index"), index(shared, tmp_path / "b2.index")
    source = index(make(tmp_path / "s", 8), tmp_path / "s2.index")
    for store in (source, other):
        rewrite(store)
    model = tmp_path / "m.fewshot"
    asked = command("pooled", "toy", str(source), str(target), str(other), str(bridge))
    words = [*shlex.split(asked)[1:-1], str(model)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    lines = CliRunner().invoke(cli, ["classify", str(target), "--model", str(model), "--top", "1"]).stdout.splitlines()
    right = [Path(path).parent.name == answer.split()[0] for path, answer in (line.split(": ") for line in lines)]
    assert (len(right), sum(right) >= 10) == (12, True)
    assert "--map" not in command("ridge", "toy", "s", "t", "a", "b")
    for wrong, text in (
        (["--source", str(target)], "--map carries an index over"),
        ([], "--map carries an index over"),
    ):
        rest = [w for w in words if w not in ("--source", str(source))] + wrong
        done = CliRunner().invoke(cli, [*rest, "--force"])
        assert (done.exit_code, text in done.output) == (2, True), done.output
    done = CliRunner().invoke(cli, ["classify", str(target), "--model", str(model), "--map", str(other), str(bridge)])
    assert "leave out --map" in done.output


def rewrite(folder: Path) -> None:
    with Store.open(folder, write=True) as store:
        flipped = np.ascontiguousarray(store.embeddings()[:, ::-1])
        (folder / "embeddings.f32").write_bytes(flipped.tobytes())
        store.database.execute("UPDATE meta SET value = '\"toy-flipped\"' WHERE key = 'fingerprint'")
        store.database.commit()


def test_a_large_target_gets_a_command_that_fine_tunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot.transfer.when.LARGE", 4)
    source, target = make(tmp_path / "s", 4), make(tmp_path / "t", 4, dark=0.7, seed=1)
    words = ["--source", source, "--target", target, "--rounds", 1, "-s", "pooled"]
    lines = run(*words, "--encoder", "lite:stage7", "--html", tmp_path / "a.html")[1].splitlines()
    asked = next(line for line in lines if line.startswith("to fine-tune: ")).removeprefix("to fine-tune: fewshot ")
    assert f"finetune --data {target} --encoder lite " in asked
    assert f"--data {target}" in (tmp_path / "a.html").read_text()
    words_of_it = [*shlex.split(asked)[:-1], str(tmp_path / "t.w"), "--epochs", "1"]
    done = CliRunner().invoke(cli, words_of_it)
    assert done.exit_code == 0, done.output
    assert not any(line.startswith("to fine-tune") for line in run(*words, "--encoder", "toy")[1].splitlines())
    assert tuning("timm:resnet18:stage3@a:stage.pth", "t", similar=False) == (
        "fewshot finetune --data t --encoder timm:resnet18@a:stage.pth --freeze none --out target.w"
    )
    assert tuning("lite", str(index(target, tmp_path / "t.index")), similar=True) == ""


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    source, target = make(tmp_path / "s", 3), make(tmp_path / "t", 3, seed=1)
    strange = make(tmp_path / "o", 3, names={"red": "x", "green": "y", "blue": "z"})
    one = tmp_path / "one"
    (one / "red").mkdir(parents=True)
    (one / "red" / "a.png").write_bytes((source / "red" / "0.png").read_bytes())
    lone = make(tmp_path / "lone", 1)
    for case, wanted in (
        ((strange, target), "share 0 classes: the source has x, y, z, the target blue, green, red; name them alike"),
        ((one, target), "holds one class only, 'red'"),
        ((source, lone), "has 1 labelled item; advice needs at least 2 of each class"),
        ((tmp_path / "nowhere", target), "nowhere is not there"),
    ):
        code, _, error = run("--source", case[0], "--target", case[1], "--encoder", "toy", "--rounds", 1)
        assert (code, error.count("\n")) == (2, 1), error  # said before anything is embedded
        assert wanted in error
    code, out, _ = run("--source", strange, "--target", target, "--encoder", "toy", "--rounds", 1, "--other-classes")
    assert code == 0
    assert "multi_task" in out
    code, _, error = run("--source", source, "--target", target, "--encoder", "toy", "--map", source, target)
    assert (code, error.count("\n")) == (2, 1)
    assert "--map joins two indexes" in error
    code, out, error = run("--source", source, "--target", target, "--encoder", "toy", "--encoder", "toi")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "unknown encoder 'toi'" in error
    ours = index(source, tmp_path / "s.index")
    bare = index(source / "red", tmp_path / "bare.index")
    for places, wanted in (
        ((ours, bare), "the target has no labelled items"),
        ((bare, ours), "the source has no labels"),
    ):
        words = ["--source", places[0], "--target", places[1], "--other-classes"]
        assert wanted in run(*words)[2]
    assert "leave out --encoder lite" in run("--source", ours, "--target", ours, "--encoder", "lite")[2]
    assert "unknown strategy 'corl'" in run("--source", source, "--target", target, "-s", "corl")[2]


def test_texts_are_compared_by_encoders_that_take_them(tmp_path: Path) -> None:
    rows = {"good": ["I love it", "well made", "very happy"], "bad": ["it broke", "a waste", "never again"]}
    for name, ending in (("far", " (the film)"), ("near", "")):
        lines = [f"{text}{ending},{label}" for label, texts in rows.items() for text in texts]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]))
    words = ["--source", tmp_path / "far.csv", "--target", tmp_path / "near.csv", "--rounds", 1]
    code, out, error = run(*words, "-s", "pooled")
    assert code == 0, error
    assert out.startswith("what: use lite\n")
    assert "frozen features with a linear head (texts have" in out
    code, _, error = run(*words, "--encoder", "lite:stage6")
    assert code == 2
    assert error.endswith("error: encoder 'lite:stage6' takes no text; use lite, clip:... or st:...\n")


def test_what_both_sides_hold_is_left_out_of_the_source(tmp_path: Path) -> None:
    target = make(tmp_path / "shelf", 4, seed=1)
    source = make(tmp_path / "more", 5, seed=2)
    for path in sorted((target / "red").iterdir())[:2]:
        (source / "red" / f"copy of {path.name}").write_bytes(path.read_bytes())
    words = ["--encoder", "toy", "--rounds", 1, "-s", "pooled"]
    code, _, notes = run("--source", source, "--target", target, *words)
    assert code == 0
    assert "2 items of the source are in the target too, and are left out of the source" in notes
    for same in (target, index(target, tmp_path / "i")):
        code, out, notes = run("--source", same, "--target", same, *(words if same == target else words[2:]))
        assert (code, out) == (2, "")
        assert "every item of the source is in the target too; give a source of other items" in notes


def test_what_stands_for_the_source_learns_from_it(tmp_path: Path) -> None:
    source, target = make(tmp_path / "s", 4), make(tmp_path / "t", 4, dark=0.7, seed=1)
    words = ["--source", source, "--target", target, "--encoder", "toy", "--rounds", 1]
    code, _, error = run(*words, "-s", "ridge", "-s", "prototypical")
    assert (code, "none of ridge, prototypical learns from a source" in error) == (2, True), error
    code, out, _ = run(*words, "-s", "prototypical", "-s", "ridge", "-s", "kmm")
    assert (code, "(kmm against the target alone)" in out) == (0, True), out


def test_a_page_that_cannot_be_made_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    words = ["--source", tmp_path, "--target", tmp_path, "--html", tmp_path / "a"]
    code, _, error = run(*words, "--json", tmp_path / "b" / ".." / "a", "--force")
    assert (code, "give each a file of its own" in error) == (2, True), error
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, error = run(*words)
    assert (code, "matplotlib" in error) == (2, True), error


def test_an_encoder_that_is_not_the_indexs_is_told_before_any_embedding(tmp_path: Path) -> None:
    source, target = make(tmp_path / "s", 4), index(make(tmp_path / "t", 4, seed=1), tmp_path / "t.index")
    code, _, error = run("--source", source, "--target", target, "--encoder", "toy", "--encoder", "lite")
    assert (code, "was built by encoder 'toy'" in error, "embedding" in error) == (2, True, False), error
