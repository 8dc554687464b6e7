"""Drawn episodes against what their spec promises, counted one episode at a time."""

import numpy as np
import pytest

from fewshot.bench import of_splits
from fewshot.datasets import Items
from fewshot.drawing import draw
from fewshot.episodes import PAD, UNKNOWN, EpisodeSpec
from fewshot.errors import DataError, InvalidOption, UnknownName

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(12), np.arange(30, 54, 2)))  # 30 to 52 a class


def check(episodes, labels=LABELS):
    """Every row has the label it claims, and no row is used twice in an episode."""
    for e in range(len(episodes)):
        rows = []
        for kind in ("support", "query"):
            row, label = getattr(episodes, kind)[e], getattr(episodes, f"{kind}_labels")[e]
            assert ((row == PAD) == (label == PAD)).all()
            known = label >= 0
            assert (labels[row[known]] == episodes.classes[e, label[known]]).all()
            rows += row[row != PAD].tolist()
        rows += episodes.unlabeled[e][episodes.unlabeled[e] != PAD].tolist()
        assert len(set(rows)) == len(rows)
        used = episodes.classes[e][episodes.classes[e] != PAD]
        assert len(set(used)) == len(used)
        strange = episodes.query[e][episodes.query_labels[e] == UNKNOWN]
        assert not set(labels[strange]) & set(used)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"way": 12, "shot": 1, "query": 0},
        {"way": 0},
        {"way": (2, 7), "shot": (1, 8)},
        {"marginal": "dirichlet"},
        {"marginal": "longtail", "query": 20},
        {"way": (3, 6), "marginal": "dirichlet", "unlabeled": 4, "unknown": 2, "query": 8},
        {"unknown": 3},
        {"unseen": 2, "query": 5},
        {"shot": 0},
        {"first": True, "episodes": 2},
        {"query": 0, "marginal": "dirichlet", "way": (3, 6), "shot": (1, 4)},
    ],
    ids=str,
)
def test_rows_have_their_labels_and_are_distinct(options):
    episodes = draw(EpisodeSpec(**{"episodes": 40, **options}), LABELS)
    check(episodes)
    again = draw(EpisodeSpec(**{"episodes": 40, **options}), LABELS)
    assert again.checksum() == episodes.checksum()


def test_fixed_spec_gives_exact_counts():
    episodes = draw(EpisodeSpec(way=4, shot=3, query=6, unlabeled=2, unknown=1, episodes=50), LABELS)
    assert episodes.support.shape == (50, 12)
    assert episodes.query.shape == (50, 30)
    assert episodes.unlabeled.shape == (50, 8)
    for labels in episodes.support_labels:
        assert np.bincount(labels).tolist() == [3] * 4
    for labels in episodes.query_labels:
        assert (labels == UNKNOWN).sum() == 6
        assert np.bincount(labels[labels >= 0]).tolist() == [6] * 4


def test_ranges_are_filled_evenly():
    episodes = draw(EpisodeSpec(way=(2, 5), shot=(1, 4), query=3, episodes=4000), LABELS)
    assert np.bincount(episodes.ways, minlength=6)[2:] == pytest.approx([1000] * 4, rel=0.12)
    shots = [n for row in episodes.support_labels for n in np.bincount(row[row >= 0])]
    assert np.bincount(shots)[1:] == pytest.approx([len(shots) / 4] * 4, rel=0.12)
    assert (np.sort((episodes.query != PAD).sum(1)) == np.sort(3 * episodes.ways)).all()


def test_marginals_keep_the_total_and_spread_it():
    spread = {}
    for marginal in ("balanced", "dirichlet", "longtail"):
        episodes = draw(EpisodeSpec(marginal=marginal, episodes=600, way=5, query=6), LABELS)
        counts = np.array([np.bincount(row, minlength=5) for row in episodes.query_labels])
        assert (counts.sum(1) == 30).all()
        assert counts.mean(0) == pytest.approx([6] * 5, abs=0.7)  # no label is favoured
        spread[marginal] = counts.std()
    assert spread["balanced"] == 0
    assert spread["dirichlet"] > 2
    assert spread["longtail"] > 2


@pytest.mark.parametrize("marginal", ["dirichlet", "longtail"])
def test_all_that_is_left_is_spread_unevenly_over_as_many_as_the_smallest_class_allows(marginal):
    labels = np.repeat(np.arange(4), [9, 12, 30, 40])
    episodes = draw(EpisodeSpec(way=0, shot=3, query=0, episodes=200, marginal=marginal), labels)
    counts = np.stack([np.bincount(row[row >= 0], minlength=4) for row in episodes.query_labels])
    assert (counts.sum(1) == 4 * (9 - 3)).all()  # the smallest class has 6 left
    assert (counts <= np.array([9, 12, 30, 40]) - 3).all()
    assert counts.max() > 12


def test_place_of_a_query_tells_nothing_of_its_class():
    episodes = draw(EpisodeSpec(episodes=2000, query=4), LABELS)
    assert episodes.query_labels.mean(0) == pytest.approx([2.0] * 20, abs=0.15)


def test_seed_changes_episodes_and_nothing_else_does():
    one, two = (draw(EpisodeSpec(seed=s, episodes=30), LABELS) for s in (1, 2))
    assert one.checksum() != two.checksum()
    np.random.seed(99)
    assert draw(EpisodeSpec(seed=1, episodes=30), LABELS).checksum() == one.checksum()


def test_splits_keep_support_and_queries_apart():
    splits = np.where(np.arange(len(LABELS)) % 2, "train", "test").tolist()
    episodes = draw(EpisodeSpec(split="train>test", shot=4, query=5, episodes=20), LABELS, splits=splits)
    check(episodes)
    assert (episodes.support % 2 == 1).all()
    assert (episodes.query % 2 == 0).all()
    both = draw(EpisodeSpec(split="train", shot=4, query=5, episodes=20), LABELS, splits=splits)
    assert (both.query % 2 == 1).all()


def test_first_takes_the_first_items_in_order():
    splits = np.where(np.arange(len(LABELS)) % 2, "train", "test").tolist()
    spec = EpisodeSpec(way=0, shot=2, query=0, episodes=1, split="train>test", first=True)
    episodes = draw(spec, LABELS, splits=splits)
    wanted = np.concatenate([[r for r in range(1, len(LABELS), 2) if LABELS[r] == c][:2] for c in range(12)])
    assert episodes.support[0].tolist() == wanted.tolist()
    assert sorted(episodes.query[0].tolist()) == list(range(0, len(LABELS), 2))


def test_unseen_classes_come_from_the_unseen_ones():
    unseen = np.arange(12) >= 9
    episodes = draw(EpisodeSpec(way=6, unseen=2, shot=2, query=3, episodes=30), LABELS, unseen=unseen)
    check(episodes)
    assert (episodes.classes[:, 4:] >= 9).all()
    assert (episodes.classes[:, :4] < 9).all()
    assert episodes.support_labels.max() == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"way": 13}, r"12 classes with items, but way 13 need 13"),
        ({"way": 10, "unknown": 3}, r"way 10 and 3 unknown classes need 13"),
        ({"shot": 20, "query": 15}, r"class 'c0' has 30 items, but shot \+ query needs 35 \(3 of 12"),
        ({"split": "train>test", "query": 40}, r"in split 'train>test', but query needs 40"),
        ({"marginal": "dirichlet", "query": 60, "way": 2}, r"items left, but its queries are 120"),
        ({"unseen": 4, "way": 6}, r"needs 2 seen and 4 unseen classes; the data has 9 and 3"),
    ],
    ids=str,
)
def test_too_little_data_is_named(options, text):
    splits = np.where(np.arange(len(LABELS)) % 2, "train", "test").tolist()
    with pytest.raises(DataError, match=text):
        draw(
            EpisodeSpec(**{"episodes": 200, **options}),
            LABELS,
            splits=splits,
            names=[f"c{i}" for i in range(12)],
            unseen=np.arange(12) >= 9,
        )


def test_unknown_split_is_named():
    with pytest.raises(UnknownName, match=r"unknown split 'tset'.*'test'"):
        draw(EpisodeSpec(split="tset"), LABELS, splits=["test"] * len(LABELS))


@pytest.mark.parametrize(
    "options",
    [
        {"way": 1},
        {"way": (5, 3)},
        {"shot": -1},
        {"episodes": 0},
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"imbalance": float("inf")},
        {"unseen": 6},
        {"query": 0, "unknown": 1},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(InvalidOption):
        EpisodeSpec(**options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"split": "test>test"}, "would make examples of queries"),
        ({"split": ">test"}, "would make examples of queries"),
        ({"split": "train>"}, "would make examples of queries"),
        ({"source": "train"}, "queries may come from split 'train', which is the source"),
        ({"source": "train", "split": "train"}, "queries may come from split 'train', which is the source"),
        ({"source": "test", "split": "train>test"}, "queries may come from split 'test', which is the source"),
    ],
    ids=str,
)
def test_no_query_is_shown_with_its_label(options, text):
    with pytest.raises(InvalidOption, match=text):
        EpisodeSpec(**options)


def test_spec_survives_json():
    spec = EpisodeSpec(way=(3, 5), shot=1, marginal="dirichlet", alpha=1.5)
    assert EpisodeSpec.from_dict(spec.to_dict()) == spec
    assert EpisodeSpec.from_dict({"alpha": 3}).alpha == 3.0
    with pytest.raises(UnknownName, match="'wya'"):
        EpisodeSpec.from_dict({"wya": 5})
    with pytest.raises(InvalidOption, match="query wants int, got '15'"):
        EpisodeSpec.from_dict({"query": "15"})


def test_each_limits_a_class_to_its_first_items():
    labels = np.repeat([1, 0, 2], 7)
    splits = ["a", "b", "b", "b", "b", "b", "a"] * 3
    drawn = draw(EpisodeSpec(way=3, shot=1, query=2, episodes=40, each=3, split="b"), labels, splits=splits)
    wanted = {7 * c + i for c in range(3) for i in (1, 2, 3)}
    assert {*drawn.support.flat, *drawn.query.flat} == wanted
    with pytest.raises(DataError, match="has 3 items"):
        draw(EpisodeSpec(way=3, shot=1, query=3, each=3), labels)


def test_only_what_each_allows_is_embedded():
    items = Items(tuple("abcdefgh"), tuple("xyxyxxxx"))
    assert of_splits(items, (EpisodeSpec(each=2), EpisodeSpec(each=1))).sources == ("a", "b", "c", "d")
    assert of_splits(items, (EpisodeSpec(each=2), EpisodeSpec())) is items
