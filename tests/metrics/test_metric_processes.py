"""Two and four gloo processes give what one gives, also when a process has no data."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from meddiff.metrics import (
    BoxContrastToNoiseRatio,
    CentreDistance,
    ContrastToNoiseRatio,
    FrechetFeatureDistance,
    GroundingScores,
    MixtureIoU,
    MultiThresholdIoU,
    PixelAUROC,
    PointingGame,
)

CLASSES = ["edema", "pneumonia"]
#: The process that sees each sample, before the remainder: of four, the second sees none and the last no fake image.
OWNERS = [0, 0, 2, 2, 0, 3, 2]


def evaluate(rank: int, world: int) -> tuple[dict[str, float], int]:
    """The share of one process: all scores, and how many samples it holds after they were gathered."""
    random = torch.Generator().manual_seed(0)
    maps, features = torch.rand(7, 8, 8, generator=random), torch.randn(14, 3, generator=random)
    masks = torch.zeros(7, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 3:7] = True
    maps[6] = 1.0  # undefined
    boxes = [torch.tensor([[3, 2, 4, 3]])] * 7
    grounding, fidelity = GroundingScores(CLASSES).to("cpu"), FrechetFeatureDistance().to("cpu")
    on_masks = [ContrastToNoiseRatio(), PixelAUROC(), PointingGame(tolerance=1), MixtureIoU(), MultiThresholdIoU()]
    on_boxes = [BoxContrastToNoiseRatio(absolute=True, unbiased=False), CentreDistance()]
    for i, owner in enumerate(OWNERS):
        if owner % world == rank:
            grounding.update(maps[i : i + 1], masks[i : i + 1], [CLASSES[i % 2]])
            fidelity.update(features[2 * i : 2 * i + 2], real=i % 2 == 1)
            for metric in on_masks:
                metric.update(maps[i : i + 1], masks[i : i + 1])
            on_boxes[0].update(maps[i : i + 1], boxes[i : i + 1])
            on_boxes[1].update(maps[i : i + 1] > 0.95, boxes[i : i + 1])
    scores = {**grounding.compute(), **fidelity.compute()}
    for metric in [*on_masks, *on_boxes]:
        scores |= {f"{type(metric).__name__}/{name}": value for name, value in metric.compute().items()}
    return scores, len(grounding.rows())


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    Path(folder, f"{rank}.json").write_text(json.dumps(evaluate(rank, world)))
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_processes_agree_with_one(world: int, tmp_path: Path) -> None:
    alone, everything = evaluate(0, 1)
    assert (alone["n"], alone["excluded"], alone["n_real"], alone["n_fake"]) == (6, 1, 6, 8)
    assert everything == 7
    assert (alone["PixelAUROC/auroc"], alone["PixelAUROC/excluded"]) == (alone["auroc"], 1)
    # Clean processes as with spawn, but torch and torchmetrics are imported once and not six times.
    multiprocessing.set_forkserver_preload(
        ["meddiff.metrics.fidelity", "meddiff.metrics.grounding", "meddiff.metrics.maps"]
    )
    mp.start_processes(work, args=(world, str(tmp_path)), nprocs=world, start_method="forkserver")
    for rank in range(world):
        scores, held = json.loads((tmp_path / f"{rank}.json").read_text())
        assert scores == pytest.approx(alone, rel=1e-9)
        assert held == sum(owner % world == rank for owner in OWNERS), "gathering must not change what a process holds"
