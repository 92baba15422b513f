"""Deletion and insertion on a planted denoiser: who knows the region wins, and the sign is that of a distance."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.attribution import games
from meddiff.attribution.baselines import centre_prior, moved, random_order
from meddiff.attribution.ddim import ddim_step
from meddiff.attribution.df_rise import FAST as FAST_RISE
from meddiff.attribution.games import PAPER, GameOptions, gain, play
from meddiff.attribution.rise import rise
from meddiff.attribution.substrates import blurred
from meddiff.attribution.trajectory import Trajectory, renoised
from meddiff.attribution.views import decoded, view
from meddiff.common.errors import UserError
from meddiff.models.autoencoder import decode
from meddiff.models.feature_extractors import build_extractor
from meddiff.models.latent_diffusion import LatentDiffusion
from tests.builders.drawn_parts import CountedPasses, make_attentive_model, make_classifier
from tests.builders.planted import block, planted_model

REGION = block(16, 2, 9, 6, 6)
TIMESTEPS = [781, 401]
KNOWN = REGION.float().expand(2, -1, -1)


@dataclass
class Real:
    key: str
    latents: Tensor
    text: str


def path_of(model: LatentDiffusion, key: str = "a", seed: int = 0) -> Trajectory:
    latents = torch.from_numpy(np.random.default_rng(seed).standard_normal(model.latent_shape, dtype=np.float32))
    return renoised(model, [Real(key, latents, "Small left pneumothorax.")], TIMESTEPS, seed, 2.0)[0]


@pytest.fixture(scope="module")
def small() -> LatentDiffusion:
    return make_attentive_model(8)


@pytest.mark.parametrize("options", [GameOptions(), PAPER, GameOptions(result="x0")], ids=["own", "paper", "x0"])
def test_perfect_beats_random_beats_inverted_in_both_games(options: GameOptions) -> None:
    model = planted_model(REGION)
    path = path_of(model)
    maps = {
        "perfect": KNOWN,
        "inverted": -KNOWN,
        "centre": centre_prior((16, 16), 2),
        **{f"random {seed}": random_order("a", TIMESTEPS, (16, 16), seed) for seed in range(4)},
    }
    found = play(model, path, maps, view(model), options)
    random = torch.stack([found[f"random {seed}"].deletion_area for seed in range(4)]).mean(dim=0)
    assert (found["perfect"].deletion_area > random).all()
    assert (random > found["inverted"].deletion_area).all()
    random = torch.stack([found[f"random {seed}"].insertion_area for seed in range(4)]).mean(dim=0)
    assert (found["perfect"].insertion_area < random).all()
    assert (random < found["inverted"].insertion_area).all()
    assert (found["perfect"].deletion_area > found["centre"].deletion_area).all()
    deleted, inserted = gain(found["perfect"], found["random 0"])
    assert (deleted > 0).all()
    assert (inserted > 0).all()
    deleted, inserted = gain(found["inverted"], found["perfect"])
    assert (deleted < 0).all()
    assert (inserted < 0).all()


def test_a_map_that_found_the_region_beats_itself_moved() -> None:
    model = planted_model(REGION)
    path = path_of(model)
    found = rise(model, path, replace(FAST_RISE, masks=96))
    played = play(model, path, {"rise": found, "moved": moved(found, "a", TIMESTEPS)}, view(model))
    assert all((better > 0).all() for better in gain(played["rise"], played["moved"]))


def test_curves_are_those_of_the_definition(small: LatentDiffusion) -> None:
    """One position order, one chunk at a time, zero and blur written out."""
    path, options = path_of(small), replace(PAPER, chunks=5, guidance_scale=3.0)
    values = torch.from_numpy(np.random.default_rng(3).permutation(64).reshape(1, 8, 8).astype(np.float32)).expand(
        2, -1, -1
    )
    game = play(small, path, {"one": values}, view(small), options)["one"]
    marks = [0, 13, 26, 38, 51, 64]
    torch.testing.assert_close(game.taken, torch.tensor(marks) / 64, rtol=0, atol=1e-6)

    def led(x: Tensor, k: int) -> Tensor:
        t, p = int(path.timesteps[k]), int(path.previous[k])
        with torch.no_grad():
            one, other = (
                small.unet(x[None], torch.tensor([t]), **small.encode_texts([text]).arguments()).sample
                for text in ("", path.text)
            )
            return ddim_step(small.noise_schedule, one + 3.0 * (other - one), x[None], t, p)[0]

    for k in range(2):
        whole = path.noisy[k]
        target = led(whole, k)
        full = float((led(torch.zeros_like(whole), k) - target).square().mean().sqrt())
        for place, count in enumerate(marks):
            first = (63 - values[k] < count).expand_as(whole)
            deleted = torch.where(first, torch.zeros_like(whole), whole)
            inserted = torch.where(first, whole, blurred(whole))
            for found, x in ((game.deletion, deleted), (game.insertion, inserted)):
                expected = float((led(x, k) - target).square().mean().sqrt()) / full
                assert float(found[k, place]) == pytest.approx(expected, abs=1e-3)
    area = sum((game.deletion[0, k] + game.deletion[0, k + 1]) / 2 * (marks[k + 1] - marks[k]) / 64 for k in range(5))
    assert float(game.deletion_area[0]) == pytest.approx(float(area), abs=1e-6)


def test_ends_of_the_curves_and_what_they_are_divided_by(small: LatentDiffusion) -> None:
    path = path_of(small)
    maps = {"a": random_order("a", TIMESTEPS, (8, 8), 0), "b": random_order("a", TIMESTEPS, (8, 8), 1)}
    found = play(small, path, maps, view(small), GameOptions(chunks=4))
    for game in found.values():
        assert game.deletion[:, 0].abs().max() == 0
        torch.testing.assert_close(game.deletion[:, -1], torch.ones(2), rtol=1e-5, atol=0)
        assert game.insertion[:, -1].abs().max() == 0
        # one substrate for both games: an insertion begins where a deletion ends
        torch.testing.assert_close(game.insertion[:, 0], torch.ones(2), rtol=1e-4, atol=0)
    assert (found["a"].deletion - found["b"].deletion).abs().max() > 1e-4


def test_results_hang_on_no_batch_and_on_no_other_map(small: LatentDiffusion) -> None:
    path = path_of(small)
    maps = {"a": random_order("a", TIMESTEPS, (8, 8), 0), "b": centre_prior((8, 8), 2)}
    together = play(small, path, maps, view(small), GameOptions(chunks=4))
    for batch_size in (1, 5):
        alone = play(small, path, {"b": maps["b"]}, view(small), GameOptions(chunks=4, batch_size=batch_size))["b"]
        torch.testing.assert_close(alone.deletion, together["b"].deletion, rtol=0, atol=1e-4)
        torch.testing.assert_close(alone.insertion, together["b"].insertion, rtol=0, atol=1e-4)
    one = play(small, path.at([1]), {"b": maps["b"][1:]}, view(small), GameOptions(chunks=4))["b"]
    torch.testing.assert_close(one.deletion[0], together["b"].deletion[1], rtol=0, atol=1e-4)
    other = play(small, path, {"b": maps["b"]}, view(small), GameOptions(chunks=4, seed=1))["b"]
    assert (other.deletion - together["b"].deletion).abs().max() > 1e-4


def test_nothing_is_remembered_between_two_games(small: LatentDiffusion) -> None:
    """The published score is a scheduler's with a history: the same game twice differed."""
    path, maps = path_of(small), {"a": random_order("a", TIMESTEPS, (8, 8))}
    one, other = (play(small, path, maps, view(small), GameOptions(chunks=4))["a"] for _ in range(2))
    torch.testing.assert_close(one.deletion, other.deletion, rtol=0, atol=0)


def test_equal_values_come_in_no_order_of_rows() -> None:
    """A flat map is a random order: row by row it would take the planted region, which lies at the top, first."""
    model = planted_model(block(16, 0, 0, 3, 16))
    path = path_of(model)
    row_by_row = -torch.arange(256.0).view(1, 16, 16).expand(2, -1, -1)
    maps = {"flat": torch.zeros(2, 16, 16), "nan": torch.full((2, 16, 16), torch.nan), "rows": row_by_row}
    found = play(model, path, maps, view(model))
    for name in ("flat", "nan"):
        deleted, inserted = gain(found["rows"], found[name])
        assert deleted.min() > 0.02
        assert inserted.min() > 0.02


def test_a_step_that_does_not_look_has_no_curve() -> None:
    model = planted_model(torch.zeros(16, 16, dtype=torch.bool))
    path = path_of(model)
    constant = play(model, path, {"a": KNOWN}, lambda latents: torch.ones(len(latents), 3), GameOptions(chunks=2))["a"]
    assert constant.deletion.isnan().all()
    assert constant.deletion_area.isnan().all()


def test_it_costs_what_it_says(small: LatentDiffusion) -> None:
    path, maps = path_of(small), {"a": centre_prior((8, 8), 2), "b": random_order("a", TIMESTEPS, (8, 8))}
    for scale, expected in ((1.0, 2 * 2 * 2 * 4), (2.0, 2 * 2 * 2 * 2 * 4)):
        options, done = GameOptions(chunks=4, guidance_scale=scale), list[int]()
        with CountedPasses(small) as counted:
            play(small, path, maps, view(small), options, done.append)
        whole = len(path) * (1 + (scale != 1.0))
        assert games.cost(options, 2, maps=2) == expected + whole == counted.samples == sum(done)


def test_distances_are_of_latents_pixels_or_features(vae_folder: Path, tmp_path: Path) -> None:
    model = make_attentive_model(8, vae=str(vae_folder))
    latents = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 4, 8, 8), dtype=np.float32))
    with torch.no_grad():
        pixels = decoded(model, latents)
    expected = torch.from_numpy(decode(model.vae, latents, model.scaling_factor)).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(pixels, expected, rtol=0, atol=0.5 / 127.5 + 1e-5)
    extractor = build_extractor("domain", str(make_classifier(tmp_path / "classifier")), torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(view(model)(latents), pixels.flatten(1))
        torch.testing.assert_close(view(model, extractor=extractor)(latents), extractor(pixels))
        torch.testing.assert_close(view(model, "latent", extractor)(latents), latents.flatten(1))
    path = path_of(model)
    maps = {"a": centre_prior((8, 8), 2)}
    areas = [play(model, path, maps, one, GameOptions(chunks=2))["a"].deletion_area
             for one in (view(model), view(model, "latent"), view(model, extractor=extractor))]  # fmt: skip
    assert all(area.isfinite().all() for area in areas)
    assert (areas[0] - areas[1]).abs().max() > 1e-4
    leaf = latents[:1].clone().requires_grad_()
    decoded(model, leaf).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0


def test_what_cannot_be_looked_at_or_played_is_refused(small: LatentDiffusion) -> None:
    with pytest.raises(UserError, match="No VAE"):
        view(small, "decoded")
    with pytest.raises(UserError, match="must be features, decoded or latent"):
        view(small, "lpips")  # type: ignore[arg-type]
    path = path_of(small)
    with pytest.raises(UserError, match="one map a step"):
        play(small, path, {"a": torch.zeros(1, 8, 8)}, view(small))
    with pytest.raises(UserError, match="64 positions"):
        play(small, path, {"a": torch.zeros(2, 8, 8)}, view(small), GameOptions(chunks=65))
    for wrong, told in (({"chunks": 0}, "chunks"), ({"deletion": "black"}, "must be renoised, zero or blur")):
        with pytest.raises(UserError, match=told):
            GameOptions(**wrong)  # type: ignore[arg-type]


def test_baselines_know_nothing_but_size_and_address() -> None:
    one = random_order("a", TIMESTEPS, (8, 10))
    assert one.shape == (2, 8, 10)
    assert torch.equal(one[1:], random_order("a", [401], (8, 10)))
    assert not torch.equal(one, random_order("b", TIMESTEPS, (8, 10)))
    centre = centre_prior((9, 9), 2)
    assert centre.shape == (2, 9, 9)
    assert centre[0].argmax() == 40
    assert float(centre.max()) == 1.0
    assert centre.min() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(centre[0], centre[0].flip(0).flip(1))
    peak = block(16, 3, 3, 1, 1).float().expand(40, -1, -1)
    shifted = moved(peak, "a", list(range(40, 0, -1)))
    assert (shifted.sum(dim=(1, 2)) == 1).all()
    rows, columns = (shifted.sum(dim=axis).argmax(dim=1) for axis in (2, 1))
    apart = torch.stack([(one - 3).abs().minimum(16 - (one - 3).abs()) for one in (rows, columns)])
    assert (apart.max(dim=0).values >= 4).all(), "at least a quarter of a side away, around the edge"
