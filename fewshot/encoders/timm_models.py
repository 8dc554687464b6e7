"""timm: pooled features of any timm model or one of its stages, by name or from a checkpoint file; pictures only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fewshot.arrays import unit
from fewshot.encoders import Encoder, hub
from fewshot.encoders.body import Body, module_body, put
from fewshot.encoders.numerics import exact, fetched
from fewshot.encoders.preprocessing import Preprocessing
from fewshot.encoders.weights import fingerprint, state_sha256
from fewshot.errors import FormatError, WeightsMissing, unknown
from fewshot.hookspecs import hookimpl

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class TimmEncoder(Encoder):
    """What a timm model computes before its classifier, pooled, with the preprocessing of its weights."""

    prefix = "timm"
    about = "any timm model, pictures only: timm:NAME, timm:NAME:stageN for a depth, either @CHECKPOINT for a file"
    modalities = frozenset({"image"})

    def __init__(self, name: str, model: Any, device: torch.device) -> None:
        from timm.data import create_transform, resolve_model_data_config

        self.name = name
        self.device = device
        config = resolve_model_data_config(model)
        self._model = model.float().to(device).eval()
        self._preprocessing = Preprocessing.of(create_transform(**config, is_training=False))
        self.dim = self.encode_prepared(torch.zeros(1, *config["input_size"])).shape[1]
        parts = model.pretrained_cfg.get("architecture"), state_sha256(model.state_dict()), sorted(config.items())
        self.fingerprint = fingerprint("timm", *parts, "float32")

    @classmethod
    def create(cls, spec: str, device: torch.device) -> TimmEncoder:
        """Load `NAME` (from the hub or its cache) or `NAME@CHECKPOINT` (a state dict: .pth, .bin or .safetensors).

        After NAME may come `:stageN`: features of that depth, from 1 on.

        Raises
        ------
        UnknownName
            for a model that timm does not know, or a stage that it does not have.
        WeightsMissing
            when there is no such file, or the weights are not on this machine and cannot be downloaded.
        FormatError
            when the file cannot be read or holds another model.
        """
        import timm

        name, at, path = spec.partition("@")
        name, deep, stage = name.partition(":")
        if not timm.is_model(name):
            raise hub.unknown_model(
                "timm model", name, timm.list_models(), "python -c 'import timm; print(timm.list_models())'"
            )
        model = _from_file(name, Path(path)) if at else _from_hub(name)
        return TimmStage(spec, model, device, stage) if deep else cls(f"timm:{spec}", model, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """Apply the preprocessing of the weights, up to the normalisation.  -> [3, H, W] uint8 as a rule"""
        return self._preprocessing.to_pixels(image.convert("RGB"))

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed prepared pictures.  [n, 3, H, W] -> [n, D]"""
        with exact():
            pixels = self._preprocessing.normalise(batch, self.device).contiguous(memory_format=torch.channels_last)
            embeddings = unit(self._features(pixels).float())
        return fetched(embeddings)

    def _features(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model(pixels)
        return features

    def body(self) -> Body:
        """Return the model up to its pooled features."""
        return module_body(self._model, lambda pixels: self._preprocessing.normalise(pixels, self.device))

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Change some of the model's weights."""
        put(self._model, tensors)


class TimmStage(TimmEncoder):
    """The maps of one stage (a block, for a transformer), averaged over the picture; it cannot be trained further."""

    def __init__(self, spec: str, model: Any, device: torch.device, stage: str) -> None:
        count = len(model.feature_info) if hasattr(model, "forward_intermediates") else 0
        names = [f"stage{n}" for n in range(1, count + 1)]
        if stage not in names:
            raise unknown(f"stage of timm:{spec.partition(':')[0]}", stage, names)
        self._index = names.index(stage)
        super().__init__(f"timm:{spec}", model, device)
        self.fingerprint = fingerprint("timm", self.fingerprint, stage, "mean over places")

    def _features(self, pixels: Tensor) -> Tensor:
        maps: list[Tensor] = self._model.forward_intermediates(pixels, indices=[self._index], intermediates_only=True)
        return maps[0].mean((-2, -1))  # [n, D]

    body, adopt = Encoder.body, Encoder.adopt


def _from_file(name: str, path: Path) -> Any:
    """Build the model without its classifier and fill it from a state dict that must fit in everything else."""
    import timm
    from timm.models import load_state_dict

    if not path.is_file():
        raise WeightsMissing(f"checkpoint {str(path)!r} of 'timm:{name}@{path}' is not a file")
    model = timm.create_model(name, pretrained=False, num_classes=0)
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    try:
        state = load_state_dict(str(path), weights_only=True)
        body = {key: value for key, value in state.items() if not key.startswith(tuple(f"{head}." for head in heads))}
        model.load_state_dict(body)
    except Exception as error:  # unpickling, safetensors, shapes ...
        raise FormatError(f"{path} cannot be loaded as timm:{name}: {hub.first_line(error)}") from error
    return model


def _from_hub(name: str) -> Any:
    """Build the model with its pretrained weights, which must be in the hub's cache or within reach."""
    import timm

    config = timm.get_pretrained_cfg(name)
    repo = config.hf_hub_id if config else None
    here = hub.cached(repo, HUB_FILES) if repo else None
    source = (
        f"https://{hub.HOST}/{repo} ({HUB_FILES[0]})" if repo else (config and config.url) or f"a checkpoint of {name}"
    )
    if here is None and hub.offline():
        raise hub.missing(f"timm:{name}", source, f"timm:{name}@FILE")
    overlay = {"file": str(here)} if here else None
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub's client raises a dozen kinds
        raise hub.missing(f"timm:{name}", source, f"timm:{name}@FILE", hub.first_line(error)) from error


@hookimpl
def register_encoders(register: Callable[[type[Encoder]], None]) -> None:
    """Register `timm`."""
    register(TimmEncoder)
