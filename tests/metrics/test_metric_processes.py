"""Two and four gloo processes give what one gives, also when a process has no data."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from meddiff.metrics import (
    ClassifierAUROC,
    FrechetFeatureDistance,
    GroundingGain,
    GroundingScores,
    PairwiseSimilarity,
    grounding_gain,
)

Share = Callable[[int, int], dict[str, float]]

CLASSES = ["edema", "pneumonia"]
#: The process that sees each sample, before the remainder: of four, the second sees none and the last no fake image.
OWNERS = [0, 0, 2, 2, 0, 3, 2]
#: The same of groups of images: of four, the second sees none.
GROUP_OWNERS = [0, 2, 2, 0, 3]
LABELS = [["a"], ["ok"], ["b"], ["a", "b"], ["ok"]]


def of_maps(rank: int, world: int) -> dict[str, float]:
    """The share of one process: all scores, and how many samples it holds after they were gathered."""
    random = torch.Generator().manual_seed(0)
    maps, features = torch.rand(7, 8, 8, generator=random), torch.randn(14, 3, generator=random)
    masks = torch.zeros(7, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 3:7] = True
    maps[6] = 1.0  # undefined
    grounding, fidelity = GroundingScores(CLASSES).to("cpu"), FrechetFeatureDistance().to("cpu")
    own = GroundingScores(CLASSES, sync_on_compute=False)
    for i, owner in enumerate(OWNERS):
        if owner % world == rank:
            for metric in (grounding, own):
                metric.update(maps[i : i + 1], masks[i : i + 1], [CLASSES[i % 2]])
            fidelity.update(features[2 * i : 2 * i + 2], real=i % 2 == 1)
    scores = {**grounding.compute(), **fidelity.compute()}
    alone = own.compute() if own.rows() else {"n": 0.0, "excluded": 0.0}
    return {**scores, "held": float(len(grounding.rows())), "unsynced": alone["n"] + alone["excluded"]}


def of_gains(rank: int, world: int) -> dict[str, float]:
    """The share of one process: the second of four sees nothing."""
    random = torch.Generator().manual_seed(0)
    maps, masks = torch.rand(28, 8, 8, generator=random), torch.zeros(28, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 1:4] = True
    metric = GroundingGain().to("cpu")
    for i in range(28):
        if OWNERS[i % 7] % world == rank:
            own, place, other = maps[i : i + 1], masks[i : i + 1], masks[i : i + 1].flip(2)
            metric.update("absent", grounding_gain(own, place, control_maps=maps[i - 1 : i or None][-1:]), [i // 2])
            metric.update("twin", grounding_gain(own, place, control_places=other), [i], [i ^ 1])
    return {**metric.compute(), "held": float(len(metric.askings()))}


def of_images(rank: int, world: int) -> dict[str, float]:
    """The share of one process."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 1, 32, 32, generator=random) * 255
    scores = torch.randint(4, (5, 6, 2), generator=random).float()
    diversity, classifier = PairwiseSimilarity().to("cpu"), ClassifierAUROC(["a", "b"], "ok").to("cpu")
    for i, owner in enumerate(GROUP_OWNERS):
        if owner % world == rank:
            diversity.update(images[i])
            classifier.update(scores[i], [LABELS[(i + k) % 5] for k in range(6)])
    return {**diversity.compute(), **classifier.compute()}


def work(rank: int, world: int, folder: str, share: Share) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    Path(folder, f"{rank}.json").write_text(json.dumps(share(rank, world)))
    dist.destroy_process_group()


def shares(share: Share, world: int, folder: Path) -> list[dict[str, float]]:
    """What each of ``world`` processes found."""
    # Clean processes as with spawn, but torch and torchmetrics are imported once and not six times.
    multiprocessing.set_forkserver_preload(
        ["meddiff.metrics." + name for name in ("fidelity", "gain", "grounding", "diversity")]
    )
    mp.start_processes(work, args=(world, str(folder), share), nprocs=world, start_method="forkserver")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_agree_with_one_on_maps(world: int, tmp_path: Path) -> None:
    alone = of_maps(0, 1)
    assert (alone["n"], alone["excluded"], alone["n_real"], alone["n_fake"]) == (6, 1, 6, 8)
    assert alone["held"] == 7
    for rank, found in enumerate(shares(of_maps, world, tmp_path)):
        mine = sum(owner % world == rank for owner in OWNERS)
        assert found.pop("held") == mine, "gathering must not change what a process holds"
        assert found.pop("unsynced") == mine
        assert found == pytest.approx({name: alone[name] for name in found}, rel=1e-9)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_agree_with_one_on_gains(world: int, tmp_path: Path) -> None:
    alone = of_gains(0, 1)
    assert alone["held"] == 56
    assert alone["gain_low"] < alone["gain"] < alone["gain_high"]
    for rank, found in enumerate(shares(of_gains, world, tmp_path)):
        assert found.pop("held") == 2 * sum(OWNERS[i % 7] % world == rank for i in range(28))
        assert found == pytest.approx({name: alone[name] for name in found}, rel=1e-9)
        assert len(found) == 5


@pytest.mark.parametrize("world", [2, 4])
def test_processes_agree_with_one_on_drawn_images(world: int, tmp_path: Path) -> None:
    alone = of_images(0, 1)
    counted = alone["a/n"] + alone["b/n"] + alone["ok/n"] + alone["left_out"]
    assert (alone["pairs"], alone["scales"], counted) == (15, 2, 30)
    for found in shares(of_images, world, tmp_path):
        assert found == pytest.approx(alone, rel=1e-9)
