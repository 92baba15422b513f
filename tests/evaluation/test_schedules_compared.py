"""Schedules compared: the list is all that differs between them, figures are those of the files, the price is what was said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.scheduled import draw_along
from meddiff.attribution.schedules import schedule
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.common.errors import UserError
from meddiff.evaluation.grounding_scores import localisation
from meddiff.evaluation.samples import evaluation_latents, grounding_samples
from meddiff.evaluation.schedules import Schedules, SchedulesOptions, ways_of
from meddiff.metrics.fidelity import FrechetFeatureDistance
from meddiff.metrics.functional import resize_maps
from meddiff.models.feature_extractors import build_extractor
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import QUICK, CountedPasses, make_classifier, make_model, run_part, stamps
from tests.builders.tiny import make_shards

N, STEPS = 4, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    return make_shards(tmp_path_factory.mktemp("s") / "p", vae_folder, n=22, val=2, grounding=6, fidelity=2 * N)


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    model = make_model(vae_folder)
    model.sampling = QUICK
    return model


def test_figures_are_those_of_the_images_and_of_the_maps(folder: Path, model: LatentDiffusion, tmp_path: Path) -> None:
    weights = {"domain": str(make_classifier(tmp_path / "classifier"))}
    split, grounding = LatentShardsDataset(folder, "fidelity"), LatentShardsDataset(folder, "grounding")
    options = SchedulesOptions(samples=N, steps=STEPS, guidance_scale=2.0, gammas=[3.0], weights=weights, batch_size=3)
    measured, out = Schedules(options, grounding), tmp_path / "out"
    with CountedPasses(model) as counted:
        run_part(measured, model, split, out)
    # the tiny cohort may have phrases whose every finding is in their image: for these nothing absent is asked
    assert 0.8 * measured.cost(model, split) <= counted.samples <= measured.cost(model, split)

    rows = {row["schedule"]: row for row in read_table(out / "schedules.csv")}
    assert list(rows) == ["uniform", "exponential_early", "exponential_late", "sampler", "real_vs_real"]
    images = out / "images" / "schedules"
    keys, prompts = split.keys[N:], [str(split.metadata(i)["impression"]) for i in range(N, 2 * N)]
    steps = {name: schedule(name, STEPS, 3.0) for name in ("uniform", "exponential_early", "exponential_late")}
    drawn = {}
    for name, folder_name in zip(steps, ("uniform", "exponential_early_3", "exponential_late_3"), strict=True):
        drawn[name] = np.stack([np.array(Image.open(images / folder_name / f"{key}.png")) for key in keys])
        # by itself, all at once: the list is all that a schedule is
        alone = draw_along(model, prompts, keys, 0, steps[name], 2.0)
        assert np.abs(alone.astype(int) - drawn[name].astype(int)).max() <= 1
        assert (int(rows[name]["first"]), int(rows[name]["last"])) == (steps[name][0], steps[name][-1])
    assert not np.array_equal(drawn["uniform"], drawn["exponential_early"])

    extract = build_extractor("domain", weights["domain"], model.device)

    def features(some: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(some).permute(0, 3, 1, 2).float() / 127.5 - 1  # (N, 3, H, W)
        return extract(pixels).float()

    metric = FrechetFeatureDistance(sync_on_compute=False)
    metric.update(features(np.stack([np.repeat(split.image(i)[..., None], 3, 2) for i in range(N)])), real=True)
    metric.update(features(drawn["exponential_late"]), real=False)
    assert float(rows["exponential_late"]["fd_domain"]) == pytest.approx(metric.compute()["frechet"], rel=1e-3)

    samples, _ = grounding_samples(grounding, list(QUERY_WORDS), None, 0)
    for name, times in steps.items():
        scores = []
        for one in samples:
            words = query_tokens(model.text_encoder.tokenizer, one.phrase, QUERY_WORDS[one.label]).weights
            item = GroundingItem(one.key, evaluation_latents(grounding, one.index, 0), one.phrase, words[None])
            mean = torch.stack([found.maps for found in grounding_pass(model, [item], times)]).mean(dim=0)
            scores.append(localisation(resize_maps(mean, one.size)[0], torch.from_numpy(one.box_mask()))["cnr"])
        assert float(rows[name]["cnr"]) == pytest.approx(np.mean([float(s) for s in scores if s is not None]), abs=1e-4)
        assert int(rows[name]["phrases"]) == len(samples)

    before = stamps(images / "uniform")
    with CountedPasses(model) as counted:
        run_part(Schedules(options), model, split, out)  # and without grounding
    assert counted.samples == 0
    assert stamps(images / "uniform") == before


def test_what_cannot_be_compared_is_refused_before_anything_is_drawn(folder: Path) -> None:
    assert [way.name for way in ways_of(SchedulesOptions(gammas=[10, 60]))] == [
        "uniform",
        *(f"exponential_{kind}_{gamma}" for kind in ("early", "late") for gamma in (10, 60)),
    ]
    with pytest.raises(UserError, match="twice"):
        Schedules(SchedulesOptions(steps=50, gammas=[10]))
    with pytest.raises(UserError, match="at least one"):
        Schedules(SchedulesOptions(schedules=["exponential_late"], gammas=[]))
    with pytest.raises(UserError, match="set samples to 4 or less"):
        Schedules(SchedulesOptions(samples=5)).check(LatentShardsDataset(folder, "fidelity"))
