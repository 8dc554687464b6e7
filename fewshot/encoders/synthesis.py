"""Classifier synthesis (SynC, Changpinyo 2016, arXiv:1603.00550): what a text looks like, by way of ImageNet.

With e_c the place of class c in text space and w_c the class's row of the network's classifier, less the mean row,

    look(text) = sum_c s_c unit(w_c),    s = softmax_c(SHARPNESS e_c . place(text))

Rows of the classifier are compared with a picture's features when the network tells the classes apart, so their mixture
is a direction to compare features with. It is left at its own length, at most 1: a text that resembles one class has a
clear look, one that resembles none in particular next to none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.arrays import unit

SHARPNESS = 15.0  # with lite.LOOKS chosen by zero-shot accuracy on training and validation splits of four data sets


def class_looks(classifier: Tensor) -> Tensor:
    """Turn a classifier's rows into directions in feature space.  [1000, V] -> [1000, V] unit norm"""
    return unit(classifier - classifier.mean(0))


def look(places: Tensor, class_places: Tensor, looks: Tensor) -> Tensor:
    """Mix the looks of the classes that texts lie near.  [n, T], [1000, T], [1000, V] -> [n, V] of norm 1 or less"""
    similar: Tensor = torch.softmax(SHARPNESS * places @ class_places.mT, -1)  # [n, 1000]
    return similar @ looks
