"""The command line as a whole: lazy imports, listings, errors in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fewshot.cli import COMMANDS, cli, main
from fewshot.registry import TakenName, registry

HEAVY = ("torch", "faiss", "open_clip", "timm", "transformers", "sklearn", "PIL", "numpy")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['fewshot', '--help']\ntry:\n    import fewshot.__main__\n"
    code += f"finally:\n    print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "classify" in done.stdout
    assert done.stderr.strip() == "[]"


def test_listed_help_is_each_commands_own() -> None:
    with click.Context(cli) as ctx:
        for name, (_, text) in COMMANDS.items():
            command = cli.get_command(ctx, name)
            assert command is not None
            assert (command.help or "").splitlines()[0] == text


@pytest.mark.parametrize("name", ["plugins", "strategies", "encoders", "datasets"])
def test_listings_have_a_table_and_json(name: str) -> None:
    runner = CliRunner()
    rows = json.loads(runner.invoke(cli, [name, "--json"]).stdout)
    table = runner.invoke(cli, [name])
    assert table.exit_code == 0
    assert rows
    lines = table.stdout.splitlines()  # no terminal: a line a row, whole, so that `| grep` and `| head` work
    assert [line.split()[0] for line in lines] == ["name", *(row["name"] for row in rows)]
    assert all(line == line.rstrip() for line in lines)
    last = [str(row[list(row)[-1]]) for row in rows]
    assert all(line.endswith(text) for line, text in zip(lines[1:], last, strict=True))
    if name != "plugins":
        assert {row["name"] for row in rows} == set(getattr(registry(), name))


def test_every_strategy_can_be_shown() -> None:
    for name, cls in registry().strategies.items():
        shown = CliRunner().invoke(cli, ["strategies", "show", name])
        assert shown.exit_code == 0, shown.output
        row = json.loads(CliRunner().invoke(cli, ["strategies", "show", name, "--json"]).stdout)
        assert row["paper"], f"{name} cites no paper"
        assert row["needs"] == sorted(cls.needs)
        assert re.search(r"-> \w+ \[.*\b[CDSUMPT]\b", row["fit"]), f"{name} does not say the shapes of what it fits"
        assert row["fit"] in shown.stdout
        for info in row["options"]:
            assert info["help"], f"{name}: option {info['name']} has no help text"
            assert f"{info['name']}={info['default']}" in shown.stdout


def test_errors_are_one_line_and_exit_code_2() -> None:
    done = CliRunner().invoke(cli, ["strategies", "show", "protypical"])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: unknown strategy 'protypical'. Did you mean 'prototypical'? Known: ")
    assert done.stderr.count("\n") == 1


def test_unknown_command_is_refused() -> None:
    assert CliRunner().invoke(cli, ["clasify"]).exit_code == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("fewshot, version")


def test_a_taken_name_stops_the_program_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def clash(*_: object) -> None:
        raise TakenName("strategy 'x' is registered by both plugin 'a' and plugin 'b'")

    monkeypatch.setattr("fewshot.cli.load_group", clash)
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: strategy 'x' is registered by both plugin 'a' and plugin 'b'\n"


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_gets_one_line_whenever_it_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fewshot.registry.registry", interrupt)
    done = CliRunner().invoke(cli, ["plugins"])
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")
    monkeypatch.setattr("fewshot.cli.load_group", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_an_interrupt_while_the_program_is_imported_gets_one_line() -> None:
    code = "import runpy, sys\nclass Interrupt:\n    def find_spec(self, name, *_):\n"
    code += "        if name == 'fewshot.cli':\n            raise KeyboardInterrupt\n"
    code += "sys.meta_path.insert(0, Interrupt())\nrunpy.run_module('fewshot')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["classfy", "x"], ["unknown command 'classfy'", "Did you mean 'classify'?"]),
        (["--nope"], ["--nope", "See: cli -h"]),
        (["query", "index", "text", "--top", "0"], ["'--top'", "See: cli query -h"]),
        (["index", "build", "folder"], ["Missing option '--out'. See: cli index build -h"]),
        (["index", "nope"], ["No such command 'nope'. See: cli index -h"]),
    ],
)
def test_wrong_words_get_one_line(words: list[str], parts: list[str]) -> None:
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in parts)


def test_a_group_without_a_command_shows_its_help() -> None:
    done = CliRunner().invoke(cli, ["index"])
    assert done.exit_code == 2
    assert "Commands:" in done.stderr


def test_a_full_disk_gets_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        code = "from fewshot.cli import main; main(['plugins', '--json'])"
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: output: No space left on device; free some space, or choose another place\n"


@pytest.mark.parametrize(
    "words",
    [
        ("advise", "--source", "s", "--target", "t"),
        ("bench", "report", "r.json", "--html", "r.html"),
        ("finetune", "--data", "d", "--out", "w"),
    ],
)
def test_a_seed_below_zero_is_no_traceback(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*words, "--seed", "-1"])
    assert (done.exit_code, "-1 is not in the range x>=0" in done.output) == (2, True), done.output
