"""fewshot index and fewshot query, as a user meets them: what they print, and one line for each mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from PIL import Image
from skimage import data

from fewshot.cli import cli
from fewshot.encoders.toy import ToyEncoder
from fewshot.store import Store


def run(*words, code=0):
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def error(*words):
    """Run what must fail with one line on stderr; return it."""
    result = run(*words, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "my phötos"
    for i, name in enumerate(("red/a b.png", "red/b.png", "blue/ç.png", "blue/d.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(data.astronaut()[i * 90 : i * 90 + 80, :90])
        image.paste(name.split("/")[0], (0, 0, 60, 80))
        image.save(root / name)
    return root


@pytest.fixture
def index(photos, tmp_path):
    out = tmp_path / "my index"
    run("index", "build", photos, "--out", out, "--encoder", "toy", "--device", "cpu")
    return out


def test_build_again_embeds_nothing_and_says_so(photos, tmp_path):
    out = tmp_path / "index"
    first = run("index", "build", photos, "--out", out, "--encoder", "toy", "--batch", 3)
    assert first.stdout == f"{out}: 4 embedded, 0 unchanged\n"
    assert "images/s" in first.stderr
    assert " on c" in first.stderr
    again = run("index", "build", photos, "--out", out)
    assert (again.stdout, again.stderr) == (f"{out}: 0 embedded, 4 unchanged\n", "")
    counts = json.loads(run("index", "build", photos, "--out", out, "--json").stdout)
    zero = ["embedded", "copies", "skipped", "gone", "unseen", "relabelled"]
    assert counts == {"index": str(out), "unchanged": 4, **dict.fromkeys(zero, 0)}


def test_info(photos, index):
    (photos / "red" / "broken.jpg").write_bytes(b"x")
    (photos / "empty.jpg").touch()
    result = run("index", "build", photos, "--out", index)
    assert result.stdout == f"{index}: 0 embedded, 4 unchanged, 2 skipped\n"
    assert "index info" in result.stderr
    facts = json.loads(run("index", "info", index, "--json").stdout)
    assert facts["labels"] == {"blue": 2, "red": 2}
    assert facts["skipped"] == [
        {"path": str(photos / "empty.jpg"), "reason": "empty file"},
        {"path": str(photos / "red" / "broken.jpg"), "reason": "not a picture"},
    ]
    wanted = {
        "encoder": "toy",
        "fingerprint": "toy-1",
        "dimensions": 64,
        "pictures": 4,
        "embeddings": 4,
        "unlabelled": 0,
    }
    assert wanted.items() <= facts.items()
    assert facts["bytes"] == sum(file.stat().st_size for file in index.iterdir())
    text = run("index", "info", index).stdout
    for words in ("toy-1", "2  blue", "empty.jpg: empty file"):
        assert words in text


def test_long_lists_of_skipped_files_are_cut(photos, index):
    for i in range(30):
        (photos / f"{i:02}.jpg").touch()
    run("index", "build", photos, "--out", index)
    text = run("index", "info", index).stdout
    assert text.count("empty file") == 20
    assert "--json" in text


def test_add_and_remove(photos, index, tmp_path, monkeypatch):
    extra = tmp_path / "extra.png"
    Image.new("RGB", (9, 9), "green").save(extra)
    assert "1 embedded" in run("index", "add", index, extra, "--label", "green", "--device", "cpu").stdout
    assert json.loads(run("index", "info", index, "--json").stdout)["labels"] == {"blue": 2, "green": 1, "red": 2}
    monkeypatch.chdir(photos)
    assert run("index", "remove", index, "red/a b.png").stdout == f"1 removed from {index}\n"
    assert run("index", "remove", index, "*/blue/*").stdout == f"2 removed from {index}\n"
    assert run("index", "remove", index, "--label", "green").stdout == f"1 removed from {index}\n"
    assert "nothing was removed" in error("index", "remove", index, "green")
    assert "'green'" in error("index", "remove", index, "--label", "green")
    run("index", "remove", index, code=2)
    assert extra.exists()


def test_an_empty_label_is_not_taken_for_none(photos, index, tmp_path):
    extra = tmp_path / "extra.png"
    Image.new("RGB", (9, 9), "green").save(extra)
    for label in ("", " "):
        assert "--label is empty; name one" in error("index", "add", index, extra, "--label", label)
    assert json.loads(run("index", "info", index, "--json").stdout)["pictures"] == 4


def test_a_device_is_refused_also_when_there_is_nothing_to_embed(photos, index):
    for words in (("add", index, photos), ("build", photos, "--out", index)):
        assert "unknown device 'gpu'" in error("index", *words, "--device", "gpu")
        assert "device 'cuda:99' is not there" in error("index", *words, "--device", "cuda:99")
        assert "4 unchanged" in run("index", *words, "--device", "cpu").stdout


def test_query(photos, index):
    result = run("query", index, "something red", photos / "blue" / "ç.png", "--top", 2, "--device", "cpu")
    lines = result.stdout.splitlines()
    assert lines[0] == "something red"
    assert [line.split()[1] for line in lines[1:3]] == ["red", "red"]
    assert lines[3] == str(photos / "blue" / "ç.png")
    assert lines[4].split(maxsplit=2) == ["1.000", "blue", str(photos / "blue" / "ç.png")]
    assert result.stderr == "encoder toy on cpu\n"


def test_a_word_is_a_text_also_where_there_is_a_folder_of_that_name(photos, index, monkeypatch):
    elsewhere = run("query", index, "red")
    assert "folder" not in elsewhere.stderr
    run("query", index, "red " * 2000)  # which no file could be called
    monkeypatch.chdir(photos)
    here = run("query", index, "red")
    assert here.stdout == elsewhere.stdout
    assert here.stderr.startswith("'red' is taken for a text, not for the folder of that name\n")


def test_query_json_where_and_html(photos, index, tmp_path):
    sheet = tmp_path / "sheet.html"
    words = ("query", index, "red", "blue", "--json", "--where", "label=blue", "--top", 9, "--html", sheet)
    result = run(*words)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["red", "blue"]
    for answer in answers:
        assert {hit["path"] for hit in answer["hits"]} == {
            str(photos / "blue" / "ç.png"),
            str(photos / "blue" / "d.png"),
        }
        assert [set(hit) for hit in answer["hits"]] == [{"path", "label", "score"}] * 2
        assert answer["hits"][0]["score"] >= answer["hits"][1]["score"]
    assert sheet.read_text(encoding="utf-8").count("data:image/jpeg") == 4
    assert str(sheet) in result.stderr


def test_an_index_with_nothing_in_it(photos, index):
    run("index", "remove", index, photos)
    assert "nothing found" in run("query", index, "red").stdout


def test_wrong_sources(photos, tmp_path):
    out = tmp_path / "index"
    (tmp_path / "empty folder").mkdir()
    assert "no images found" in error("index", "build", tmp_path / "empty folder", "--out", out)
    assert "nowhere" in error("index", "build", photos, tmp_path / "nowhere", "--out", out)
    assert "unknown encoder 'tyo'. Did you mean 'toy'" in error(
        "index", "build", photos, "--out", out, "--encoder", "tyo"
    )
    assert "unknown device" in error("index", "build", photos, "--out", out, "--encoder", "toy", "--device", "tpu")
    assert not out.exists()


def test_wrong_output(photos, tmp_path):
    words = "index", "build", photos, "--encoder", "toy", "--out"
    (tmp_path / "file").touch()
    assert "is a file" in error(*words, tmp_path / "file")
    assert "cannot write" in error(*words, tmp_path / "file" / "index")
    assert "is not an index" in error(*words, photos)


def test_no_write_permission(photos, tmp_path, index, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "Permission denied" in error("index", "build", photos, "--out", index)
    assert "Permission denied" in error("index", "remove", index, photos)
    monkeypatch.setattr(os, "mkdir", refuse)
    assert "Permission denied" in error("index", "build", photos, "--out", tmp_path / "new", "--encoder", "toy")


def test_locked(photos, index):
    with Store.open(index, write=True):
        for words in (("build", photos, "--out", index), ("add", index, photos), ("remove", index, photos)):
            assert "another process" in error("index", *words)
        run("index", "info", index)
        run("query", index, "red")


def test_index_of_another_encoder(photos, index, monkeypatch):
    real = ToyEncoder.create

    def newer(spec, device):
        encoder = real("", device)
        encoder.name, encoder.fingerprint = "toy:new", "toy-2"
        return encoder

    monkeypatch.setattr(ToyEncoder, "create", newer)
    for words in (
        ("index", "build", photos, "--out", index, "--encoder", "toy:new"),
        ("query", index, "red"),
    ):
        line = error(*words)
        assert "'toy' (toy-1)" in line
        assert "'toy:new' (toy-2)" in line


def test_damaged_index(photos, index, tmp_path):
    content = (index / "embeddings.f32").read_bytes()
    (index / "embeddings.f32").write_bytes(content[:-9])
    for file in index.glob("*.faiss"):
        file.unlink()
    assert "damaged" in error("query", index, "red")
    (index / "store.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert "not an index" in error("query", index, "red")
    assert "not an index" in error("index", "info", tmp_path)


@pytest.mark.parametrize("empty", [False, True])
def test_a_lost_database_does_not_lead_in_circles(photos, index, tmp_path, empty):
    for file in index.glob("store.sqlite*"):
        file.unlink()
    if empty:
        (index / "store.sqlite").touch()
    lost = "store.sqlite is lost, and with it which pictures they are of; delete the folder"
    for words in (("query", index, "red"), ("index", "info", index), ("index", "verify", index)):
        assert lost in error(*words)
    build = "index", "build", photos, "--encoder", "toy", "--out", index
    assert lost in error(*build)
    shutil.rmtree(index)
    assert "4 embedded" in run(*build).stdout


def test_what_is_no_index_is_not_advised_as_the_place_of_one(photos, tmp_path):
    (tmp_path / "file").touch()
    for taken in (photos, tmp_path / "file"):
        assert f"{taken} is not an index; make one with: fewshot index build DIR --out NEW" in error(
            "query", taken, "red"
        )
    (tmp_path / "empty").mkdir()
    for free in (tmp_path / "empty", tmp_path / "nowhere"):
        assert error("query", free, "red").endswith(f"fewshot index build DIR --out {free}\n")
        run("index", "build", photos, "--encoder", "toy", "--out", free)


def test_wrong_queries(photos, index, tmp_path):
    (tmp_path / "thesis.html").write_text("years of work")
    assert "no such image file" in error("query", index, "nowhere.png")
    assert f"{str(photos / 'red')!r} is a folder; give a picture or a text" in error("query", index, photos / "red")
    assert "Did you mean 'red'" in error("query", index, "x", "--where", "label=rde")
    assert "--where wants label=NAME" in error("query", index, "x", "--where", "red")
    assert "unknown key" in error("query", index, "x", "--where", "colour=red")
    assert "not a contact sheet" in error("query", index, "x", "--html", tmp_path / "thesis.html")
    (photos / "broken.jpg").write_bytes(b"x")
    assert "not a picture" in error("query", index, photos / "broken.jpg")


def test_the_type_of_the_numbers_is_that_of_a_new_index_only(photos, index):
    for words in ((), ("--dtype", "float32")):
        run("index", "build", photos, "--out", index, *words)
    result = run("index", "build", photos, "--out", index, "--dtype", "float16", code=2)
    assert "keeps float32; to change that, export it and import it with --dtype" in result.stderr


def test_interrupting_a_build_keeps_what_was_embedded(photos, tmp_path, monkeypatch):
    def interrupt(self, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyEncoder, "encode_prepared", interrupt)
    result = run("index", "build", photos, "--out", tmp_path / "index", "--encoder", "toy", code=130)
    assert "run the same command to go on" in result.stderr
    monkeypatch.undo()
    assert "4 embedded" in run("index", "build", photos, "--out", tmp_path / "index").stdout


def test_interrupting_a_build_before_there_is_an_index_promises_nothing(photos, tmp_path, monkeypatch):
    def interrupt(spec, device):
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyEncoder, "create", interrupt)
    result = run("index", "build", photos, "--out", tmp_path / "index", "--encoder", "toy", code=130)
    assert result.stderr == "\ninterrupted; nothing was embedded yet\n"
    assert not (tmp_path / "index").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_a_second_interrupt_ends_at_once_and_without_a_crash(tmp_path):
    """The cleaning up after the first takes forever here."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time\n"
        "from fewshot.cli import cli, main\n"
        "@cli.command()\n"
        "def slow():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaning', flush=True)\n"
        "        time.sleep(60)\n"
        "main(['slow'])\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        for line in ("ready\n", "cleaning\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_an_empty_path_is_not_the_current_folder(photos, index, monkeypatch):
    monkeypatch.chdir(photos)
    assert "empty PATH" in error("index", "remove", index, "")
    assert json.loads(run("index", "info", index, "--json").stdout)["pictures"] == 4


def test_folder_names_that_are_no_text_are_written_with_escapes(photos, index):
    folder = os.fsencode(photos) + b"/caf\xe9"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("the file system takes Unicode names only")
    with open(folder + b"/a.png", "wb") as file:
        file.write((photos / "red" / "b.png").read_bytes())
    run("index", "build", photos, "--out", index)
    skipped = json.loads(run("index", "info", index, "--json").stdout)["skipped"]
    assert [row["path"] for row in skipped] == [f"{photos}/caf\\xe9/a.png"]
