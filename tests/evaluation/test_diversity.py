"""The diversity part: both protocols from their files, the shared pool, and a second call that draws nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.evaluation.diversity import Diversity, DiversityOptions, choose_prompts
from meddiff.evaluation.drawing import draw_prompts
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import QUICK, make_model, make_split, run_part, stamps


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    return make_split(tmp_path_factory.mktemp("cohort") / "phantom", vae_folder)


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_model(vae_folder)


OPTIONS = DiversityOptions(prompts=3, per_prompt=3, paper_sets=5, sampling=QUICK, batch_size=4)


def torchmetrics_value(folder: Path, pair: str, data_range: float | None) -> float:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

    a, b = (
        torch.from_numpy(np.array(Image.open(folder / f"{key}.png"))).permute(2, 0, 1)[None].double()
        for key in pair.split("|")
    )
    betas = np.array([0.0448, 0.2856, 0.3001])  # 64 px allow three scales
    weights = tuple((betas / betas.sum() * 1.0001).tolist())
    return float(reference(a, b, sigma=1.5, kernel_size=11, data_range=data_range, betas=weights))


def test_both_protocols_are_torchmetrics_over_the_files(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    found = run_part(Diversity(OPTIONS), model, split, tmp_path)
    rows = read_table(tmp_path / "diversity.csv")
    assert list(rows[0]) == ["protocol", "group", "pair", "value"]
    folder = tmp_path / "images" / "diversity"
    chosen = choose_prompts(split, 3, 0)
    assert sorted(stamps(folder)) == sorted(f"{key}#{k}.png" for key in chosen for k in range(3))
    for protocol, data_range, name in (("standard", 255.0, "ms_ssim"), ("paper", None, "ms_ssim_paper")):
        mine = [row for row in rows if row["protocol"] == protocol]
        values = [torchmetrics_value(folder, row["pair"], data_range) for row in mine]
        assert [float(row["value"]) for row in mine] == pytest.approx(values, abs=1e-5)
        assert found[name] == pytest.approx(np.mean(values), abs=1e-6)
        assert found[f"{name}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
        assert (found[f"{name}_pairs"], found[f"{name}_undefined"]) == (len(mine), 0)
    standard = [row for row in rows if row["protocol"] == "standard"]
    assert len(standard) == 3 * 3
    assert all({part.split("#")[0] for part in row["pair"].split("|")} == {row["group"]} for row in standard)
    paper = [row for row in rows if row["protocol"] == "paper"]
    assert len(paper) == 5 * 6
    assert any(len({part.split("#")[0] for part in row["pair"].split("|")}) == 2 for row in paper), "prompts are mixed"
    assert (found["scales"], found["prompts"], found["paper_images"]) == (3, 3, 9)

    before = stamps(folder)
    assert run_part(Diversity(OPTIONS), model, split, tmp_path) == found
    assert stamps(folder) == before


def test_images_of_one_prompt_differ_and_prompts_differ(split: LatentShardsDataset) -> None:
    chosen = choose_prompts(split, 6, 0)
    assert len(set(chosen.values())) == 6
    assert chosen == choose_prompts(split, 6, 0)
    assert chosen != choose_prompts(split, 6, 1)
    assert list(choose_prompts(split, 3, 0).items()) == list(chosen.items())[:3], (
        "a larger evaluation keeps its prompts"
    )


def test_the_papers_protocol_takes_the_images_of_a_finished_fidelity(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    shared = tmp_path / "images" / "fidelity"
    prompts = {key: "edema" for key in split.keys[:7]}
    draw_prompts(model, shared, prompts, OPTIONS)
    found = run_part(Diversity(OPTIONS), model, split, tmp_path)
    used = {
        key
        for row in read_table(tmp_path / "diversity.csv")
        if row["protocol"] == "paper"
        for key in row["pair"].split("|")
    }
    assert used <= set(prompts)
    assert found["paper_images"] == 7
    (shared / f"{split.keys[0]}.png").unlink()  # no longer whole
    assert run_part(Diversity(OPTIONS), model, split, tmp_path)["paper_images"] == 9


def test_what_cannot_be_compared_is_told(split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set prompts to"):
        run_part(Diversity(DiversityOptions(prompts=1000, sampling=QUICK)), model, split, tmp_path)
    with pytest.raises(UserError, match="2 images"):
        DiversityOptions(per_prompt=1)
    with pytest.raises(UserError, match="set prompts higher"):
        run_part(Diversity(DiversityOptions(prompts=1, per_prompt=2, sampling=QUICK)), model, split, tmp_path)
    alone = DiversityOptions(prompts=1, per_prompt=2, paper_sets=0, sampling=QUICK)
    found = run_part(Diversity(alone), model, split, tmp_path)
    assert "ms_ssim_paper" not in found
    assert found["ms_ssim_pairs"] == 1
