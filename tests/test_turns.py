"""However many threads there are, the large pictures that they hold have no more pixels than there is room for."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from fewshot import turns
from fewshot.embedding import embed_images, stream
from fewshot.encoders import load_encoder
from fewshot.images import open_image
from fewshot.pixels import large_jpeg
from fewshot.training.bank import load_pictures
from fewshot.turns import by_turns, wait_for_turn

SIDE = 40
PIXELS = SIDE * SIDE


class Watch:
    """Counts the pixels that threads hold, while it keeps each for a moment."""

    def __init__(self):
        self.now = self.most = 0
        self._guard = threading.Lock()

    def hold(self, image):
        with self._guard:
            self.now += image.width * image.height
            self.most = max(self.most, self.now)
        time.sleep(0.03)
        with self._guard:
            self.now -= image.width * image.height
        return torch.zeros(3, 8, 8, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(turns, "LARGE", PIXELS)
    monkeypatch.setattr(turns, "ROOM", 2 * PIXELS)


@pytest.fixture
def watch():
    return Watch()


def pictures(side, count=8, kind="PNG"):
    content = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(content, kind)
    return [content.getvalue()] * count


def embed(watch, sources):
    encoder = load_encoder("toy", "cpu")
    encoder.prepare = watch.hold
    return sum(len(part.kept) for part in stream(encoder, sources, workers=4))


@pytest.mark.parametrize(("side", "most"), [(SIDE, 2), (SIDE + 1, 1), (2 * SIDE, 1)])
def test_large_pictures_share_the_room_and_one_always_has_it(watch, side, most):
    assert embed(watch, pictures(side)) == 8
    assert watch.most == most * side**2


def test_small_pictures_wait_for_nobody(watch):
    assert embed(watch, pictures(SIDE - 1)) == 8
    assert watch.most > 2 * PIXELS


def test_training_waits_too(watch, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    loaded, _, _ = load_pictures(pictures(SIDE), watch.hold)
    assert len(loaded) == 8
    assert watch.most == 2 * PIXELS


def test_a_jpeg_file_waits_for_its_pixels_at_the_scale_it_is_decoded_at(monkeypatch):
    asked = []
    monkeypatch.setattr("fewshot.pixels.wait_for_turn", asked.append)
    (content,) = pictures(200, 1, "JPEG")
    assert large_jpeg(content, 0)
    assert large_jpeg(content, 0, 60)
    assert asked == [200**2, 100**2]


def test_a_turn_is_over_where_a_picture_is_damaged():
    whole = pictures(2 * SIDE, 4)
    found = embed_images(load_encoder("toy", "cpu"), [content[:-30] for content in whole] + whole)
    assert found.kept == [4, 5, 6, 7]
    assert turns._held == 0


def test_whoever_has_a_turn_or_asks_for_none_does_not_wait():
    def twice():
        with by_turns():
            wait_for_turn(2 * PIXELS)
            wait_for_turn(2 * PIXELS)
            with ThreadPoolExecutor(1) as pool:  # a thread that is not in `by_turns`
                return pool.submit(open_image, pictures(2 * SIDE)[0]).result(timeout=10).size

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(twice).result(timeout=20) == (2 * SIDE, 2 * SIDE)
