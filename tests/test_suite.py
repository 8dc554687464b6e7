import pytest

from fewshot.episodes import EpisodeSpec
from fewshot.errors import DataError
from fewshot.suite import read_suite, specs

GOOD = """
episodes = 50
strategies = ["prototypical", "prototypical:temperature=3"]

[[run]]
dataset = "spheres"
shot = [1, "2-5"]
seed = [0, 1]

[[run]]
dataset = "table"
path = "$FEWSHOT_TEST_PLACE/t.csv"
encoders = ["toy"]
way = "all"
episodes = 1
optional = true
"""


def write(tmp_path, text):
    (tmp_path / "s.toml").write_text(text)
    return tmp_path / "s.toml"


def test_a_suite_is_read_with_its_defaults(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_TEST_PLACE", "/there")
    spheres, table = read_suite(write(tmp_path, GOOD)).runs
    assert spheres.strategies == (("prototypical", {}), ("prototypical", {"temperature": "3"}))
    assert spheres.specs == tuple(
        EpisodeSpec(episodes=50, shot=shot, seed=seed) for shot in (1, (2, 5)) for seed in (0, 1)
    )
    assert spheres.encoders == ("lite",)
    assert str(table.path) == "/there/t.csv"
    assert (table.encoders, table.optional, table.specs[0].way, table.specs[0].episodes) == (("toy",), True, 0, 1)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("seed = [0, 1]", "sede = 0", r"s\.toml, line 8: unknown setting 'sede'. Did you mean 'seed'"),
        ("episodes = 50", "epsiodes = 50", r"s\.toml, line 2: unknown setting 'epsiodes'"),
        ("episodes = 1\n", "episodes = 'x'\n", r"s\.toml, line 10: episode setting episodes wants int, got 'x'"),
        ("shot = [1, ", "shot = ['one', ", r"s\.toml, line 5: shot wants numbers or ranges"),
        ('dataset = "spheres"', "", r"line 5: a run wants 'dataset'"),
        ("temperature=3", "temperature", r"is not of the form key=value"),
        ('encoders = ["toy"]', 'encoders = "toy"', r"line 10: 'encoders' wants a list of names"),
        ("optional = true", 'optional = "no"', r"line 10: 'optional' wants true or false, got 'no'"),
        ("shot = [1, ", "way = []\nshot = [1, ", r"line 5: way wants at least one value"),
        ('dataset = "spheres"', 'dataset = "sphere"', r"line 5: unknown dataset 'sphere'. Did you mean 'spheres'"),
        ('encoders = ["toy"]', 'encoders = ["tyo"]', r"line 10: unknown encoder 'tyo'"),
        ("temperature=3", "temprature=3", r"line 5: unknown option of prototypical 'temprature'"),
        ("FEWSHOT_TEST_PLACE", "FEWSHOT_TEST_NOWHERE", r"environment variable that is not set"),
        ("episodes = 50", "episodes = = 50", r"cannot be read: .*line 2"),
        ("[[run]]", "", r"s\.toml, line 1: unknown setting 'dataset'|cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, monkeypatch, old, new, text):
    monkeypatch.setenv("FEWSHOT_TEST_PLACE", "/there")
    with pytest.raises(DataError, match=text):
        read_suite(write(tmp_path, GOOD.replace(old, new)))


def test_a_missing_or_empty_suite_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_suite(tmp_path / "none.toml")
    with pytest.raises(DataError, match=r"no \[\[run\]\] table"):
        read_suite(write(tmp_path, "episodes = 3"))


def test_several_values_are_combined():
    assert len(specs({"way": ["5", 10], "shot": ["1"], "marginal": ["balanced", "dirichlet"]})) == 4
