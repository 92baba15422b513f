"""Values that stand for nothing, WhiteIsZero, files of several images: in pictures of every depth."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from meddiff.preparation.images import UnreadableImage, probe, read_image, to_uint8
from meddiff.preparation.pixels import nothing_here

#: (30, 40), darkest at the upper left.
SCENE: NDArray[np.uint16] = np.add.outer(np.arange(30), np.arange(40)).astype(np.uint16) * 10 + 100
PHOTOMETRIC, NODATA = 262, 42113


def tiff(path: Path, values: NDArray[np.generic], **tags: object) -> Path:
    """A TIFF of ``values`` with tags by number (as ``tag262=0``)."""
    Image.fromarray(values).save(path, tiffinfo={int(name[3:]): value for name, value in tags.items()})
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_white_is_zero_is_inverted_at_every_depth(tmp_path, kind):
    values = (SCENE / 4).astype(np.uint8).astype(kind)
    plain = read_image(tiff(tmp_path / "plain.tif", values))
    white = read_image(tiff(tmp_path / "white.tif", values, tag262=0))
    # Pillow writes what it is given: 8 bits are inverted on the way out and in again
    np.testing.assert_array_equal(white, plain if kind == np.uint8 else 255 - plain)
    assert plain[0, 0] == plain.min()


@pytest.mark.parametrize(
    ("kind", "nodata", "tag"),
    [
        (np.float32, -3.4028234663852886e38, None),
        (np.float32, np.nan, "nan"),
        (np.float32, -9999.0, None),
        (np.float32, 12345.0, "12345"),
        (np.uint16, 65535, "65535"),
        (np.uint16, 0, " 0 "),
    ],
)
def test_values_for_nothing_are_black_and_no_part_of_the_range(tmp_path, kind, nodata, tag):
    values = SCENE.astype(kind)
    hole = np.zeros(values.shape, bool)
    hole[5:9, 7:20] = True
    values[hole] = nodata
    tags = {"tag42113": tag} if tag else {}
    for inverted in (False, True):
        path = tiff(tmp_path / "a.tif", values, **tags, **({"tag262": 0} if inverted else {}))
        image = read_image(path)
        assert not image[hole].any()
        exact = to_uint8(np.where(hole, SCENE[0, 0], SCENE))
        np.testing.assert_array_equal(image[~hole], (255 - exact if inverted else exact)[~hole])


def test_signed_whole_numbers_have_such_values_too():
    values = SCENE.astype(np.int32)
    values[5:9] = -32768
    found = nothing_here(Image.fromarray(values), values)
    np.testing.assert_array_equal(found, values == -32768)
    assert nothing_here(Image.fromarray(SCENE), SCENE) is None


def test_a_smallest_value_that_is_none_of_those_stays(tmp_path):
    values = SCENE.astype(np.float32)
    values[0, 0] = -9998
    assert read_image(tiff(tmp_path / "a.tif", values))[1:, 1:].min() > 200
    values[0, 0], values[0, 1] = -9999, -6000  # others lie near: a value as others are
    assert read_image(tiff(tmp_path / "b.tif", values))[1:, 1:].min() > 100


def test_eight_bits_lose_the_named_value_and_nothing_else(tmp_path):
    values = (SCENE / 4).astype(np.uint8)
    values[3, 4] = 255
    image = read_image(tiff(tmp_path / "a.tif", values, tag42113="255"))
    np.testing.assert_array_equal(image, np.where(values == 255, 0, values))
    white = read_image(tiff(tmp_path / "w.tif", values, tag262=0, tag42113="0"))
    assert white[3, 4] in (0, 255)
    rgb = np.dstack([values, values, values])
    rgb[0, 0] = (255, 255, 3)  # not all three: a colour
    found = read_image(tiff(tmp_path / "c.tif", rgb, tag42113="255"))
    assert found[3, 4].tolist() == [0, 0, 0]
    assert found[0, 0].tolist() == [255, 255, 3]


def test_a_grey_png_whose_transparent_value_is_named_is_black_there(tmp_path):
    for kind, top in ((np.uint8, 255), (np.uint16, 65535)):
        values = (SCENE / 4).astype(np.uint8).astype(kind)
        values[3:5, 4:9] = top
        Image.fromarray(values).save(tmp_path / "a.png", transparency=top)
        image = read_image(tmp_path / "a.png")
        assert not image[3:5, 4:9].any()
        assert image[-1, -1] == (values[-1, -1] if kind == np.uint8 else 255)
    pixel = np.zeros((30, 40, 4), np.uint8)
    pixel[..., 0] = 200
    pixel[:, 20:, 3] = 255
    Image.fromarray(pixel).save(tmp_path / "b.png")
    assert not read_image(tmp_path / "b.png")[:, :20].any()
    palette = Image.fromarray((SCENE % 3).astype(np.uint8), "P")
    palette.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    palette.save(tmp_path / "p.png", transparency=1)
    assert not read_image(tmp_path / "p.png")[SCENE % 3 == 1].any()


def test_pixels_that_are_all_nothing_or_too_far_apart_are_refused():
    with pytest.raises(UnreadableImage, match="every pixel stands for nothing"):
        to_uint8(SCENE, np.ones(SCENE.shape, bool))
    for values in ([0.0, np.inf], [np.nan, 1.0], [-1.7e308, 1.7e308]):
        with pytest.raises(UnreadableImage, match="not finite"):
            to_uint8(np.array([values]))


@pytest.mark.parametrize("name", ["TIFF", "PNG", "WEBP"])
def test_a_file_of_several_images_is_left_out_and_a_dry_run_knows_it(tmp_path, name):
    small, large = (Image.fromarray((SCENE[:n, :n] / 4).astype(np.uint8)) for n in (20, 30))
    path = tmp_path / f"a.{name.lower()}"
    small.save(path, name, save_all=True, append_images=[large.resize(small.size) if name != "TIFF" else large])
    with pytest.raises(UnreadableImage, match=f"{name} with 2 pages"):
        read_image(path)
    assert probe(path) == f"{name} with 2 pages"


def test_a_camera_s_jpeg_with_a_preview_behind_it_is_its_first_image(tmp_path):
    first = Image.fromarray((SCENE / 4).astype(np.uint8)).convert("RGB")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[first.resize((10, 10))])
    assert read_image(tmp_path / "a.jpg").shape[:2] == (30, 40)


def test_a_cmyk_jpeg_has_its_colours(tmp_path):
    inks = Image.new("CMYK", (32, 32), (200, 30, 10, 0))
    inks.save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[16, 16], np.asarray(inks.convert("RGB"))[16, 16], atol=4)
