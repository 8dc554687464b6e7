"""What each strategy needs, asked of the commands: a missing input is refused at once, by the flag that brings it."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from colours import colour_folders
from fewshot.cli import cli
from fewshot.registry import registry

FLAG = {
    "support": "--support",
    "text": "--classes",
    "attributes": "--attributes",
    "unlabeled": "--unlabeled",
    "source": "--source",
}
FROM_DATA = {"text": "--encoder", "attributes": "data set", "source": "--set source="}  # where a bench takes them from
NAMES = sorted(registry().strategies)


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    root = tmp_path_factory.mktemp("inputs")
    (root / "table.csv").write_text("class,r,g\nred,1,0\ngreen,0,1\nblue,0,0\n")
    return {
        "support": colour_folders(root / "support", 2),
        "text": "red,green,blue",
        "attributes": root / "table.csv",
        "unlabeled": colour_folders(root / "unlabeled", 2),
        "source": colour_folders(root / "source", 2),
    }


def flags(inputs: dict[str, object], fields: frozenset[str]) -> list[object]:
    return [word for field in sorted(fields) for word in (FLAG[field], inputs[field])]


@pytest.mark.parametrize("command", ["classify", "fit"])
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_input_is_told_by_its_flag(
    name: str, command: str, inputs: dict[str, object], tmp_path: Path
) -> None:
    needs = registry().strategy(name).needs
    what = [inputs["unlabeled"]] if command == "classify" else ["--out", tmp_path / "m"]
    for need in sorted(needs):
        done = run(command, *what, *flags(inputs, needs - {need}), "--encoder", "toy", "-s", name)
        assert (done.exit_code, done.stdout) == (2, "")
        assert FLAG[need] in done.stderr
        assert done.stderr.count("\n") == 1  # so nothing was embedded before


@pytest.mark.parametrize("name", NAMES)
def test_with_all_it_needs_it_classifies(name: str, inputs: dict[str, object]) -> None:
    words = flags(inputs, registry().strategy(name).needs)
    done = run("classify", inputs["unlabeled"], *words, "--encoder", "toy", "-s", name, "-o", "guard=off")
    if "unknown option" in done.stderr:
        done = run("classify", inputs["unlabeled"], *words, "--encoder", "toy", "-s", name)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.filterwarnings("ignore::fewshot_plugins._guard.GuardWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_bench_says_where_it_would_take_the_input_from(name: str, tmp_path: Path) -> None:
    missing = sorted(registry().strategy(name).needs & set(FROM_DATA))
    words = ["--dataset", "spheres", "--episodes", "2", "--query", "6", "--cache", tmp_path / "c"]
    done = run("bench", "run", *words, "-s", name)
    assert done.exit_code == (2 if missing else 0), done.output
    if missing:
        assert FROM_DATA[missing[0]] in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_source_alone_names_the_classes_but_no_way_to_transfer(inputs: dict[str, object]) -> None:
    done = run("classify", inputs["unlabeled"], "--source", inputs["source"], "--encoder", "toy")
    assert done.exit_code == 2
    assert "pass a strategy, e.g. -s coral" in done.stderr
    done = run("classify", inputs["unlabeled"], "--source", inputs["source"], "--encoder", "toy", "-s", "pooled")
    assert done.exit_code == 0
    for line in done.stdout.splitlines():
        path, _, answer = line.partition(": ")
        assert answer.split()[0] == Path(path).parent.name
