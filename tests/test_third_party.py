"""A real distribution by somebody else: installed with pip, then used from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DISTRIBUTION = Path(__file__).parent / "data" / "fewshot-medoid"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder the third-party distribution is installed into."""
    source = tmp_path_factory.mktemp("source")
    for file in DISTRIBUTION.iterdir():  # a copy, since building writes beside the sources
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def run(site: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "fewshot", *args]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path, **env}, capture_output=True, text=True)


def picture(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), colour).save(path)


def test_strategy_is_listed_and_shown(site: Path) -> None:
    rows = json.loads(run(site, "plugins", "--json").stdout)
    row = next(row for row in rows if row["name"] == "medoid")
    assert (row["distribution"], row["version"], row["error"]) == ("fewshot-medoid", "1.2", "")
    shown = run(site, "strategies", "show", "medoid")
    assert "Kaufman" in shown.stdout
    assert "scale=20.0" in shown.stdout


def test_strategy_classifies_from_the_command_line(site: Path, tmp_path: Path) -> None:
    for number, colour in enumerate(["red", "red", "blue", "blue"]):
        picture(tmp_path / "support" / colour / f"{number}.png", colour)
    picture(tmp_path / "new.png", "blue")
    task = ["--support", str(tmp_path / "support"), "--encoder", "toy", "-s", "medoid", "-o", "scale=5", "--json"]
    done = run(site, "classify", str(tmp_path / "new.png"), *task)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "blue"


def test_command_is_added(site: Path) -> None:
    assert "hello" in run(site, "--help").stdout
    assert run(site, "hello", "there").stdout == "hello there\n"


def test_plugin_can_be_disabled(site: Path) -> None:
    done = run(site, "strategies", "show", "medoid", FEWSHOT_DISABLE_PLUGINS="medoid,other")
    assert done.returncode == 2
    assert "unknown strategy 'medoid'" in done.stderr
