"""evaluate() against one episode at a time, easyfsl, and scikit-learn; and what a strategy may not see."""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from easyfsl.methods import PrototypicalNetworks
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from fewshot import Head, LinearHead, Strategy, Task
from fewshot.drawing import draw
from fewshot.episodes import PAD, UNKNOWN, EpisodeSpec
from fewshot.errors import DataError, InvalidTask, MissingInput
from fewshot.evaluate import evaluate
from fewshot.features import make_features
from fewshot.registry import registry
from fewshot.report import result_to_dict

CLASSES, EACH, DIM = 14, 30, 24


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(CLASSES, DIM, generator=generator)
    x = centre.repeat_interleave(EACH, 0) + 1.2 * torch.randn(CLASSES * EACH, DIM, generator=generator)
    labels = [f"c{i:02}" for i in range(CLASSES) for _ in range(EACH)]
    text = (centre + 0.8 * torch.randn(CLASSES, DIM, generator=generator)).unsqueeze(1)
    return make_features("blobs", x, labels, splits=["train", "test"] * (CLASSES * EACH // 2), text=text)


def drawn(features, **options):
    spec = EpisodeSpec(**{"episodes": 50, "query": 6, "shot": 3, **options})
    return draw(spec, features.labels, splits=features.splits, names=features.classes)


@pytest.fixture(scope="module")
def prototypical():
    return registry().strategy("prototypical")()


@dataclass(frozen=True)
class Leaky(Strategy):
    """Adapts to the queries: every prototype moves to the mean of the queries nearest to it."""

    name = "leaky"
    needs = frozenset({"support", "unlabeled"})

    def fit(self, task: Task) -> Head:
        hot = task.one_hot()
        mean = hot.mT @ task.support / hot.sum(-2).unsqueeze(-1)
        near = (10 * task.unlabeled @ mean.mT).softmax(-1)
        return LinearHead(20 * (mean + near.mT @ task.unlabeled / near.sum(-2).unsqueeze(-1)))


@dataclass(frozen=True)
class OneByOne(Leaky):
    name = "one_by_one"
    batched = False


def test_accuracy_equals_easyfsl_on_the_same_episodes(features, prototypical):
    episodes = drawn(features, episodes=40)
    found = evaluate(prototypical, features, episodes)
    theirs = []
    model = PrototypicalNetworks()
    for e in range(40):
        model.process_support_set(
            features.x[episodes.support[e].tolist()], torch.tensor(episodes.support_labels[e]).long()
        )
        predicted = model(features.x[episodes.query[e].tolist()]).argmax(1).numpy()
        theirs.append((predicted == episodes.query_labels[e]).mean())
    assert found.accuracies == pytest.approx(theirs, abs=1e-6)
    assert found.metrics["accuracy"].mean == pytest.approx(np.mean(theirs))
    assert found.metrics["accuracy"].n == 40


@pytest.mark.parametrize(
    "options",
    [{}, {"way": (2, 6), "shot": (1, 5)}, {"marginal": "dirichlet"}, {"unlabeled": 4}, {"way": (3, 5), "unlabeled": 2}],
    ids=str,
)
@pytest.mark.parametrize("kind", [Leaky, OneByOne])
def test_blocks_equal_one_episode_at_a_time(features, options, kind):
    episodes = drawn(features, **options)
    scored = {}

    def keep(part):
        for i, e in enumerate(part.episode):
            scored[int(e)] = (part.logits[i].clone(), part.labels[i], part.classes[i])

    evaluate(kind(), features, episodes, block=8, observe=keep)
    for e in range(len(episodes)):
        way = int(episodes.ways[e])
        real = episodes.support[e] != PAD
        query = episodes.query[e][episodes.query[e] != PAD]
        hidden = episodes.unlabeled[e][episodes.unlabeled[e] != PAD] if options.get("unlabeled") else query
        support = features.x[episodes.support[e][real].tolist()]
        labels = torch.tensor(episodes.support_labels[e][real]).long()
        mean = torch.stack([support[labels == c].mean(0) for c in range(way)])
        adapt = features.x[hidden.tolist()]
        near = (10 * adapt @ mean.T).softmax(-1)
        weight = 20 * (mean + near.T @ adapt / near.sum(0)[:, None])
        logits, truth, classes = scored[e]
        torch.testing.assert_close(logits, features.x[query.tolist()] @ weight.T, rtol=1e-4, atol=1e-4)
        assert (features.labels[query] == classes[truth]).all()


def test_metrics_are_means_of_scikit_learns_over_episodes(features, prototypical):
    episodes = drawn(features, unknown=2, way=6)
    wanted = {"macro_f1": [], "nll": [], "auroc": []}

    def keep(part):
        for logits, labels in zip(part.logits, part.labels, strict=True):
            p = logits.double().softmax(-1)
            known = labels >= 0
            wanted["macro_f1"].append(f1_score(labels[known], p.argmax(-1)[known], average="macro"))
            wanted["nll"].append(log_loss(labels[known], p[known], labels=range(6)))
            wanted["auroc"].append(roc_auc_score(labels != UNKNOWN, p.max(-1).values))

    found = evaluate(prototypical, features, episodes, observe=keep).metrics
    for name, values in wanted.items():
        assert found[name].mean == pytest.approx(np.mean(values), abs=1e-5)
    assert {"accuracy", "balanced_accuracy", "brier", "top5", "fpr95", "oscr", "ece"} <= set(found)


def test_recalls_and_mistakes_count_every_query(features, prototypical):
    episodes = drawn(features)
    found = evaluate(prototypical, features, episodes)
    assert sum(total for _, total in found.recall.values()) == episodes.query.size
    right = sum(right for right, _ in found.recall.values())
    assert right + sum(n for _, _, n in found.mistakes) == episodes.query.size
    assert right / episodes.query.size == pytest.approx(found.metrics["accuracy"].mean)
    assert np.array(found.reliability)[0].sum() == episodes.query.size


@pytest.mark.parametrize("strategy", ["prototypical", "leaky", "zero_shot"])
def test_poisoned_query_labels_change_nothing_but_the_score(features, strategy):
    chosen = {"leaky": Leaky()}.get(strategy) or registry().strategy(strategy)()
    episodes = drawn(features)
    rng = np.random.default_rng(1)
    poisoned = dataclasses.replace(episodes, query_labels=rng.permuted(episodes.query_labels, axis=1))
    seen: list[list[torch.Tensor]] = [[], []]
    honest = evaluate(chosen, features, episodes, observe=lambda part: seen[0].append(part.logits.clone()))
    wrong = evaluate(chosen, features, poisoned, observe=lambda part: seen[1].append(part.logits.clone()))
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert honest.metrics["accuracy"].mean > 0.5 > wrong.metrics["accuracy"].mean


def test_a_run_can_be_repeated_bit_for_bit(features, prototypical):
    one, two = (result_to_dict(evaluate(prototypical, features, drawn(features))) for _ in range(2))
    one.pop("cost"), two.pop("cost")
    assert one == two


def test_budget_says_what_was_seen(features, prototypical):
    plain = evaluate(prototypical, features, drawn(features)).budget
    assert (plain.support, plain.unlabeled, plain.phrases, plain.validation) == (15, 0, 0, 0)
    adapted = evaluate(Leaky(), features, drawn(features)).budget
    assert (adapted.unlabeled, adapted.unlabeled_from) == (30, "queries")
    apart = evaluate(Leaky(), features, drawn(features, unlabeled=4)).budget
    assert (apart.unlabeled, apart.unlabeled_from) == (20, "apart")
    assert evaluate(registry().strategy("zero_shot")(), features, drawn(features, shot=0)).budget.phrases == 1


@pytest.mark.parametrize("name", ["coral", "dann", "knn", "tim"])
def test_whoever_may_look_at_the_queries_is_called_transductive(features, name):
    spec = EpisodeSpec(episodes=2, query=6, shot=3, split="test", source="train")
    episodes = draw(spec, features.labels, splits=features.splits)
    found = evaluate(registry().strategy(name)(), features, episodes)
    assert found.transductive == (found.budget.unlabeled > 0) == (name != "knn")


def test_source_split_reaches_the_strategy(features):
    got = []

    @dataclass(frozen=True)
    class Transfer(Leaky):
        name = "transfer"
        needs = frozenset({"support", "source"})

        def fit(self, task: Task) -> Head:
            got.append((task.source, task.source_labels, task.support, task.labels))
            return LinearHead(task.source[:, : task.classes])

    found = evaluate(Transfer(), features, drawn(features, source="train", split="test"))
    source, source_labels, support, labels = got[0]
    assert source.shape == (50, CLASSES * EACH // 2, DIM)
    row = {tuple(x.tolist()): int(y) for x, y in zip(features.x, features.labels, strict=True)}
    for episode in range(0, 50, 10):
        name = {int(y): row[tuple(x.tolist())] for x, y in zip(support[episode], labels[episode], strict=True)}
        for x, y in zip(source[episode], source_labels[episode].tolist(), strict=True):
            own = row[tuple(x.tolist())]  # the class in the data
            assert name[y] == own if y in name else own not in name.values()
    assert found.budget.source == CLASSES * EACH // 2
    with pytest.raises(MissingInput, match="needs labelled examples of another domain"):
        evaluate(Transfer(), features, drawn(features))


def test_unseen_classes_are_scored_apart(features):
    episodes = drawn(features, way=6, unseen=2, shot=3)
    found = evaluate(registry().strategy("zero_shot")(), features, episodes).metrics
    u, s = found["unseen"].mean, found["seen"].mean
    assert found["accuracy"].mean == pytest.approx((2 * u + 4 * s) / 6)
    assert 0 < found["harmonic"].mean <= max(u, s)
    assert 0 < found["ausuc"].mean <= 1


def test_what_is_missing_or_wrong_is_named(features, prototypical):
    bare = make_features("bare", features.x, [features.classes[i] for i in features.labels], splits=features.splits)
    with pytest.raises(MissingInput, match="'zero_shot' on 'bare' needs class names or phrases"):
        evaluate(registry().strategy("zero_shot")(), bare, drawn(features))
    with pytest.raises(MissingInput, match="needs labelled examples"):
        evaluate(prototypical, features, drawn(features, shot=0))
    other = make_features("other", features.x[:-1], ["c"] * 200 + ["d"] * 219)
    with pytest.raises(DataError, match="drawn from other data than 'other'"):
        evaluate(prototypical, other, drawn(features))


def test_an_episode_without_an_example_of_a_class_is_found_wherever_it_is(features, prototypical):
    episodes = drawn(features, way=(3, 5), shot=(1, 4))
    evaluate(prototypical, features, episodes, block=1)
    labels = episodes.support_labels.copy()
    labels[37][labels[37] == 1] = 0
    with pytest.raises(MissingInput, match="episode 37 has a class without any"):
        evaluate(prototypical, features, dataclasses.replace(episodes, support_labels=labels), block=1)


@pytest.mark.parametrize("bias", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_numbers_are_refused(features, bias):
    @dataclass(frozen=True)
    class Broken(Leaky):
        name = "broken"

        def fit(self, task: Task) -> Head:
            weight = task.support[:, : task.classes]
            return LinearHead(weight, weight.new_full(weight.shape[:2], bias))

    with pytest.raises(InvalidTask, match="episode 0 hold NaN or infinity"):
        evaluate(Broken(), features, drawn(features))


def test_a_class_may_be_ruled_out(features):
    @dataclass(frozen=True)
    class Strict(Leaky):
        name = "strict"

        def fit(self, task: Task) -> Head:
            weight = task.support[:, : task.classes]
            return LinearHead(
                weight, torch.tensor([0.0] * (task.classes - 1) + [float("-inf")]).expand(weight.shape[:2])
            )

    found = evaluate(Strict(), features, drawn(features))
    assert 87 / 5 < found.metrics["nll"].mean < 88  # a fifth of the queries are of the class that was ruled out
    assert json.dumps(result_to_dict(found), allow_nan=False)


def test_progress_counts_every_episode(features, prototypical):
    done = []
    evaluate(prototypical, features, drawn(features), block=16, progress=done.append)
    assert sum(done) == 50
    assert max(done) == 16


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="do not fit"):
        make_features("x", torch.ones(3, 2), ["a", "b"])
    with pytest.raises(DataError, match=r"text .* do not fit 2 classes"):
        make_features("x", torch.ones(2, 2), ["a", "b"], text=torch.ones(3, 1, 2))
    with pytest.raises(DataError, match=r"not finite .* row 1"):
        make_features("x", torch.tensor([[1.0], [float("inf")]]), ["a", "b"])
