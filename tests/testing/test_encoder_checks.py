"""Every check lets an honest encoder pass and catches one sabotaged for it."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch

from fewshot.arrays import unit
from fewshot.encoders import Encoder
from fewshot.encoders.toy import ToyEncoder
from fewshot.testing import ENCODER_CHECKS, encoder_checks

CPU = torch.device("cpu")
HONEST: Any = ToyEncoder
calls = count()


def saboteur(**overrides: object) -> Encoder:
    cls: Any = type("Sabotaged", (ToyEncoder,), overrides)
    return cls(CPU)


def twisted(name: str, twist: Callable[[torch.Tensor], torch.Tensor]) -> Encoder:
    """Toy with what `name` returns passed through `twist`."""

    def call(self: Any, given: Any) -> torch.Tensor:
        return twist(getattr(HONEST, name)(self, given))

    return saboteur(**{name: call})


def by_batch(x: torch.Tensor) -> torch.Tensor:
    return unit(x - x.mean(0) * 0.5) if len(x) else x


def crash_when_empty(self: Any, texts: Any) -> torch.Tensor:
    return torch.cat([HONEST.encode_texts(self, [text]) for text in texts])


def paint(self: Any, images: Any) -> torch.Tensor:
    x = HONEST.encode_images(self, images)
    for image in images:
        image.putpixel((0, 0), (7, 7, 7))
    return x


def zero_input(self: Any, batch: torch.Tensor) -> torch.Tensor:
    x = HONEST.encode_prepared(self, batch)
    batch.zero_()
    return x


def wordy_fingerprint(self: Any, device: torch.device) -> None:
    HONEST.__init__(self, device)
    self.fingerprint = "two words"


def random_fingerprint(self: Any, device: torch.device) -> None:
    HONEST.__init__(self, device)
    self.fingerprint = f"toy-{next(calls)}"


def inference(x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return x.clone()


def constant(x: torch.Tensor) -> torch.Tensor:
    return unit(torch.ones_like(x))


SABOTAGED = [
    ("declarations", saboteur(templates=("a photo",))),
    ("declarations", saboteur(modalities=frozenset({"sound"}))),
    ("declarations", saboteur(prefix="other")),
    ("rows", twisted("encode_texts", lambda x: 2 * x)),
    ("rows", twisted("encode_prepared", lambda x: x.double())),
    ("rows", twisted("encode_prepared", lambda x: x[:, :-1])),
    ("rows", twisted("encode_texts", lambda x: x * float("nan"))),
    ("nothing", saboteur(encode_texts=crash_when_empty)),
    ("batch_is_loop", twisted("encode_texts", by_batch)),
    ("batch_is_loop", twisted("encode_prepared", by_batch)),
    ("deterministic", twisted("encode_texts", lambda x: unit(x + 0.01 * torch.randn(x.shape)))),
    ("deterministic", twisted("encode_texts", lambda x: x + 0 * torch.randn(x.shape))),
    ("distinct", twisted("encode_texts", constant)),
    ("inputs_survive", saboteur(encode_images=paint)),
    ("inputs_survive", saboteur(encode_prepared=zero_input)),
    ("prepared_in_steps", twisted("encode_images", lambda x: x.flip(1))),
    ("prepared_in_steps", saboteur(prepare=lambda self, image: torch.zeros(3, image.height, 32, dtype=torch.uint8))),
    ("trainable_on_top", twisted("encode_texts", inference)),
    ("trainable_on_top", twisted("encode_prepared", lambda x: x.requires_grad_())),
    ("refuses_what_it_lacks", saboteur(modalities=frozenset({"text"}))),
    ("stable_fingerprint", saboteur(__init__=random_fingerprint)),
    ("stable_fingerprint", saboteur(__init__=wordy_fingerprint)),
]


def test_an_honest_encoder_passes() -> None:
    encoder_checks(ToyEncoder(CPU))


def test_there_is_a_saboteur_for_every_check() -> None:
    assert {name for name, _ in SABOTAGED} == set(ENCODER_CHECKS)


@pytest.mark.parametrize(("name", "encoder"), SABOTAGED, ids=[f"{n}-{i}" for i, (n, _) in enumerate(SABOTAGED)])
def test_a_check_catches_its_saboteur(name: str, encoder: Encoder) -> None:
    with pytest.raises(AssertionError, match=f"'toy' fails check {name}"):
        ENCODER_CHECKS[name](encoder)
