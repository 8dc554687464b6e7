"""st: any sentence-transformers model, by name or from a folder; texts only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.encoders import Encoder, hub
from fewshot.encoders.numerics import exact, fetched
from fewshot.encoders.weights import fingerprint, state_sha256
from fewshot.errors import FormatError, InvalidOption
from fewshot.hookspecs import hookimpl


class SentenceEncoder(Encoder):
    """A sentence embedding model behind `encode_texts`."""

    prefix = "st"
    about = "any sentence-transformers model, texts only: st:NAME or st:FOLDER"
    modalities = frozenset({"text"})

    def __init__(self, name: str, model: Any, device: torch.device) -> None:
        self.name = name
        self.device = device
        self._model = model.float().eval()
        self.dim = int(self.encode_texts(["a"]).shape[1])
        parts = state_sha256(model.state_dict()), str(model), model.max_seq_length, sorted(model.prompts.items())
        self.fingerprint = fingerprint("st", *parts, "float32")

    @classmethod
    def create(cls, spec: str, device: torch.device) -> SentenceEncoder:
        """Load a model from a folder, from the hub's cache, or from the hub.

        Raises
        ------
        InvalidOption
            when the name is empty.
        WeightsMissing
            when the model is not on this machine and cannot be downloaded.
        FormatError
            when the folder holds no such model or a damaged one.
        """
        if not spec:
            raise InvalidOption("'st' names no model; use st:NAME (e.g. st:all-MiniLM-L6-v2) or st:FOLDER")
        return cls(f"st:{spec}", _load(spec, device), device)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.  -> [n, D]"""
        if not texts:
            return torch.zeros(0, self.dim)
        with exact():
            raw = self._model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
            embeddings = unit(raw.float())
        return fetched(embeddings)


def _load(spec: str, device: torch.device) -> Any:
    from sentence_transformers import SentenceTransformer

    folder = Path(spec)
    if folder.is_dir():
        try:
            return SentenceTransformer(str(folder), device=str(device), local_files_only=True)
        except Exception as error:  # json, safetensors, missing files ...
            raise FormatError(f"{folder} holds no sentence-transformers model: {hub.first_line(error)}") from error
    repo = spec if "/" in spec else f"sentence-transformers/{spec}"
    here = hub.cached(repo, ["modules.json"]) is not None
    source = f"https://{hub.HOST}/{repo} (the whole folder)"
    if not here and hub.offline():
        raise hub.missing(f"st:{spec}", source, "st:FOLDER")
    try:
        return SentenceTransformer(repo, device=str(device), local_files_only=here)
    except Exception as error:  # the hub's client raises a dozen kinds
        raise hub.missing(f"st:{spec}", source, "st:FOLDER", hub.first_line(error)) from error


@hookimpl
def register_encoders(register: Callable[[type[Encoder]], None]) -> None:
    """Register `st`."""
    register(SentenceEncoder)
