"""finetuned: encoders that `fewshot finetune` wrote, from one file; the network comes from the file or its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fewshot.encoders import Encoder, convnet, load_encoder
from fewshot.encoders.numerics import exact, fetched
from fewshot.encoders.weights import fingerprint, state_sha256
from fewshot.errors import FewshotError, FingerprintMismatch, FormatError, InvalidOption
from fewshot.hookspecs import hookimpl
from fewshot.modelfile import read_model


class FinetunedEncoder(Encoder):
    """An encoder trained here: its fingerprint covers the weights of the file and what the base's covers."""

    prefix = "finetuned"
    about = "weights that `fewshot finetune` wrote: finetuned:FILE"

    def __init__(self, name: str, inner: Encoder | SmallNetwork, parts: Sequence[object], device: torch.device) -> None:
        self.name = name
        self.device = device
        self.dim = inner.dim
        self.modalities = inner.modalities  # type: ignore[misc]  # of the class elsewhere, here of what is inside
        self.templates = inner.templates
        self.fingerprint = fingerprint(self.prefix, *parts)
        self._inner = inner

    @classmethod
    def create(cls, spec: str, device: torch.device) -> FinetunedEncoder:
        """Load the file that `fewshot finetune --out` wrote.

        Raises
        ------
        InvalidOption
            when no file is named.
        FormatError
            when the file is missing, damaged or not one of these.
        WeightsMissing
            when the base that it was trained from is not on this machine.
        """
        if not spec:
            raise InvalidOption("'finetuned' wants a file, finetuned:FILE; make one with `fewshot finetune`")
        tensors, meta = read_model(Path(spec), torch.device("cpu"), "weights")
        kinds: dict[
            str, Callable[[dict[str, Tensor], dict[str, Any], torch.device], tuple[Encoder | SmallNetwork, object]]
        ]
        kinds = {"convnet": SmallNetwork.load, "encoder": _tuned_base}
        if meta.get("kind") not in kinds:
            raise FormatError(
                f"{spec} holds weights of kind {meta.get('kind')!r}; this program knows {', '.join(kinds)}"
            )
        try:
            inner, numerics = kinds[meta["kind"]](tensors, meta, device)
        except FewshotError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise FormatError(f"{spec} is damaged: {str(error).splitlines()[0]}; train again") from error
        return cls(f"finetuned:{spec}", inner, (meta["kind"], state_sha256(tensors), numerics), device)

    def prepare(self, image: Image.Image) -> Tensor:
        """Prepare as what is inside does."""
        return self._inner.prepare(image)

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed prepared pictures.  [n, c, h, w] -> [n, D]"""
        return self._inner.encode_prepared(batch)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts, where the base does.  -> [n, D]"""
        return self._inner.encode_texts(texts) if "text" in self.modalities else super().encode_texts(texts)


class SmallNetwork:
    """A network trained from scratch; an embedding is the average over views of the picture."""

    modalities = frozenset({"image"})
    templates = Encoder.templates

    def __init__(self, plan: convnet.Plan, state: dict[str, Tensor], device: torch.device) -> None:
        self.plan = plan
        self.dim = plan.dim
        self._network = convnet.build(plan)
        self._network.load_state_dict(state)
        self._network.to(device).eval()
        self._device = device

    @classmethod
    def load(
        cls, tensors: dict[str, Tensor], meta: dict[str, Any], device: torch.device
    ) -> tuple[SmallNetwork, object]:
        """Build it from a file's content; with it what its fingerprint needs besides the weights."""
        plan = convnet.plan_of(meta["plan"])
        return cls(plan, tensors, device), (plan, convnet.views().tolist(), "largest centre square, bilinear, float32")

    def prepare(self, image: Image.Image) -> Tensor:
        """Cut and scale a picture.  -> [c, size, size] uint8"""
        return convnet.prepare(image, self.plan)

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed prepared pictures.  [n, c, size, size] uint8 -> [n, D]"""
        with exact():
            embeddings = convnet.embed(self._network, batch.to(self._device), self.plan)
        return fetched(embeddings)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Refused by FinetunedEncoder before it comes here, since `modalities` says pictures only."""
        raise InvalidOption("a network trained on pictures takes no text")


def _tuned_base(tensors: dict[str, Tensor], meta: dict[str, Any], device: torch.device) -> tuple[Encoder, object]:
    """Load the encoder that was trained further, and put the tensors of the file into it.

    Raises
    ------
    FingerprintMismatch
        when that encoder is another one now.
    """
    base, wanted = str(meta["base"]), meta["base_fingerprint"]
    encoder = load_encoder(base, str(device))
    if encoder.fingerprint != wanted:
        raise FingerprintMismatch(
            f"the weights were trained from {base} with fingerprint {wanted}, here it has {encoder.fingerprint}; "
            "bring the weights of that one, or train again"
        )
    encoder.adopt(tensors)
    return encoder, wanted


@hookimpl
def register_encoders(register: Callable[[type[Encoder]], None]) -> None:
    """Register `finetuned`."""
    register(FinetunedEncoder)
