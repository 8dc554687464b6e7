"""waffle: its random phrases, and that they reach the encoder."""

import torch

from fewshot.classifier import Classifier
from fewshot.encoders import load_encoder
from fewshot_plugins.waffle import WORDS, Waffle, waffle_phrases


def test_phrases_are_pairs_of_words_and_letters_shared_by_all_classes():
    hen, cat = waffle_phrases(["hen", "cat"], pairs=6, seed=3)
    assert len(hen) == 12
    assert [p.replace("hen", "cat") for p in hen] == cat
    for words, letters in zip(hen[::2], hen[1::2], strict=True):
        first, second = words.removeprefix("a photo of a hen, which has ").removesuffix(".").split()
        assert {first, second} <= set(WORDS)
        strings = letters.removeprefix("a photo of a hen, which has ").removesuffix(".").split()
        assert [len(s) for s in strings] == [len(first), len(second)]


def test_phrases_depend_on_the_seed_alone():
    assert waffle_phrases(["hen"], 15, 0) == waffle_phrases(["hen"], 15, 0)
    assert waffle_phrases(["hen"], 15, 0) != waffle_phrases(["hen"], 15, 1)
    assert Waffle(pairs=7, seed=2).phrases(["hen"]) == waffle_phrases(["hen"], 7, 2)


def test_the_classifier_embeds_the_phrases_the_strategy_writes():
    names = ["red", "blue", "heavy_metal"]
    encoder = load_encoder("toy", "cpu")
    classifier = Classifier(Waffle(pairs=2, scale=1.0), encoder).fit(classes=names)
    query = encoder.encode_texts(["red", "green", "blue"])
    for k, phrases in enumerate(waffle_phrases(["red", "blue", "heavy metal"], 2, 0)):
        vectors = encoder.encode_texts(phrases)
        cosines = torch.stack([query @ vector for vector in vectors]).mean(0)
        torch.testing.assert_close(classifier.logits(query)[:, k], cosines)
