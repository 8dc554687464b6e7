"""fewshot bench: what it prints, that it goes on where it stopped, and one line for each mistake."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot import bench
from fewshot.cli import cli
from fewshot.compare import compare_within
from fewshot.datasets.spheres import bayes_accuracy
from fewshot.report import load_report

FAST = ["--dataset", "spheres", "--episodes", "40", "--query", "5"]


@pytest.fixture
def run(tmp_path):
    def invoke(*words):
        return CliRunner().invoke(cli, ["bench", "run", "--cache", str(tmp_path / "cache"), *map(str, words)])

    return invoke


def test_a_run_prints_a_table_and_writes_a_report(run, tmp_path):
    done = run(
        *FAST, "-s", "prototypical", "-s", "prototypical:temperature=2", "--shot", "1,5", "--json", tmp_path / "r.json"
    )
    assert done.exit_code == 0, done.output
    report = load_report(tmp_path / "r.json")
    assert [(r.spec["shot"], r.options["temperature"]) for r in report.results] == [(1, 10), (1, 2), (5, 10), (5, 2)]
    assert len({r.episodes for r in report.results}) == 2  # all strategies met the same episodes
    for result in report.results:
        assert f"{100 * result.metrics['accuracy'].mean:.1f} ± " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not list(tmp_path.glob("*.cells"))


def test_a_stopped_run_goes_on_and_a_report_is_not_overwritten(run, tmp_path, monkeypatch):
    words = [*FAST, "--shot", "1,2,3", "--json", tmp_path / "r.json"]
    real, calls = bench.evaluate, []

    def stops(*args, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(bench, "evaluate", stops)
    assert run(*words).exit_code != 0
    monkeypatch.setattr(bench, "evaluate", lambda *a, **o: calls.append(2) or real(*a, **o))
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert "going on from 2 finished cells" in done.stderr
    assert calls == [1, 1, 2]
    assert len(load_report(tmp_path / "r.json").results) == 3
    again = run(*words)
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    assert run(*words, "--force").exit_code == 0


def test_a_run_that_is_killed_twice_in_the_middle_of_a_line_loses_no_finished_cell(run, tmp_path, monkeypatch):
    words = [*FAST, "--shot", "1,2,3", "--json", tmp_path / "r.json"]
    real, cells = bench.evaluate, tmp_path / "r.json.cells"

    def stops_after(number):
        calls = []

        def evaluate(*args, **options):
            calls.append(1)
            if len(calls) > number:
                raise KeyboardInterrupt
            return real(*args, **options)

        return evaluate

    for _ in range(2):
        monkeypatch.setattr(bench, "evaluate", stops_after(1))
        assert run(*words).exit_code != 0
        with cells.open("ab") as file:
            file.write(b'{"key": "half of a l\xff')
    monkeypatch.setattr(bench, "evaluate", stops_after(1))
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert "going on from 2 finished cells" in done.stderr
    assert not cells.exists()


def test_one_command_measures_calibrates_and_writes_a_page(run, tmp_path):
    words = [*FAST, "--shot", "20", "-s", "prototypical"]
    plain, scaled = tmp_path / "plain.json", tmp_path / "scaled.json"
    assert run(*words, "--json", plain).exit_code == 0
    done = run(*words, "--calibrate", "--json", scaled, "--html", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    assert "prototypical+T" in done.stdout
    a, b = load_report(plain).results[0], load_report(scaled).results[0]
    assert (a.accuracies, a.calibrated, b.calibrated) == (b.accuracies, False, True)
    assert b.metrics["ece"].mean < a.metrics["ece"].mean / 2
    assert "prototypical+T" in (tmp_path / "r.html").read_text(encoding="utf-8")
    again = run(*words, "--html", tmp_path / "r.html")
    assert again.exit_code == 2
    assert "pass --force" in again.stderr


def test_episodes_can_be_saved_and_run_again(run, tmp_path):
    one = run(*FAST, "--save-episodes", tmp_path / "e", "--json", tmp_path / "a.json")
    assert one.exit_code == 0, one.output
    (file,) = (tmp_path / "e").glob("spheres-5w5s-balanced-*.npz")
    two = run("--dataset", "spheres", "--episodes-from", file, "--json", tmp_path / "b.json")
    assert two.exit_code == 0, two.output
    a, b = (load_report(tmp_path / n).results[0] for n in ("a.json", "b.json"))
    assert (a.episodes, a.accuracies) == (b.episodes, b.accuracies)
    other = run("--dataset", "digits", "--encoder", "toy", "--episodes-from", file)
    assert "drawn from other data" in other.stderr


def test_given_episodes_get_the_rows_they_were_drawn_from(run, tmp_path):
    words = ["--dataset", "digits", "--encoder", "toy", "--episodes", "5", "--query", "2"]
    assert run(*words, "--set", "each=9", "--save-episodes", tmp_path / "e").exit_code == 0
    (file,) = (tmp_path / "e").glob("*.npz")
    two = run("--dataset", "digits", "--encoder", "toy", "--episodes-from", file)  # no word of `each`
    assert two.exit_code == 0, two.output


def test_strategies_that_adapt_show_both_marginals_even_where_all_that_is_left_is_asked(run, tmp_path):
    np.savez(tmp_path / "f.npz", x=np.random.default_rng(0).normal(size=(60, 4)), labels=np.repeat(["a", "b"], 30))
    words = ["--dataset", tmp_path / "f.npz", "--way", "all", "--query", "0", "--episodes", "4", "-s", "bd_cspn"]
    done = run(*words, "--json", tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    assert "balanced" in done.stdout
    assert "dirichlet" in done.stdout
    assert {r.spec["marginal"] for r in load_report(tmp_path / "r.json").results} == {"balanced", "dirichlet"}


def test_each_cell_ends_with_a_line_where_no_terminal_shows_a_bar(run):
    done = run(*FAST, "-s", "prototypical", "-s", "knn", "--shot", "1,2")
    lines = [line for line in done.stderr.splitlines() if line.startswith("spheres prototypical: 40 episodes, ")]
    assert len(lines) == 2
    assert all(line.endswith(" episodes/s") for line in lines)


def test_a_table_of_its_folder_has_the_folders_name(tmp_path):
    assert bench.data_title("table", tmp_path / "shirts" / "index.csv") == "shirts"
    assert bench.data_title("table", tmp_path / "shirts.csv") == "shirts"
    assert bench.data_title("digits", None) == "digits"


@pytest.mark.parametrize("names", [("a/pets.npz", "b/pets.npz"), ("cats.npz", "dogs.npz")])
def test_two_data_sets_of_like_labels_are_told_apart(run, names, tmp_path):
    files = [tmp_path / name for name in names]
    for seed, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        x = np.random.default_rng(seed).normal(size=(60, 4))
        np.savez(file, x=x, labels=np.repeat(["a", "b"], 30))
    words = [word for file in files for word in ("--dataset", file)]
    words += ["-s", "prototypical", "-s", "knn", "--way", "2", "--episodes", "8"]
    done = run(*words, "--json", tmp_path / "r.json", "--save-episodes", tmp_path / "e")
    assert done.exit_code == 0, done.output
    assert len([line for line in done.stdout.splitlines() if "2w5s" in line]) == 4
    found = compare_within(load_report(tmp_path / "r.json"))
    assert [(c.first.strategy, c.second.strategy) for c in found] == [("prototypical", "knn")] * 2
    assert all(c.first.dataset == c.second.dataset for c in found)
    assert len(list((tmp_path / "e").glob("*.npz"))) == 2


def test_folders_and_features_are_measured(run, tmp_path):
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 30, 30)), ("green", (30, 200, 30)), ("blue", (30, 30, 200))):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for i in range(8):
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pics" / name / f"{i}.png")
    (tmp_path / "pics" / "red" / "bad.png").write_text("no picture")
    words = ["--dataset", tmp_path / "pics", "--encoder", "toy", "--way", "all", "--shot", "1", "--query", "4"]
    first = run(*words, "--episodes", "20", "-s", "zero_shot", "-s", "prototypical", "--json", tmp_path / "a.json")
    assert first.exit_code == 0, first.output
    assert "skipped" in first.stderr
    assert "bad.png" in first.stderr
    found = load_report(tmp_path / "a.json").results
    assert [r.metrics["accuracy"].mean for r in found] == [1.0, 1.0]
    assert found[0].fingerprint == "toy-1"
    second = run(*words, "--episodes", "20", "-s", "zero_shot", "-s", "prototypical", "--json", tmp_path / "b.json")
    assert "images/s" not in second.stderr  # embeddings came from the cache
    again = load_report(tmp_path / "b.json").results[0]
    assert again.accuracies == found[0].accuracies
    assert again.cost.embedded_per_second == found[0].cost.embedded_per_second > 0  # of the run that embedded
    (tmp_path / "file").touch()
    third = run(*words, "--episodes", "20", "-s", "prototypical", "--cache", tmp_path / "file" / "cache")
    assert third.exit_code == 0, third.output
    assert "embeddings are not kept in" in third.stderr
    assert "(Not a directory); --cache names another folder" in third.stderr
    assert again.cost.dim == found[0].cost.dim > 0
    np.savez(tmp_path / "f.npz", x=rng.normal(size=(30, 4)), labels=np.repeat(["a", "b", "c"], 10))
    third = run("--dataset", tmp_path / "f.npz", "--way", "2-3", "--shot", "1-3", "--query", "5", "--episodes", "10")
    assert third.exit_code == 0, third.output
    assert "2-3w1-3s" in third.stdout


def test_compare_reads_one_or_two_reports(run, tmp_path):
    for name, options in (("a", "prototypical"), ("b", "prototypical:temperature=1")):
        run(*FAST, "-s", options, "--json", tmp_path / f"{name}.json")
    invoke = lambda *words: CliRunner().invoke(cli, ["bench", "compare", *map(str, words)])  # noqa: E731
    done = invoke(tmp_path / "a.json", tmp_path / "b.json")
    assert done.exit_code == 0, done.output
    assert "0/40/0" in done.stdout  # a temperature changes no decision
    rows = json.loads(invoke(tmp_path / "a.json", tmp_path / "b.json", "--json").stdout)
    assert rows[0]["difference"] == 0
    assert rows[0]["ties"] == 40
    alone = invoke(tmp_path / "a.json")
    assert alone.exit_code == 2
    assert "share no episodes" in alone.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "give either a SUITE file or --dataset"),
        (["s.toml", "--dataset", "spheres"], "give either a SUITE file or --dataset"),
        (["s.toml", "--way", "3"], "do not go with it"),
        (["--dataset", "sphere"], "unknown dataset 'sphere'. Did you mean 'spheres'"),
        (["--dataset", "no/such"], "neither a data set's name nor a folder"),
        (["--dataset", "spheres", "-s", "protypical"], "Did you mean 'prototypical'"),
        (["--dataset", "spheres", "--way", "30"], "20 classes with items, but way 30 need 30"),
        (["--dataset", "spheres", "--shot", "290"], "class 'class00' has 300 items, but shot + query needs 305"),
        (["--dataset", "spheres", "--shot", ","], "shot wants at least one value"),
        (["--dataset", "spheres", "--way", "few"], "way wants numbers or ranges"),
        (["--dataset", "spheres", "--seed", "x"], "--seed wants numbers"),
        (["--dataset", "spheres", "--seed", "²"], "--seed wants numbers"),
        (["--dataset", "spheres", "--set", "imbalence=3"], "Did you mean 'imbalance'"),
        (["--dataset", "spheres", "--split", "test"], "unknown split 'test'"),
        (["--dataset", "digits", "--encoder", "tyo"], "unknown encoder 'tyo'"),
        (["--dataset", "spheres", "-s", "zero_shot"], "needs class names or phrases"),
        (["--dataset", "digits", "--encoder", "lite:stage6", "-s", "zero_shot"], "'lite:stage6' takes no text"),
        (["--dataset", "digits", "--encoder", "toy", "--encoder", "tyo"], "unknown encoder 'tyo'"),
        (["--dataset", "digits", "--encoder", "toy", "--shot", "200"], "has 174 items, but shot + query needs 215"),
        (["--dataset", "folder"], "needs a path"),
        (["--dataset", "spheres", "--json", "no/such/r.json"], "cannot write no/such/r.json: no folder no/such"),
        (["--dataset", "spheres", "--json", ".", "--force"], "is a folder"),
        (["none.toml"], "suite none.toml cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run, words, text):
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1  # nothing was embedded before the mistake was found


def test_optional_runs_are_left_out_with_a_note(run, tmp_path):
    text = '[[run]]\ndataset = "spheres"\nepisodes = 5\nstrategies = ["prototypical"]\n'
    text += '[[run]]\ndataset = "folder"\npath = "gone"\noptional = true\nstrategies = ["prototypical"]\n'
    (tmp_path / "s.toml").write_text(text)
    done = run(tmp_path / "s.toml")
    assert done.exit_code == 0, done.output
    assert "left out folder" in done.stderr


def test_spheres_reach_their_bayes_accuracy(run, tmp_path):
    done = run(
        "--dataset", "spheres", "--way", "2", "--shot", "250", "--episodes", "300", "--json", tmp_path / "r.json"
    )
    assert done.exit_code == 0, done.output
    found = load_report(tmp_path / "r.json").results[0].metrics["accuracy"]
    assert found.mean == pytest.approx(bayes_accuracy(2), abs=found.half_width + 0.01)


def test_list_names_what_can_be_measured():
    rows = json.loads(CliRunner().invoke(cli, ["bench", "list", "--json"]).stdout)
    assert {"kind": "data set", "name": "spheres"}.items() <= next(r for r in rows if r["name"] == "spheres").items()
    assert "prototypical" in CliRunner().invoke(cli, ["bench", "list"]).stdout
