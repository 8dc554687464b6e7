"""The square that torch scales against the one that PIL scales, on real pictures of awkward sizes."""

import io

import pytest
import torch
from PIL import Image
from skimage import data

from fewshot.encoders import lite_image, lite_square
from fewshot.encoders.lite_square import MARGIN, SHIFT, part, prepare_pixels
from fewshot.images import open_image
from fewshot.pixels import Pixels, large_jpeg, pixels_of, upright

PHOTO = Image.fromarray(data.coffee())  # 600 x 400


def resized(width: int, height: int) -> Image.Image:
    return PHOTO.resize((width, height), Image.Resampling.LANCZOS)


LARGE = [(600, 400), (1001, 700), (700, 1001), (1333, 1000), (2003, 1999), (3001, 2001), (801, 448), (450, 451)]
NEARLY_SQUARE = [(916, 898), (1000, 990), (990, 1000), (1000, 961), (2437, 2462), (2332, 2572), (3000, 2995)]


@pytest.mark.parametrize("size", LARGE + NEARLY_SQUARE)
def test_torch_scales_as_pil_does(size: tuple[int, int]) -> None:
    image = resized(*size)
    difference = (prepare_pixels(pixels_of(image)).int() - lite_image.prepare(image).int()).abs()
    assert difference.shape == (3, 224, 224)
    assert difference.float().mean() < 0.1  # of 255; without the surroundings 0.2 and more
    assert difference.max() <= 4


@pytest.mark.parametrize("size", [(300, 200), (224, 223), (449, 448)])
def test_the_rest_is_left_to_pil(size: tuple[int, int]) -> None:
    image = resized(*size)
    assert torch.equal(prepare_pixels(pixels_of(image)), lite_image.prepare(image))


@pytest.mark.parametrize("size", [(1201, 800), (500, 1500), (1500, 500), (700, 901)])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_values_are_rounded_in_the_order_of_pil(size: tuple[int, int], orientation: int) -> None:
    """It scales rows before columns as a rule, of the upright picture; the other order changes 6 % of the values."""
    stored = pixels_of(resized(*size))._replace(orientation=orientation)
    planes = upright(stored.rows.permute(2, 0, 1), orientation)  # what PIL would have turned
    want = lite_image.prepare(Image.fromarray(planes.permute(1, 2, 0).contiguous().numpy()))
    assert (prepare_pixels(stored) != want).float().mean() < 0.025


def test_square_pictures_are_scaled_whole() -> None:
    assert part(900, 900) == (0, 900, 0, 900 / 224)
    assert part(450.5, 450.5) == (0, 451, 0, 450.5 / 224)


@pytest.mark.parametrize("total", [707, 1001, 1337.5, 2667, 3000, 4031])
@pytest.mark.parametrize("side", [700, 701, 2249])
def test_a_part_holds_the_square_and_its_results_lie_where_they_should(total: float, side: float) -> None:
    side = min(side, total - 1)
    found = part(total, side)
    assert found is not None
    number, step = torch.arange(224, dtype=torch.float64) + 0.5, side / 224
    wanted = (total - side) / 2 + number * step
    off = (found.first + (found.before + number) * found.step - wanted) / step  # pixels of the result
    assert off.abs().mean() <= SHIFT
    assert off.abs().max() <= 2 * SHIFT
    assert off.mean().abs() < 1e-9
    assert found.before >= MARGIN
    assert found.first + found.before * found.step + side <= found.end + step * SHIFT
    assert found.end <= -(-total // 1)


def test_few_values_differ_where_no_whole_pixel_inside_of_the_picture_is_near() -> None:
    """By 2 of 255 and 16 % of them, it was, for a photograph of this size; what is seen is then 0.99985 alike."""
    image = resized(2249, 2667)
    difference = (prepare_pixels(pixels_of(image)).int() - lite_image.prepare(image).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.03


@pytest.mark.parametrize("size", [*LARGE, *NEARLY_SQUARE, (900, 900)])
def test_rows_read_in_place_are_those_of_a_copy(size: tuple[int, int]) -> None:
    """Whatever the memory behind the last row holds."""
    exact = pixels_of(resized(*size))
    want = prepare_pixels(exact)
    for value in (0, 255):
        room = torch.full((size[1] + 1, size[0], 3), value, dtype=torch.uint8)
        room[:-1] = exact.rows
        assert torch.equal(prepare_pixels(exact._replace(rows=room[:-1])), want)


@pytest.mark.parametrize("size", [(3001, 2001), (2000, 3000), (1333, 1000)])
def test_a_decoded_file_is_not_copied(size: tuple[int, int], monkeypatch) -> None:
    out = io.BytesIO()
    resized(*size).save(out, "JPEG", quality=90)
    pixels, image = large_jpeg(out.getvalue(), 0), open_image(out.getvalue())
    want = prepare_pixels(pixels_of(image))
    monkeypatch.delattr(lite_square, "cut")
    assert torch.equal(prepare_pixels(pixels), want)


@pytest.mark.parametrize("size", [(1027, 1000), (1000, 1027), (1090, 1000), (1000, 1090)])
def test_where_no_whole_pixel_lies_before_the_square_black_is_not_seen(size: tuple[int, int], monkeypatch) -> None:
    """The first results as PIL has them, though it scales none of them."""
    assert part(max(size), min(size)).first < 0
    image = resized(*size)
    want = lite_image.prepare(image)
    monkeypatch.delattr(lite_square, "scale")
    difference = (prepare_pixels(pixels_of(image)).int() - want.int()).abs()
    assert max(difference[:, :4].max(), difference[:, :, :4].max()) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_is_scaled_upright(orientation: int) -> None:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    resized(1201, 800).save(out, "JPEG", quality=90, exif=exif)
    want = lite_image.prepare(open_image(out.getvalue()))
    for smallest_side, least in ((0, 0.2), (400, 0.5)):
        got = prepare_pixels(large_jpeg(out.getvalue(), 0, smallest_side))
        assert (got.int() - want.int()).abs().float().mean() < least


def test_a_reduced_scale_keeps_the_true_middle() -> None:
    """The half of 1201 pixels is 600.5, though 601 are there: what lies beyond is no part of the picture."""
    whole = resized(1201, 801)
    out = io.BytesIO()
    whole.save(out, "JPEG", quality=95)
    want = lite_image.prepare(open_image(out.getvalue())).int()
    pixels = large_jpeg(out.getvalue(), 0, 400)
    assert pixels.rows.shape == (401, 601, 3)
    true = (prepare_pixels(pixels).int() - want).abs().float().mean()
    naive = (prepare_pixels(Pixels(pixels.rows, 601, 401)).int() - want).abs().float().mean()
    assert true < naive / 2
