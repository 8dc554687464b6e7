"""Oracle: scikit-learn, one episode at a time."""

import pytest
import torch
from sklearn import metrics as oracle

from fewshot.metrics import calibration, classification


@pytest.fixture(scope="module")
def scored() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 6, (4, 50), generator=generator)
    labels[1] = labels[1].clamp_max(3)  # two classes have no query in this episode
    logits = torch.randn(4, 50, 6, generator=generator) + 1.5 * torch.nn.functional.one_hot(labels, 6)
    logits[1, :, 5] = -9.0  # and one of them is never predicted
    return logits, labels


def test_metrics_of_classes_match_scikit_learn(scored):
    logits, labels = scored
    predicted = logits.argmax(-1)
    counts = classification.confusion(predicted, labels, 6)
    for e in range(4):
        y, p = labels[e].numpy(), predicted[e].numpy()
        assert counts[e].numpy().tolist() == oracle.confusion_matrix(y, p, labels=range(6)).tolist()
        assert classification.accuracy(counts)[e].item() == pytest.approx(oracle.accuracy_score(y, p))
        assert classification.macro_f1(counts)[e].item() == pytest.approx(oracle.f1_score(y, p, average="macro"))
        present = sorted(set(y))
        recalls = oracle.recall_score(y, p, average=None, labels=present)
        assert classification.recall(counts)[e][present].tolist() == pytest.approx(list(recalls))
        assert classification.balanced_accuracy(counts)[e].item() == pytest.approx(recalls.mean())


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_matches_scikit_learn(scored, k):
    logits, labels = scored
    ours = classification.top_k(logits, labels, k)
    theirs = [oracle.top_k_accuracy_score(y, s, k=k, labels=range(6)) for y, s in zip(labels, logits, strict=True)]
    assert ours.tolist() == pytest.approx(theirs)


def test_probability_metrics_match_scikit_learn(scored):
    logits, labels = scored
    log_p = logits.double().log_softmax(-1)
    for e in range(4):
        loss = oracle.log_loss(labels[e], log_p[e].exp().numpy(), labels=range(6))
        assert calibration.nll(log_p, labels)[e].item() == pytest.approx(loss, rel=1e-5)
        parts = [oracle.mean_squared_error(labels[e] == c, log_p[e, :, c].exp()) for c in range(6)]
        assert calibration.brier(log_p.exp(), labels)[e].item() == pytest.approx(sum(parts), rel=1e-5)


def test_labels_below_zero_count_for_nothing(scored):
    logits, labels = scored
    more = torch.cat([logits, torch.randn(4, 5, 6)], 1)
    padded = torch.cat([labels, torch.tensor([-1, -2, -1, -2, -2]).expand(4, 5)], 1)
    counts = classification.confusion(more.argmax(-1), padded, 6)
    assert counts.sum((-2, -1)).tolist() == [50] * 4
    log_p, log_more = logits.log_softmax(-1), more.log_softmax(-1)
    torch.testing.assert_close(calibration.nll(log_more, padded), calibration.nll(log_p, labels))
    torch.testing.assert_close(calibration.brier(log_more.exp(), padded), calibration.brier(log_p.exp(), labels))
    torch.testing.assert_close(classification.top_k(more, padded, 2), classification.top_k(logits, labels, 2))


def test_calibration_error_by_hand():
    # bin (0.4, 0.6]: 0.5 wrong, 0.55 right; bin (0.8, 1.0]: 0.9, 1.0 both right
    table = calibration.reliability(
        torch.tensor([0.5, 0.55, 0.9, 1.0]), torch.tensor([False, True, True, True]), bins=5
    )[0]
    assert table[0].tolist() == [0, 0, 2, 0, 2]
    assert table[2].tolist() == [0, 0, 1, 0, 2]
    assert calibration.ece(table).item() == pytest.approx((abs(1.05 - 1) + abs(1.9 - 2)) / 4)


def test_calibration_error_matches_a_loop_over_bins(scored):
    logits, labels = scored
    confidence, predicted = logits.softmax(-1).max(-1)
    right = (predicted == labels).flatten()
    conf = confidence.flatten()
    total = 0.0
    for b in range(15):
        inside = (conf > b / 15) & (conf <= (b + 1) / 15)
        if inside.any():
            total += inside.sum().item() * abs(conf[inside].mean().item() - right[inside].float().mean().item())
    assert calibration.ece(calibration.reliability(conf, right)).item() == pytest.approx(total / len(conf), rel=1e-5)
