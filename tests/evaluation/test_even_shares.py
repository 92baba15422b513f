"""Several ranks do the same amount of work, wait for each other once and not in between, and find what one finds."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch.multiprocessing as mp

from meddiff.evaluation.ranks import Ranks
from tests.builders.drawn_parts import make_classifier
from tests.builders.measuring_ranks import BATCH, IMAGES, PHRASES, TIMESTEPS, measured, work
from tests.builders.tiny import make_shards


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> tuple[Path, Path, Path]:
    """Shards, autoencoder, classifier."""
    folder = tmp_path_factory.mktemp("cohort")
    shards = make_shards(folder / "phantom", vae_folder, n=40, val=2, grounding=12, fidelity=2 * IMAGES)
    return shards, vae_folder, make_classifier(folder / "classifier")


@pytest.fixture(scope="module")
def alone(parts: tuple[Path, Path, Path]) -> dict[str, dict[str, object]]:
    return measured(0, 1, *parts)


def test_the_ranks_take_turns_with_what_does_not_divide() -> None:
    lists = [list(range(5)), list(range(10, 15)), list(range(20, 21))]
    for world in (2, 3, 4):
        before, done = 0, [0] * world
        for items in lists:
            shares = [Ranks(rank, world).share(items, before) for rank in range(world)]
            assert sorted(item for share in shares for item in share) == items
            before += len(items)
            done = [total + len(share) for total, share in zip(done, shares, strict=True)]
        assert max(done) - min(done) <= 1
    # the control: without turns the first rank has the item more of every list
    naive = [sum(len(Ranks(rank, 2).share(items)) for items in lists) for rank in (0, 1)]
    assert naive == [7, 4]


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_no_rank_waits_for_more_than_a_batch_and_all_find_what_one_finds(
    world: int, parts: tuple[Path, Path, Path], alone: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    # the case must be one in which dealing out whole phrases would keep ranks waiting, and images would, too
    phrases, images = ([len(range(rank, number, world)) for rank in range(world)] for number in (PHRASES, IMAGES))
    assert (max(phrases) - min(phrases)) * TIMESTEPS > BATCH
    assert 2 * (max(images) - min(images)) > 1

    multiprocessing.set_forkserver_preload(["tests.builders.measuring_ranks"])
    mp.start_processes(work, args=(world, str(tmp_path), *parts), nprocs=world, start_method="forkserver")
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)]
    # one batch of grounding, one image of fidelity (its batch), one phrase of the priors
    for name, batch, waits in (("grounding", BATCH, 2), ("fidelity", 1, 1), ("priors", 1, 1)):
        for rank in found:
            # two neighbouring pixels that rounding swaps change an AUROC by 1e-5
            figures = pytest.approx(alone[name]["figures"], rel=1e-4, abs=3e-5, nan_ok=True)
            assert rank[name]["figures"] == figures, name
            assert len(rank[name]["waits"]) <= waits
        assert sum(rank[name]["work"] for rank in found) == alone[name]["work"], "nothing is done twice or left out"
        for moment in zip(*(rank[name]["waits"] for rank in found), strict=True):
            assert max(moment) - min(moment) <= batch, f"{name}: {moment} when they met"
