"""ConSE (Norouzi 2014, arXiv:1312.5650): where a picture lies in a text space, by way of the ImageNet classes.

With p the classifier's probabilities and e_c the place of class c in text space,

    place(picture) = unit(sum_c p_c e_c),    place(text) = unit(embedding(text) - mu)

The classes' phrases are open_clip's clean names and timm's WordNet lemmas with definitions. mu is their mean: sentence
embeddings share a direction that says nothing about what the sentence is about.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.encoders.weights import cache_folder, fingerprint

Embed = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, slots=True)
class Bridge:
    """Places of the ImageNet classes in text space."""

    places: Tensor  # [1000, T] unit norm
    mean: Tensor  # [T]
    digest: str  # of the phrases

    def place_images(self, logits: Tensor) -> Tensor:
        """ImageNet logits, on the device of `places`, to places in text space.  [n, 1000] -> [n, T] unit norm"""
        return unit(logits.softmax(-1) @ self.places)

    def place_texts(self, embeddings: Tensor) -> Tensor:
        """Sentence embeddings to places in text space.  [n, T] -> [n, T] unit norm"""
        return unit(embeddings - self.mean)


def imagenet_phrases() -> tuple[list[str], list[str]]:
    """Return a clean name, and lemmas with a definition, for each of the 1,000 classes in the classifier's order."""
    from timm.data import ImageNetInfo

    from fewshot.encoders.clip import imagenet_names

    info = ImageNetInfo()
    return imagenet_names(), [info.index_to_description(i, detailed=True) for i in range(info.num_classes())]


def build(embed: Embed) -> Bridge:
    """Embed the classes' phrases (2,000 sentences, some seconds) and centre them."""
    names, definitions = imagenet_phrases()
    raw = unit(embed(names) + embed(definitions))  # [1000, T]
    mean = raw.mean(0)  # [T]
    return Bridge(unit(raw - mean), mean, hashlib.sha256("\n".join(names + definitions).encode()).hexdigest())


def load(embed: Embed, text_model: str) -> Bridge:
    """Return the bridge from the user's cache, or build it and try to leave it there.

    `text_model` identifies the weights behind `embed`. A cache that is damaged or of other versions is built anew.
    """
    key = fingerprint("conse", text_model, version("open_clip_torch"), version("timm"))
    path = cache_folder() / f"{key}.safetensors"
    found = _read(path)
    if found is None:
        found = build(embed)
        with contextlib.suppress(OSError):  # no home, no space, no permission: it is built again next time
            _write(path, found)
    return found


def _read(path: Path) -> Bridge | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            places, mean, notes = file.get_tensor("places"), file.get_tensor("mean"), file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return Bridge(places, mean, notes["phrases"]) if notes.get("sha256") == _sha256(places, mean) else None


def _write(path: Path, bridge: Bridge) -> None:
    from safetensors.torch import save

    notes = {"phrases": bridge.digest, "sha256": _sha256(bridge.places, bridge.mean)}
    content = save({"places": bridge.places.contiguous(), "mean": bridge.mean.contiguous()}, notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)  # at once, so that a reader never sees half of it


def _sha256(*tensors: Tensor) -> str:
    return hashlib.sha256(torch.cat([t.flatten() for t in tensors]).numpy().tobytes()).hexdigest()
