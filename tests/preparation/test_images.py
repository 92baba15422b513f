"""Files as uint8 arrays: formats, depths, DICOM, and what happens to files that are no images."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.preparation.images import UnreadableImage, probe, read_image, to_uint8
from meddiff.preparation.mask_files import read_mask
from tests.builders.dicom_files import write_dicom

RAMP: NDArray[np.uint8] = np.tile(np.arange(0, 200, 5, dtype=np.uint8), (30, 1))  # (30, 40)
NOISE: NDArray[np.uint8] = generator("test images").integers(0, 256, (30, 40, 3)).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: bool | int | Image.Exif) -> Path:
    """``image`` in the format that the name of ``path``, which is returned, ends in."""
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_eight_bits_are_taken_as_they_are(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    np.testing.assert_array_equal(read_image(save(tmp_path / name, Image.fromarray(NOISE), **options)), NOISE)
    np.testing.assert_array_equal(read_image(save(tmp_path / name, Image.fromarray(RAMP), **options)), RAMP)


def test_jpeg_is_what_pillow_decodes(tmp_path):
    path = save(tmp_path / "a.jpg", Image.fromarray(NOISE), quality=90)
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)))


def test_three_equal_channels_palettes_and_transparency(tmp_path):
    grey = np.repeat(RAMP[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(save(tmp_path / "grey.png", Image.fromarray(grey))), RAMP)
    # some NIH images are RGBA with a full alpha channel
    full = np.dstack([grey, np.full_like(RAMP, 255)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "rgba.png", Image.fromarray(full))), RAMP)
    none = np.dstack([NOISE, np.zeros_like(RAMP)])
    assert not read_image(save(tmp_path / "clear.png", Image.fromarray(none))).any()
    palette = Image.fromarray(NOISE).quantize(8)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(read_image(save(tmp_path / "palette.png", palette)), expected)
    bits = Image.fromarray(np.where(RAMP > 90, 255, 0).astype(np.uint8)).convert("1")
    np.testing.assert_array_equal(read_image(save(tmp_path / "bits.png", bits)), np.where(RAMP > 90, 255, 0))


def test_a_rotation_in_exif_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", Image.fromarray(RAMP), exif=exif)
    assert read_image(path).shape == RAMP.shape


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (1000, 1400), (40000, 40255)])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path, low, high):
    values = np.linspace(low, high, 1200).reshape(30, 40).astype(np.uint16)
    path = save(tmp_path / "a.png", Image.fromarray(values))
    wide = values.astype(np.float64)
    exact = (wide - wide.min()) / (wide.max() - wide.min()) * 255
    assert np.abs(read_image(path) - exact).max() <= 0.5 + 1e-9
    assert (read_image(path).min(), read_image(path).max()) == (0, 255)


def test_one_value_becomes_black_and_nan_is_refused():
    assert not to_uint8(np.full((3, 3), 7, np.uint16)).any()
    with pytest.raises(UnreadableImage, match="finite"):
        to_uint8(np.array([[np.nan, 1.0]]))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_file_cut_anywhere_is_unreadable_or_whole(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(NOISE))
    data = path.read_bytes()
    for part in (0.0, 0.01, 0.1, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(UnreadableImage) as error:
            read_image(path)
        assert str(tmp_path) not in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about odd tags
def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    for suffix in ("png", "jpg", "tif", "bmp"):
        data = save(tmp_path / f"b.{suffix}", Image.fromarray(NOISE)).read_bytes()
        for number in range(60):
            draw = generator("flip", suffix, number)
            broken = bytearray(data)
            for place in draw.integers(0, min(len(data), 400), 6):
                broken[place] = draw.integers(256)
            path = tmp_path / f"broken.{suffix}"
            path.write_bytes(broken)
            try:
                image = read_image(path)
            except UnreadableImage:
                continue
            assert image.dtype == np.uint8


def test_what_is_no_image_says_so(tmp_path):
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    (tmp_path / "folder.png").mkdir()
    for name, words in (
        ("gone.png", "no such file"),
        ("text.png", "known format"),
        ("folder.png", "a folder, not a file"),
    ):
        with pytest.raises(UnreadableImage, match=words):
            read_image(tmp_path / name)
        assert words in str(probe(tmp_path / name))
    # a postscript file would start a program
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(UnreadableImage, match="known format"):
        read_image(tmp_path / "a.eps")
    assert probe(save(tmp_path / "good.png", Image.fromarray(RAMP))) == (40, 30)


def test_masks_are_true_where_a_value_is_not_zero(tmp_path):
    few = np.zeros((20, 30), np.uint16)
    few[3:5, 4:9] = 1  # instance 1 of 60,000
    few[10, 10] = 60000
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", Image.fromarray(few))), few > 0)
    full = Image.fromarray(np.full((20, 30), 255, np.uint8))
    assert read_mask(save(tmp_path / "full.png", full)).all()
    alpha = np.zeros((20, 30, 4), np.uint8)
    alpha[..., 3] = 255
    alpha[2, 3, 1] = 9
    assert read_mask(save(tmp_path / "alpha.png", Image.fromarray(alpha))).sum() == 1


def test_dicom_window_rescale_and_inversion(tmp_path):
    values = np.linspace(0, 4095, 1200).reshape(30, 40).astype(np.uint16)
    plain = read_image(write_dicom(tmp_path / "plain.dcm", values, bits=12))
    np.testing.assert_allclose(plain, values / 4095 * 255, atol=0.51)
    # a window of 1000 around 2000 in rescaled units, value * 2 - 500; the standard's linear function
    windowed = write_dicom(
        tmp_path / "window.dcm",
        values,
        bits=12,
        RescaleSlope=2,
        RescaleIntercept=-500,
        WindowCenter=2000,
        WindowWidth=1000,
    )
    rescaled = values * 2.0 - 500
    expected = np.clip((rescaled - (2000 - 0.5)) / (1000 - 1) + 0.5, 0, 1) * 255
    np.testing.assert_allclose(read_image(windowed), expected, atol=0.6)
    # exact: v * 255 / 4095 is never nearer to a half than 1 / 546, so that both round to the same side
    inverted = write_dicom(tmp_path / "inverted.dcm", values, bits=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(inverted), 255 - plain)
    first = write_dicom(tmp_path / "two.dcm", values, bits=12, WindowCenter=[1000, 3000], WindowWidth=[500, 500])
    alone = write_dicom(tmp_path / "one.dcm", values, bits=12, WindowCenter=1000, WindowWidth=500)
    np.testing.assert_array_equal(read_image(first), read_image(alone))


def test_dicom_without_its_suffix_in_colour_and_damaged(tmp_path):
    values = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    path = write_dicom(tmp_path / "no_suffix", values)
    assert read_image(path).shape == (30, 40)
    np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "rgb.dcm", NOISE)), NOISE)
    whole = path.read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.dcm").write_text("hello", encoding="utf-8")
    for name in ("cut.dcm", "text.dcm", "gone.dcm"):
        with pytest.raises(UnreadableImage):
            read_image(tmp_path / name)
    frames = write_dicom(tmp_path / "frames.dcm", values, NumberOfFrames=3)
    with pytest.raises(UnreadableImage, match="3 frames"):
        read_image(frames)


def test_dicom_compressed_as_jpeg_2000_is_decoded_by_pillow(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([buffer.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    np.testing.assert_array_equal(read_image(path), to_uint8(RAMP))


def test_without_pydicom_a_dicom_file_is_one_sentence(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", np.arange(1200, dtype=np.uint16).reshape(30, 40))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(UserError, match=r"pip install 'meddiff-tradeoff\[dicom\]'"):
        read_image(path)
