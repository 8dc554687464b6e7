"""st on the MiniLM folder, against transformers' BERT and mean pooling by hand."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fewshot.encoders import hub, lite_text, load_encoder
from fewshot.errors import FormatError, InvalidOption, MissingInput, UnknownName, WeightsMissing

TEXTS = ["a dog", "a longer sentence, about something else", ""]


def test_embeddings_are_mean_pooled_bert() -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = str(lite_text.model_folder())
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    wanted = F.normalize((states * mask).sum(1) / mask.sum(1))
    encoder = load_encoder(f"st:{folder}", "cpu")
    assert (encoder.encode_texts(TEXTS) - wanted).abs().max() < 1e-5
    with pytest.raises(MissingInput, match="takes no images"):
        encoder.encode_images([Image.new("RGB", (8, 8))])


def test_offline_and_bad_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda repo, names: None)
    monkeypatch.setattr(hub, "offline", lambda: True)
    with pytest.raises(WeightsMissing, match=r"huggingface.co/sentence-transformers/all-mpnet-base-v2 .*st:FOLDER"):
        load_encoder("st:all-mpnet-base-v2", "cpu")
    with pytest.raises(FormatError, match="holds no sentence-transformers model"):
        load_encoder(f"st:{tmp_path}", "cpu")
    with pytest.raises(InvalidOption, match="names no model"):
        load_encoder("st:", "cpu")


def test_a_name_that_no_hub_can_have() -> None:
    for name in ("a/b/c", "../my models"):
        with pytest.raises(UnknownName, match="neither a folder on this machine nor a name"):
            load_encoder(f"st:{name}", "cpu")
