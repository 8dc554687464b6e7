"""The README is run: every command and every piece of Python in it; its command reference equals the live --help.

Run with UPDATE_README=1 to write the reference anew.
"""

import importlib
import inspect
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot import hookspecs
from fewshot.cli import LazyGroup, cli
from fewshot.registry import COMMAND_GROUP, Registry, load_group, registry

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r"^photos/(\w+)\.jpg: (.+?) \d\.\d\d", re.MULTILINE)
MARK = re.compile(r"(<!-- reference -->\n).*?(<!-- /reference -->)", re.DOTALL)


def make_pictures(folder: Path) -> None:
    """Write photos/ and examples/CLASS/ from the photographs that come with scikit-image."""
    data = pytest.importorskip("skimage.data")
    home = Path(data.__file__).parent
    (folder / "photos").mkdir()
    for name, label in (("chelsea.png", "cat"), ("coffee.png", "coffee"), ("rocket.jpg", "rocket")):
        (folder / "examples" / label).mkdir(parents=True)
        with Image.open(home / name) as opened:
            whole = opened.convert("RGB")
        width, height = whole.size
        whole.resize((width // 2, height // 2)).save(folder / "photos" / f"{label}.jpg")
        for left in (0, width // 8):
            whole.crop((left, 0, left + width * 3 // 4, height)).save(folder / "examples" / label / f"{left}.jpg")


def test_everything_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    ran = 0
    for language, file, text in BLOCK.findall(README.read_text(encoding="utf-8")):
        if file:
            Path(file).write_text(text, encoding="utf-8")
            importlib.invalidate_caches()
        elif language == "sh":
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "fewshot":
                    done = CliRunner().invoke(cli, words[1:])
                    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
                    for name, label in ANSWER.findall(done.stdout):
                        assert name in label, f"{line} takes the picture of a {name} for a {label}"
                    ran += 1
        elif language == "python" and "..." not in text:
            exec(compile(text, "README.md", "exec"), {})
            ran += 1
    assert ran > 12


def helps(root: click.Group, command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    done = CliRunner().invoke(root, [*words, "--help"], prog_name="fewshot", terminal_width=100, max_content_width=100)
    yield " ".join(("fewshot", *words)), done.stdout.strip()
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for child in command.list_commands(ctx):
                found = command.get_command(ctx, child)
                assert found is not None
                yield from helps(root, found, (*words, child))


def test_reference_equals_the_live_help() -> None:
    root = LazyGroup("fewshot", help=cli.help, params=cli.params, context_settings=cli.context_settings)
    load_group(Registry(), COMMAND_GROUP, root)
    live = list(helps(root, root, ()))
    wanted = "\n".join(f"```text\n$ {name} --help\n{text}\n```\n" for name, text in live)
    readme = README.read_text(encoding="utf-8")
    new = MARK.sub(lambda mark: f"{mark[1]}{wanted}{mark[2]}", readme)
    if os.environ.get("UPDATE_README"):
        README.write_text(new, encoding="utf-8")
    assert readme == new, "the README's reference is stale; run this test with UPDATE_README=1"


def test_every_strategy_stands_in_the_readme() -> None:
    readme = README.read_text(encoding="utf-8")
    own = {n: c for n, c in registry().strategies.items() if c.__module__.startswith("fewshot_plugins.")}
    assert [name for name in own if f"`{name}`" not in readme] == []


def test_every_hook_stands_in_the_readme_with_its_signature() -> None:
    readme = README.read_text(encoding="utf-8")
    hooks = [hook for name, hook in vars(hookspecs).items() if name.startswith("register_")]
    assert len(hooks) == 4
    for hook in hooks:
        signature = str(inspect.signature(hook)).replace("'", "")
        assert f"def {hook.__name__}{signature}: ..." in readme
