"""Faults known of other implementations, each with the test that keeps it out of this one."""

import ast
from pathlib import Path

import pytest
import torch
from easyfsl.methods import BDCSPN, PTMAP, TIM, PrototypicalNetworks
from torch import nn

from fewshot import Classifier, Task, fit, make_task
from fewshot.arrays import unit
from fewshot.encoders import load_encoder
from fewshot.errors import MissingInput
from fewshot.registry import registry
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins import _graph
from fewshot_plugins.prototypical import Prototypical
from fewshot_plugins.transclip import TransClip

HERE = "test_peer_faults.py"
FAULTS = {  # whose, and what: file and name of the test
    "easyfsl: a second batch of queries starts from the first one's prototypes": (HERE, "a_second_batch"),
    "easyfsl: the power transform drops negative features": ("plugins/test_pt_map.py", "negative_features"),
    "easyfsl: LaplacianShot takes one neighbour too few": ("plugins/test_laplacian_shot.py", "k_neighbours_are_k"),
    "easyfsl: BD-CSPN lacks the factor on the cosine": ("plugins/test_bd_cspn.py", "without_the_factor_it_lacks"),
    "easyfsl: LaplacianShot gives probabilities": ("plugins/test_laplacian_shot.py", "logits_not_probabilities"),
    "easyfsl: labels must be 0 to n - 1": (HERE, "a_label_without_examples"),
    "easyfsl: PT-MAP gives each class queries // classes": ("plugins/test_pt_map.py", "items_that_no_class_divides"),
    "easyfsl: a class that is too small is not named": ("test_episodes.py", "too_little_data_is_named"),
    "easyfsl: episodes come from the global random state": ("test_episodes.py", "seed_changes_episodes_and_nothing"),
    "TransCLIP: affinities of all pairs at once": (HERE, "affinities_are_never_all_there"),
    "TransCLIP: items x classes x dims at once": ("plugins/test_transclip.py", "memory_grows_with_items"),
    "TransCLIP: the classes are counted in the query labels": (HERE, "classes_without_items_keep_their_column"),
    "TransCLIP: support and queries swap rows": ("plugins/test_transclip.py", "transclip_follows_the_updates"),
    "TransCLIP: collapses on few effective classes": ("plugins/test_guard.py", "items_of_one_class_are_left_alone"),
    "TransCLIP, GDA, Tip-Adapter: constants chosen on labels beyond the support": (
        "test_evaluate.py",
        "poisoned_query_labels",
    ),
    "Tip-Adapter-F: keeps the epoch that is best on the test set": (
        "plugins/test_text_descent.py",
        "takes_the_last_step",
    ),
    "Tip-Adapter: alpha and beta searched on the test set": (
        "plugins/test_tip_adapter_ape.py",
        "fewest_leave_one_out_errors",
    ),
    "Tip-Adapter: an example finds itself in the cache": ("plugins/test_tip_adapter_ape.py", "masks_the_self_match"),
    "GDA: its factor searched on a full validation set": ("plugins/test_gda.py", "factor_from_held_out_examples"),
    "CLIP_benchmark: a linear probe short of its optimum": (
        "plugins/test_linear_probe.py",
        "objective_equals_scikit_learn",
    ),
    "CLIP_benchmark: no interval": ("metrics/test_interval.py", ""),
    "autodistill, FiftyOne: texts embedded again at every call": (HERE, "phrases_are_embedded_once"),
    "autodistill: embeddings of any length": ("testing/test_encoder_checks.py", ""),
    "open_clip: random weights in place of missing ones": ("encoders/test_clip.py", "not_followed_by_random_weights"),
    "open_clip: preprocessing of another tag": ("encoders/test_clip.py", "a_tag_brings_preprocessing"),
    "LEEP, NCE: re-implementations differ": ("transfer/test_scores.py", "leep_and_nce_literally"),
    "LogME: numbers of code with an error": ("transfer/test_scores.py", "logme_of_the_authors_form"),
    "adapt: a disputed formula of TCA": ("plugins/test_components.py", "linear_tca_from_small_matrices"),
    "all: nothing on unknown classes": ("metrics/test_openset_and_gzsl.py", "auroc_and_fpr95"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_test(fault: str) -> None:
    file, part = FAULTS[fault]
    tree = ast.parse(Path(__file__).with_name(HERE).parent.joinpath(file).read_text(encoding="utf-8"))
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert [name for name in tests if part in name]


def asked_twice(kind: type, task: Task, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What easyfsl says of the second batch after the first, and afresh."""
    answers = []
    for batches in ([first, second], [second]):
        method = kind(nn.Identity())
        with torch.no_grad():
            method.process_support_set(task.support, task.labels)
            answers.append([method(batch) for batch in batches][-1])
    return answers[0], answers[1]


@pytest.mark.parametrize(("name", "peer"), [("bd_cspn", BDCSPN), ("tim", TIM), ("pt_map", PTMAP)])
def test_a_second_batch_of_queries_gets_the_answer_of_the_first(name: str, peer: type) -> None:
    task = toy_task(("support", "unlabeled"), noise=1.0)
    task = make_task(unit(task.support.abs()), task.labels, unlabeled=unit(task.unlabeled.abs()))
    first, second = task.unlabeled, unit(toy_queries(task)[0].abs())
    theirs = asked_twice(peer, task, first, second)
    assert not torch.allclose(*theirs, atol=1e-6)
    strategy = registry().strategy(name)()
    head = fit(strategy, task)
    once = head.logits(second)
    head.logits(first)
    fit(strategy, make_task(task.support, task.labels, unlabeled=second))
    assert torch.equal(head.logits(second), once)
    assert torch.equal(fit(strategy, task).logits(second), once)


def test_a_label_without_examples_leaves_the_others_their_number() -> None:
    task = toy_task(("support", "text"), classes=4)
    keep = task.labels != 1
    gap = make_task(task.support[keep], task.labels[keep], text=task.text)
    query, truth = toy_queries(task, noise=0.2)
    peer = PrototypicalNetworks(nn.Identity())
    peer.process_support_set(gap.support, gap.labels)
    assert not bool(torch.isfinite(peer(query)).all())  # it averages the examples of classes 0, 1 and 2
    with pytest.raises(MissingInput, match="class number 1 has none"):
        fit(Prototypical(), gap)
    assert torch.equal(fit(registry().strategy("auto")(), gap).logits(query).argmax(-1), truth)


def test_classes_without_items_keep_their_column() -> None:
    task = toy_task(("text", "unlabeled"), classes=4, noise=0.3)
    two = make_task(text=task.text, unlabeled=task.unlabeled[:12])  # of classes 0 and 1
    query, truth = toy_queries(task, noise=0.3)
    logits = fit(TransClip(guard=False), two).logits(query)
    assert logits.shape[-1] == 4
    assert float((logits.argmax(-1) == truth).double().mean()) > 0.9


def test_affinities_are_never_all_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_graph, "CHUNK", 100)
    rng = torch.Generator().manual_seed(0)
    items, phrases = unit(torch.randn(3000, 16, generator=rng)), unit(torch.randn(5, 1, 16, generator=rng))
    for name in ("transclip", "stata"):
        with torch.profiler.profile(profile_memory=True) as watch:
            fit(registry().strategy(name)(steps=1, guard=False), make_task(text=phrases, unlabeled=items))
        largest = max(event.self_cpu_memory_usage for event in watch.events())
        assert largest <= 3000 * 3000 * 4 / 10, name


def test_phrases_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder("toy", "cpu")
    real, embedded = type(encoder).encode_texts, []

    def counted(self: object, texts: list[str]) -> torch.Tensor:
        embedded.extend(texts)
        return real(encoder, texts)

    monkeypatch.setattr(type(encoder), "encode_texts", counted)
    phrases = {"a": ["red", "a colour"], "b": ["blue", "a colour"]}
    classifier = Classifier("descriptions", encoder).fit(classes=phrases)
    for _ in range(2):
        classifier.predict(torch.eye(encoder.dim)[:3])
    assert sorted(embedded) == ["a colour", "blue", "red"]
