"""DICOM: impossible windows, padding, rescaling that turns round or leaves nothing, and what a header already tells."""

import math

import numpy as np
import pytest

from meddiff.preparation.images import UnreadableImage, probe, read_image, to_uint8
from tests.builders.dicom_files import write_dicom

VALUES = np.linspace(800, 4000, 1200).reshape(30, 40).astype(np.uint16)


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": 0.5},
        {"WindowCenter": 2000, "WindowWidth": -100},
        {"WindowCenter": 2000, "WindowWidth": ""},
        {"WindowCenter": "", "WindowWidth": 100},
        {"WindowCenter": 2000, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {},
    ],
)
def test_an_impossible_window_is_none(tmp_path, tags):
    np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "a.dcm", VALUES, **tags)), to_uint8(VALUES))


def test_the_first_possible_window_is_taken(tmp_path):
    two = write_dicom(tmp_path / "two.dcm", VALUES, WindowCenter=[2000, 1500], WindowWidth=[0, 400])
    one = write_dicom(tmp_path / "one.dcm", VALUES, WindowCenter=1500, WindowWidth=400)
    np.testing.assert_array_equal(read_image(two), read_image(one))
    assert 0 < np.mean((read_image(one) > 0) & (read_image(one) < 255)) < 0.3
    exact = write_dicom(tmp_path / "e.dcm", VALUES, WindowCenter=1500, WindowWidth=0.5, VOILUTFunction="LINEAR_EXACT")
    assert set(np.unique(read_image(exact))) == {0, 255}


@pytest.mark.parametrize("centre", [-5000, 60000])
def test_a_window_beside_the_pixels_leaves_nothing_to_see(tmp_path, centre):
    path = write_dicom(tmp_path / "a.dcm", VALUES, WindowCenter=centre, WindowWidth=100)
    with pytest.raises(UnreadableImage, match=r"window lies wholly beside its pixels \(800 to 4000\)"):
        read_image(path)


@pytest.mark.parametrize("colours", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("limit", [None, 65535])
def test_padding_is_black_and_no_part_of_the_range(tmp_path, colours, limit):
    values, hole = VALUES.copy(), np.zeros(VALUES.shape, bool)
    hole[:4] = True
    values[hole] = 65530 if limit else 65535
    tags = {"PixelPaddingValue": 65530, "PixelPaddingRangeLimit": 65535} if limit else {"PixelPaddingValue": 65535}
    image = read_image(write_dicom(tmp_path / "a.dcm", values, PhotometricInterpretation=colours, **tags))
    assert not image[hole].any()
    exact = to_uint8(VALUES[~hole])
    np.testing.assert_array_equal(image[~hole], exact if colours == "MONOCHROME2" else 255 - exact)


def test_padding_of_signed_pixels_and_of_a_whole_image(tmp_path):
    values = VALUES.astype(np.int16) - 2000
    values[0, :5] = -32768
    path = write_dicom(tmp_path / "a.dcm", values, PixelRepresentation=1, PixelPaddingValue=-32768)
    image = read_image(path)
    assert not image[0, :5].any()
    np.testing.assert_array_equal(image[1:], to_uint8(values[values > -32768])[35:].reshape(29, 40))
    empty = write_dicom(tmp_path / "e.dcm", np.full((30, 40), 9, np.uint16), PixelPaddingValue=9)
    with pytest.raises(UnreadableImage, match="every pixel stands for nothing"):
        read_image(empty)


def test_a_slope_below_zero_turns_an_image_round_with_and_without_a_window(tmp_path):
    plain = write_dicom(tmp_path / "p.dcm", VALUES, RescaleSlope=-1, RescaleIntercept=5000)
    np.testing.assert_allclose(read_image(plain), 255.0 - to_uint8(VALUES), atol=1)  # halves are rounded the other way
    tags = {"RescaleSlope": -1, "RescaleIntercept": 5000, "WindowCenter": 2600, "WindowWidth": 1000}
    windowed = read_image(write_dicom(tmp_path / "w.dcm", VALUES, **tags))
    expected = np.clip((5000.0 - VALUES - (2600 - 0.5)) / (1000 - 1) + 0.5, 0, 1) * 255
    np.testing.assert_allclose(windowed, expected, atol=0.6)


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
@pytest.mark.parametrize("slope", [0, math.nan])
def test_a_rescaling_that_leaves_one_value_is_told_by_the_header_alone(tmp_path, slope):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    path = write_dicom(tmp_path / "a.dcm", VALUES)
    data = pydicom.dcmread(path)
    data.RescaleIntercept, data.RescaleSlope = 3, str(slope)
    data.save_as(path)
    with pytest.raises(UnreadableImage, match="leaves nothing to see"):
        read_image(path)
    assert "leaves nothing to see" in str(probe(path))


def test_a_dry_run_sees_size_frames_and_palettes(tmp_path):
    assert probe(write_dicom(tmp_path / "a.dcm", VALUES)) == (40, 30)
    assert probe(write_dicom(tmp_path / "f.dcm", VALUES, NumberOfFrames=3)) == "DICOM with 3 frames"
    colours = write_dicom(tmp_path / "c.dcm", VALUES, PhotometricInterpretation="PALETTE COLOR")
    assert probe(colours) == "DICOM with a colour palette"
