"""clip: any open_clip model, by a pretrained tag or from a checkpoint file. The only file that imports open_clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from fewshot.errors import FormatError, InvalidOption, MissingInput, WeightsMissing, unknown
from fewshot.hookspecs import hookimpl

BATCH = 256  # texts at a time
HALF = "bf16:"  # before ARCH
# the seven that CLIP's authors found to do nearly as well as all eighty (Radford 2021, arXiv:2103.00020)
TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


class ClipEncoder(Encoder):
    """A contrastive image-text model with open_clip's own preprocessing and tokenizer.

    `clip:bf16:ARCH/TAG` runs the image tower in bfloat16, which about doubles its pace where the processor has it and
    slows it down elsewhere; texts, and both towers of `clip:ARCH/TAG`, are in float32.
    """

    prefix = "clip"
    about = "any open_clip model: clip:ARCH/TAG, clip:ARCH@CHECKPOINT or clip:ARCH/TAG@CHECKPOINT; clip:bf16:ARCH..."
    templates = TEMPLATES
    not_for_preparing = ("_tokenize",)

    def __init__(self, name: str, arch: str, checkpoint: Path, tag: dict[str, Any], device: torch.device) -> None:
        import open_clip

        self.name = name
        self.device = device
        quick_gelu = bool(tag.get("quick_gelu"))
        try:
            # fails when weights are missing or do not fit; create_model would go on with random ones
            self._model, preprocess = open_clip.create_model_from_pretrained(
                arch,
                str(checkpoint),
                device=device,
                force_quick_gelu=quick_gelu,
                image_mean=tag.get("mean"),
                image_std=tag.get("std"),
                image_interpolation=tag.get("interpolation"),
                image_resize_mode=tag.get("resize_mode"),
            )
        except Exception as error:  # unpickling, safetensors, shapes, a text tower that wants the hub ...
            raise FormatError(f"{checkpoint} cannot be loaded as {arch}: {hub.first_line(error)}") from error
        self._model.eval()
        self._preprocessing = Preprocessing.of(preprocess)
        self._tokenize = _tokenizer(name, arch)
        config = open_clip.get_model_config(arch)
        self.dim = int(config["embed_dim"])
        config["quick_gelu"] = quick_gelu or bool(config.get("quick_gelu"))
        parts = state_sha256(self._model.state_dict()), sorted(config.items(), key=str), preprocess
        self._dtype = torch.bfloat16 if name.startswith(f"clip:{HALF}") else torch.float32
        self._model.visual.to(self._dtype)
        self.fingerprint = fingerprint("clip", *parts, str(self._dtype).removeprefix("torch."))

    @classmethod
    def create(cls, spec: str, device: torch.device) -> ClipEncoder:
        """Load `ARCH/TAG` (from the hub or its cache) or `ARCH@CHECKPOINT` (a state dict: .pt, .bin or .safetensors).

        `ARCH/TAG@CHECKPOINT` reads the tag's weights from a file: its preprocessing and activation come with the tag.
        `bf16:` before any of them is for the image tower in bfloat16.

        Raises
        ------
        UnknownName
            for an architecture or tag that open_clip does not know.
        WeightsMissing
            when there is no such file, or the tag's weights are not on this machine and cannot be downloaded.
        FormatError
            when the file cannot be read or holds another model.
        """
        import open_clip

        model, at, path = spec.removeprefix(HALF).partition("@")
        arch, _, tag = model.partition("/")
        if arch not in open_clip.list_models():
            listing = "python -c 'import open_clip; print(open_clip.list_models())'"
            raise hub.unknown_model("clip architecture", arch, open_clip.list_models(), listing)
        config = _tag_config(arch, tag) if tag or not at else {}
        if at and not Path(path).is_file():
            raise WeightsMissing(f"checkpoint {path!r} of 'clip:{spec}' is not a file")
        return cls(f"clip:{spec}", arch, Path(path) if at else _tag_file(arch, tag, config), config, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """Apply the model's own preprocessing, up to the normalisation.  -> [3, H, W] uint8 as a rule"""
        return self._preprocessing.to_pixels(image)

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed prepared pictures.  [n, 3, H, W] -> [n, D]"""
        with exact():
            pixels = self._preprocessing.normalise(batch, self.device).to(self._dtype)
            embeddings = unit(self._model.encode_image(pixels).float())
        return fetched(embeddings)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts; what is beyond the model's context (77 tokens as a rule) is cut off.  -> [n, D]"""
        parts = [torch.zeros(0, self.dim)]
        for start in range(0, len(texts), BATCH):
            with exact():
                tokens = self._tokenize(list(texts[start : start + BATCH])).to(self.device)
                parts.append(unit(self._model.encode_text(tokens).float()).cpu())
        return torch.cat(parts)

    def body(self) -> Body:
        """Return the image tower up to the shared space; the text tower stays as it is."""
        if self._dtype != torch.float32:
            exact = self.name.replace(HALF, "", 1)
            raise MissingInput(f"encoder {self.name!r} is too coarse to be trained further; use {exact}")
        return module_body(self._model.visual, lambda pixels: self._preprocessing.normalise(pixels, self.device))

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Change some of the image tower's weights."""
        put(self._model.visual, tensors)


def imagenet_names() -> list[str]:
    """Return open_clip's clean names of the 1,000 ImageNet classes."""
    from open_clip import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


def _tag_config(arch: str, tag: str) -> dict[str, Any]:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(arch)
    if not tag:
        known = ", ".join(tags) or "none"
        way = f"use clip:{arch}/TAG or clip:{arch}@CHECKPOINT; tags: {known}"
        raise InvalidOption(f"'clip:{arch}' names no weights; {way}")
    config: dict[str, Any] = open_clip.get_pretrained_cfg(arch, tag)
    if not config:
        raise unknown(f"weights of clip:{arch}", tag, tags)
    return config


def _tag_file(arch: str, tag: str, config: dict[str, Any]) -> Path:
    """Return the tag's weight file, downloaded if need be."""
    import open_clip

    repo, _, name = config.get("hf_hub", "").rpartition("/")
    url = config.get("url", "")
    if repo:
        name = name or "open_clip_pytorch_model.bin"
        found = hub.cached(repo, [str(Path(name).with_suffix(".safetensors")), "open_clip_model.safetensors", name])
        source = f"https://{hub.HOST}/{repo} ({name} or its .safetensors)"
    else:
        place = Path.home() / ".cache" / "clip" / url.rpartition("/")[2]
        found, source = place if place.is_file() else None, url
    if "file" in config or found:
        return found or Path(config["file"])
    spec, instead = f"clip:{arch}/{tag}", f"clip:{arch}/{tag}@FILE"
    if hub.offline():
        raise hub.missing(spec, source, instead)
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # the hub's client and urllib raise a dozen kinds
        raise hub.missing(spec, source, instead, hub.first_line(error)) from error


def _tokenizer(name: str, arch: str) -> Callable[[list[str]], Tensor]:
    """Return the tokenizer; some models fetch theirs from the hub."""
    import open_clip

    try:
        tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(arch)
    except Exception as error:
        raise hub.missing(
            name, f"the tokenizer of {arch}", "that machine's tokenizer files", hub.first_line(error)
        ) from error
    return tokenizer


@hookimpl
def register_encoders(register: Callable[[type[Encoder]], None]) -> None:
    """Register `clip`."""
    register(ClipEncoder)
