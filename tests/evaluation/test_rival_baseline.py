"""A baseline row of another model: what it is shown, where its map lies, what is refused. Small encoders of its interface."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.rival_baseline import placed
from meddiff.evaluation.rival_options import RivalsOptions
from meddiff.evaluation.rival_scores import score
from meddiff.evaluation.rivals import Rivals
from meddiff.evaluation.samples import GroundingSample
from meddiff.models.biovil_t import BiovilT, Pixels, prepared, seen_of
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.biovil import WORDS, Brightness, make_biovil
from tests.builders.drawn_parts import CountedPasses, make_attentive_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_biovil(tmp_path_factory.mktemp("biovil"))


def picture(size: int = 256) -> Pixels:
    pixels = np.full((size, size), 60, np.uint8)
    pixels[size // 2 : size * 3 // 4, size // 4 : size // 2] = 200
    return pixels


def test_it_sees_the_middle_of_the_image_in_its_full_range() -> None:
    assert seen_of((512, 512)) == (32, 480, 32, 480)
    shown = prepared(picture())
    assert shown.shape == (1, 3, 448, 448)
    assert (float(shown.min()), float(shown.max())) == (0.0, 1.0)
    assert float(shown[0, 0, 256 - 32 + 64, 128 - 32 + 64]) == 1.0, "512 px, less 32 on each side"
    assert torch.equal(shown[:, 0], shown[:, 2])
    assert prepared(np.full((64, 64), 9, np.uint8)).abs().max() == 0


def test_its_map_lies_where_it_is_asked_for_and_nowhere_outside_of_what_it_sees(folder: Path) -> None:
    encoders = BiovilT(folder)
    similarity = encoders.similarity(picture(), "bright")
    assert similarity.shape == (14, 14)
    heat = placed(similarity, (256, 256))
    assert torch.equal(heat.isnan()[:, 128], torch.tensor([not 16 <= row < 240 for row in range(256)]))
    box = np.array([[64.0, 128.0, 64.0, 64.0]])
    sample = GroundingSample(0, "a", "Edema", "bright", box, (256, 256))
    other = placed(encoders.similarity(picture(), "dark"), (256, 256))
    found = score(sample, heat, other, {"mirrored_box": (sample.box_mask()[:, ::-1].copy(), 0)})
    assert found["auroc"] is not None
    assert found["auroc"] > 0.95
    assert found["top1"] == 1.0
    assert found["cnr"] is not None
    assert found["absent_cnr"] is not None
    assert found["cnr"] > 1 > 0 > found["absent_cnr"]
    assert found["elsewhere"]["mirrored_box"][1] is not None
    # the margin is in no score: filled with nothing at all it would be
    filled = score(sample, heat.nan_to_num(0.0), None, {})
    assert filled["cnr"] != pytest.approx(found["cnr"], abs=1e-3)
    outside = GroundingSample(0, "a", "Edema", "bright", np.array([[0.0, 0.0, 10.0, 10.0]]), (256, 256))
    lost = score(outside, heat, None, {})
    assert lost["cnr"] is None
    assert lost["miou_biovil"] is None


def test_the_row_is_there_where_a_folder_is_given_and_costs_no_pass(
    folder: Path, shards: Path, vae_folder: Path
) -> None:
    split, model = LatentShardsDataset(shards, "grounding"), make_attentive_model(8, vae=str(vae_folder))
    options = RivalsOptions(samples=3, timesteps=1, presets=["words"], biovil_t=str(folder))
    with CountedPasses(model) as counted:
        rows = {
            str(row["preset"]): row for row in Rivals(options).run(model, split, None, Ranks()).tables["rivals"].rows
        }
    assert counted.samples == Rivals(replace(options, biovil_t=None)).cost(model, split)
    assert (rows["biovil_t"]["kind"], rows["biovil_t"]["evaluations"]) == ("baseline", 0.0)
    assert float(rows["biovil_t"]["auroc"] or math.nan) > 0


def test_without_its_files_it_is_refused_in_a_sentence(folder: Path, tmp_path: Path, shards: Path) -> None:
    with pytest.raises(UserError, match=r"give their folder as --rivals.biovil_t"):
        RivalsOptions(presets=["words", "biovil_t"])
    split = LatentShardsDataset(shards, "grounding")
    with pytest.raises(UserError, match=r"no image\.pt and no text\.pt"):
        Rivals(RivalsOptions(biovil_t=str(tmp_path))).check(split)
    for name in ("image.pt", "text.pt"):
        (tmp_path / name).write_bytes(b"no TorchScript")
    with pytest.raises(UserError, match="no TorchScript that can be read"):
        BiovilT(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    torch.jit.script(Brightness()).save(other / "image.pt")
    torch.jit.script(Wide()).save(other / "text.pt")
    (other / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    with pytest.raises(UserError, match="do not fit together"):
        BiovilT(other).similarity(picture(), "bright")


class Wide(nn.Module):
    """Of another space."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return torch.ones(1, 7)
