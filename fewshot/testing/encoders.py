"""Checks that every encoder must pass; `encoder_checks(encoder)` in a test of your own runs them all.

Each check takes a loaded encoder and raises AssertionError with a text that says what went wrong. `ENCODER_CHECKS`
holds them by name, so that pytest can show each on its own::

    @pytest.mark.parametrize("check", ENCODER_CHECKS.values(), ids=ENCODER_CHECKS.keys())
    def test_mine(check):
        check(load_encoder("mine"))
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from fewshot.encoders import Encoder
from fewshot.errors import MissingInput

Check = Callable[[Encoder], None]

ENCODER_CHECKS: dict[str, Check] = {}
TOLERANCE = 2e-5  # between two ways to embed one thing: sums run in another order in another batch
TEXTS = ("red", "a photo of a dog", "Grüße, 猫", "a", "", "a blue car in front of a house with a green door")
LONG = "word " * 300  # longer than most models read
SIZES = ((64, 48), (1, 1), (31, 97), (3000, 10), (10, 3000), (224, 224))


def encoder_checks(encoder: Encoder) -> None:
    """Run every check on a loaded encoder.

    Raises
    ------
    AssertionError
        from the first check that fails; the text begins with the names of the encoder and of the check.
    """
    for run in ENCODER_CHECKS.values():
        run(encoder)


def check(function: Check) -> Check:
    """Enter a check into ENCODER_CHECKS and make every failure, a crash too, an AssertionError that says where."""
    name = function.__name__

    @functools.wraps(function)
    def checked(encoder: Encoder) -> None:
        try:
            function(encoder)
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            label = getattr(encoder, "name", type(encoder).__name__)
            raise AssertionError(f"encoder {label!r} fails check {name}: {kind}{error}") from error

    ENCODER_CHECKS[name] = checked
    return checked


def pictures() -> list[Image.Image]:
    """Six pictures of odd sizes, each of its own colours, with detail."""
    noise = torch.Generator().manual_seed(0)
    made = []
    for i, (width, height) in enumerate(SIZES):
        pixels = torch.randint(0, 256, (height, width, 3), generator=noise) // 2
        pixels[..., i % 3] += 100
        made.append(Image.fromarray(pixels.to(torch.uint8).numpy()))
    return made


def _modes(encoder: Encoder) -> list[tuple[str, Callable[..., Tensor], Sequence[object]]]:
    """The encoder's modalities, each with the call and something to embed."""
    modes: list[tuple[str, Callable[..., Tensor], Sequence[object]]] = []
    if "image" in encoder.modalities:
        modes.append(("image", encoder.encode_images, pictures()))
    if "text" in encoder.modalities:
        modes.append(("text", encoder.encode_texts, list(TEXTS)))
    return modes


def _same(got: Tensor, wanted: Tensor, what: str) -> None:
    assert got.shape == wanted.shape, f"{what}: shapes {list(got.shape)} and {list(wanted.shape)}"
    gap = float((got - wanted).abs().max()) if wanted.numel() else 0.0
    assert gap <= TOLERANCE, f"{what}: embeddings differ by {gap:.2g}, allowed {TOLERANCE:g}"


@check
def declarations(encoder: Encoder) -> None:
    """Name, fingerprint, size, modalities and templates are declared and make sense."""
    prefix = encoder.name.partition(":")[0]
    assert prefix == encoder.prefix, f"name {encoder.name!r} must begin with the prefix {encoder.prefix!r}"
    assert encoder.about, "about is empty: say in one line what it is"
    assert encoder.dim > 0, f"dim must be positive, got {encoder.dim!r}"
    allowed = ({"image"}, {"text"}, {"image", "text"})
    assert encoder.modalities in allowed, f"modalities must be image, text or both, got {set(encoder.modalities)}"
    assert all("{}" in t for t in encoder.templates), f"each template must hold {{}}, got {encoder.templates}"


@check
def rows(encoder: Encoder) -> None:
    """Embeddings are [n, D] float32 on the CPU, finite, of length 1, for pictures of any size, texts of any length."""
    for mode, embed, usual in _modes(encoder):
        things = [*usual, LONG] if mode == "text" else usual
        x = embed(things)
        wanted = [len(things), encoder.dim]
        assert list(x.shape) == wanted, f"{mode} embeddings are {list(x.shape)}, wanted {wanted}"
        assert x.dtype == torch.float32, f"{mode} embeddings are {x.dtype}, wanted float32"
        assert x.device.type == "cpu", f"{mode} embeddings are on {x.device}, wanted the CPU"
        assert bool(torch.isfinite(x).all()), f"{mode} embeddings hold NaN or infinity"
        gap = float((x.norm(dim=-1) - 1).abs().max())
        assert gap < 1e-4, f"{mode} embeddings must have length 1, off by {gap:.2g}"


@check
def nothing(encoder: Encoder) -> None:
    """An empty list gives [0, D]."""
    for mode, embed, _ in _modes(encoder):
        x = embed([])
        assert list(x.shape) == [0, encoder.dim], f"no {mode}: got {list(x.shape)}, wanted [0, {encoder.dim}]"


@check
def batch_is_loop(encoder: Encoder) -> None:
    """A thing embeds alike alone, in a batch, and at another place of it."""
    for mode, embed, things in _modes(encoder):
        whole = embed(things)
        _same(torch.cat([embed([thing]) for thing in things]), whole, f"{mode}s one by one and together")
        _same(embed(things[::-1]).flip(0), whole, f"{mode}s in the reverse order")


@check
def deterministic(encoder: Encoder) -> None:
    """The same call gives the same answer, and torch's random state is left alone."""
    for mode, embed, things in _modes(encoder):
        before = torch.get_rng_state()
        _same(embed(things), embed(things), f"{mode}s embedded twice")
        assert torch.equal(torch.get_rng_state(), before), f"embedding {mode}s draws random numbers"


@check
def distinct(encoder: Encoder) -> None:
    """Different things embed differently."""
    for mode, embed, things in _modes(encoder):
        x = embed([things[0], things[-1]])
        assert float((x[0] - x[1]).abs().max()) > 1e-3, f"two different {mode}s embed alike"


@check
def inputs_survive(encoder: Encoder) -> None:
    """Neither pictures nor prepared tensors nor lists are changed."""
    for mode, embed, things in _modes(encoder):
        given = list(things)
        before = [thing.tobytes() if isinstance(thing, Image.Image) else thing for thing in things]
        embed(given)
        after = [thing.tobytes() if isinstance(thing, Image.Image) else thing for thing in given]
        assert after == before, f"embedding changes the {mode}s it is given"
    if "image" in encoder.modalities:
        prepared = torch.stack([encoder.prepare(picture) for picture in pictures()])
        copy = prepared.clone()
        encoder.encode_prepared(prepared)
        assert torch.equal(prepared, copy), "encode_prepared changes its input"


@check
def prepared_in_steps(encoder: Encoder) -> None:
    """`prepare` then `encode_prepared`, as the engine calls them, is `encode_images`; all prepare to one shape."""
    if "image" in encoder.modalities:
        prepared = [encoder.prepare(picture) for picture in pictures()]
        shapes = {tuple(p.shape) for p in prepared}
        assert len(shapes) == 1, f"prepare must give one shape for every picture, got {sorted(shapes)}"
        _same(
            encoder.encode_prepared(torch.stack(prepared)),
            encoder.encode_images(pictures()),
            "pictures in steps and at once",
        )


@check
def trainable_on_top(encoder: Encoder) -> None:
    """Embeddings are plain tensors: a strategy can learn by gradients from them."""
    for mode, embed, things in _modes(encoder):
        x = embed(things)
        assert not x.requires_grad, f"{mode} embeddings drag the encoder's graph along"
        assert not x.is_inference(), f"{mode} embeddings are inference tensors, which autograd refuses: clone them"


@check
def refuses_what_it_lacks(encoder: Encoder) -> None:
    """A modality that is not declared is refused with MissingInput."""
    missing: dict[str, Callable[[], Tensor]] = {
        "image": lambda: encoder.encode_images(pictures()[:1]),
        "text": lambda: encoder.encode_texts(["red"]),
    }
    for mode in missing.keys() - encoder.modalities:
        try:
            missing[mode]()
        except MissingInput:
            continue
        raise AssertionError(f"{mode} is not among its modalities and must raise MissingInput")


@check
def stable_fingerprint(encoder: Encoder) -> None:
    """The fingerprint is one word, outlives embedding, and is the same when the encoder is loaded again."""
    before = encoder.fingerprint
    assert len(before.split()) == 1, f"fingerprint must be one word, got {before!r}"
    for _, embed, things in _modes(encoder):
        embed(things[:1])
    assert encoder.fingerprint == before, f"embedding changes the fingerprint from {before} to {encoder.fingerprint}"
    again = type(encoder).create(encoder.name.partition(":")[2], encoder.device).fingerprint
    assert again == before, f"loaded again it has another fingerprint: {again}, before {before}"
