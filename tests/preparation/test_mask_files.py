"""Masks as people store them: JPEG, smooth edges, alpha, palettes, numbers of instances; and the boxes around them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cohorts.folder import read
from meddiff.preparation.images import UnreadableImage
from meddiff.preparation.mask_files import MOST_PARTS, mask_boxes, read_mask
from meddiff.preparation.record_images import RecordImages
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.sample import Box, Phrase
from tests.builders.files import write_image, write_table
from tests.builders.prepared_folder import prepare_folder, rejected

TRUTH: NDArray[np.bool_] = np.zeros((160, 160), bool)
TRUTH[60:100, 40:90] = True
WHITE: NDArray[np.uint8] = np.where(TRUTH, 255, 0).astype(np.uint8)


def with_alpha(colour: int | NDArray[np.uint8], alpha: NDArray[np.uint8]) -> Image.Image:
    """RGBA of one grey, or of greys."""
    grey = np.broadcast_to(np.uint8(colour) if isinstance(colour, int) else colour, alpha.shape)
    return Image.fromarray(np.dstack([grey, grey, grey, alpha]))


def stored(path: Path, image: Image.Image, **options: int) -> NDArray[np.bool_]:
    """What is read of ``image`` in the format that the name of ``path`` ends in."""
    image.save(path, **options)
    return read_mask(path)


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_rims_of_a_jpeg_are_cut_at_half(tmp_path, quality):
    mask = stored(tmp_path / "m.jpg", Image.fromarray(WHITE), quality=quality)
    assert (np.asarray(Image.open(tmp_path / "m.jpg")) != 0).sum() > TRUTH.sum(), "no rims: the test would show nothing"
    np.testing.assert_array_equal(mask, TRUTH)
    # a JPEG that was saved as PNG, in grey and colour, keeps its rims
    again = Image.open(tmp_path / "m.jpg")
    for name, image in (("g.png", again), ("c.png", again.convert("RGB"))):
        np.testing.assert_array_equal(stored(tmp_path / name, image), TRUTH)


def test_a_smooth_edge_is_cut_at_half_and_numbers_of_instances_are_not(tmp_path):
    smooth = Image.fromarray(WHITE).filter(ImageFilter.GaussianBlur(2))
    assert abs(int(stored(tmp_path / "s.png", smooth).sum()) - int(TRUTH.sum())) < 20
    numbers = np.zeros((160, 160), np.uint8)
    for place in range(100):  # a hundred instances, numbered up to 200
        numbers[16 * (place // 10) + 2 : 16 * (place // 10) + 12, 16 * (place % 10) + 2 : 16 * (place % 10) + 12] = (
            2 * place + 2
        )
    np.testing.assert_array_equal(stored(tmp_path / "n.png", Image.fromarray(numbers)), numbers > 0)
    few = np.where(TRUTH, 3, 0).astype(np.uint8)
    few[:5, :5] = 255
    np.testing.assert_array_equal(stored(tmp_path / "f.png", Image.fromarray(few)), few > 0)
    brain = np.where(TRUTH, 41, 2).astype(np.uint8)  # an atlas: most labels below 86, a few small ones from 251 on
    brain[:2, :5] = (251, 252, 253, 254, 255)
    np.testing.assert_array_equal(stored(tmp_path / "b.png", Image.fromarray(brain)), brain > 0)
    ignored = np.where(TRUTH, 5, 0).astype(np.uint8)
    ignored[60:62, 40:90], ignored[110:119, 9] = 255, np.arange(1, 10)
    np.testing.assert_array_equal(stored(tmp_path / "i.png", Image.fromarray(ignored)), ignored > 0)
    palette = Image.fromarray(numbers, "P")
    palette.putpalette(list(range(256)) * 3)
    np.testing.assert_array_equal(stored(tmp_path / "p.png", palette), numbers > 0)


def test_a_jpeg_of_several_levels_is_no_mask(tmp_path):
    levels = np.where(TRUTH, 128, 0).astype(np.uint8)
    levels[:20, :20] = 255
    with pytest.raises(UnreadableImage, match="several grey levels"):
        stored(tmp_path / "m.jpg", Image.fromarray(levels), quality=90)


@pytest.mark.parametrize("colour", [255, 0, 17])
def test_a_mask_in_alpha_is_read_from_alpha(tmp_path, colour):
    np.testing.assert_array_equal(stored(tmp_path / "m.png", with_alpha(colour, WHITE)), TRUTH)
    soft = np.asarray(Image.fromarray(WHITE).filter(ImageFilter.GaussianBlur(2)))
    assert abs(int(stored(tmp_path / "s.png", with_alpha(colour, soft)).sum()) - int(TRUTH.sum())) < 20


def test_what_is_transparent_is_outside(tmp_path):
    black_on_clear_white = with_alpha(np.where(TRUTH, 0, 255).astype(np.uint8), WHITE)
    red_on_clear_white = with_alpha(np.where(TRUTH, 200, 255).astype(np.uint8), WHITE)
    for number, image in enumerate((black_on_clear_white, red_on_clear_white, red_on_clear_white.convert("LA"))):
        np.testing.assert_array_equal(stored(tmp_path / f"{number}.png", image), TRUTH)
    palette = Image.fromarray(np.where(TRUTH, 0, 1).astype(np.uint8), "P")
    palette.putpalette([250, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "p.png", transparency=1)
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png"), TRUTH)


def test_a_mask_of_several_pages_is_left_out(tmp_path):
    one = Image.fromarray(WHITE)
    one.save(tmp_path / "m.tif", save_all=True, append_images=[one])
    with pytest.raises(UnreadableImage, match="TIFF with 2 pages"):
        read_mask(tmp_path / "m.tif")


def test_every_part_of_a_mask_has_its_box_and_very_many_share_one():
    two = TRUTH.copy()
    two[2, 3] = two[3, 4] = True  # joined by a corner
    assert mask_boxes("Cyst", two) == (Box("Cyst", 3, 2, 2, 2), Box("Cyst", 40, 60, 50, 40))
    assert mask_boxes("Cyst", np.zeros((4, 4), bool)) == ()
    many = np.zeros((20, 2 * MOST_PARTS + 4), bool)
    many[4, ::2] = True
    assert mask_boxes("Cyst", many) == (Box("Cyst", 0, 4, 2 * MOST_PARTS + 3, 1),)


def test_masks_alone_can_be_grounded_and_odd_ones_are_said(vae_folder, tmp_path, capsys):
    root = tmp_path / "tree"
    masks = {
        "true": WHITE[:72, :80].copy(),
        "empty": np.zeros((72, 80), np.uint8),
        "full": np.full((72, 80), 255, np.uint8),
    }
    masks["true"][30:40, 20:60] = 255
    masks["lost"] = np.zeros((72, 80), np.uint8)
    masks["lost"][5:9, :3] = 255  # the crop takes 4 pixels from each side
    rows = []
    for name, mask in masks.items():
        write_image(root / f"{name}.png", name)
        Image.fromarray(mask).save(root / f"{name}_mask.png")
        rows.append(
            {"image": f"{name}.png", "labels": "Edema", "masks": f"Edema={name}_mask.png; {NO_FINDING}={name}_mask.png"}
        )
    rows[0]["x"], rows[0]["y"], rows[0]["w"], rows[0]["h"], rows[0]["label"] = "30", "20", "70", "20", "Cyst"
    write_table(root / "meta.csv", ("image", "labels", "masks", "x", "y", "w", "h", "label"), rows)
    out = tmp_path / "out"
    prepare_folder(root, out, vae_folder)
    said = capsys.readouterr().out
    data = LatentShardsDataset(out, "grounding")
    found = {key: data.metadata(place) for place, key in enumerate(data.keys)}
    assert set(found) == set(masks)
    assert [(one["text"], one["label"], len(one["boxes"])) for one in found["true"]["phrases"]] == [
        ("Cyst", "Cyst", 1), ("Edema", "Edema", 2)]  # fmt: skip
    assert found["true"]["attributes"]["boxes_from_masks"] == ["Edema"]
    assert found["empty"]["phrases"] == []
    lines = {(line[1], line[0]) for line in rejected(out)[1:]}
    kept = "(its image is kept)"
    assert lines == {
        (f"empty mask {kept}", "empty_mask.png of empty.png"),
        (f"mask of the whole image {kept}", "full_mask.png of full.png"),
        (f"mask outside the crop {kept}", "lost_mask.png of lost.png"),
        (f"box reaching out of the image {kept}", "true.png"),
    }
    for rule, _ in lines:
        assert f"beware: {rule}" in said


def test_a_label_with_boxes_of_its_own_keeps_them_and_other_splits_get_none(tmp_path):
    write_image(tmp_path / "a.png", "a")
    Image.fromarray(np.full((72, 80), 1, np.uint8)).save(tmp_path / "m.png")
    for split, masked in (("grounding", True), ("fidelity", False)):
        masks = f"Cyst=m.png;Scar=m.png;{NO_FINDING}=m.png"
        row = {"image": "a.png", "split": split, "masks": masks, "label": "Cyst", "x": 30, "y": 20, "w": 9, "h": 9}
        write_table(tmp_path / "meta.csv", tuple(row), [row])
        reading = read(tmp_path)
        sample = RecordImages(tmp_path, 72, reading.native_masks)(reading.records[0])
        own = Box("Cyst", 26, 20, 9, 9)
        around = Box("Scar", 0, 0, 72, 72)
        assert sample.boxes == ([own, around] if masked else [own])
        assert sample.phrases[0] == Phrase("Cyst", "Cyst", (own,))
        assert set(sample.masks) == {"Cyst", "Scar", NO_FINDING}
