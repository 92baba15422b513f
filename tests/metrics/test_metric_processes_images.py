"""The metrics of drawn images: two and four gloo processes give what one gives, also when a process has no data."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from meddiff.metrics import ClassifierAUROC, PairwiseSimilarity

#: The process that sees each group of images, before the remainder: of four, the second sees none.
OWNERS = [0, 2, 2, 0, 3]
LABELS = [["a"], ["ok"], ["b"], ["a", "b"], ["ok"]]


def evaluate(rank: int, world: int) -> dict[str, float]:
    """The share of one process."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 1, 32, 32, generator=random) * 255
    scores = torch.randint(4, (5, 6, 2), generator=random).float()
    diversity, classifier = PairwiseSimilarity().to("cpu"), ClassifierAUROC(["a", "b"], "ok").to("cpu")
    for i, owner in enumerate(OWNERS):
        if owner % world == rank:
            diversity.update(images[i])
            classifier.update(scores[i], [LABELS[(i + k) % 5] for k in range(6)])
    return {**diversity.compute(), **classifier.compute()}


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    Path(folder, f"{rank}.json").write_text(json.dumps(evaluate(rank, world)))
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_processes_agree_with_one_on_drawn_images(world: int, tmp_path: Path) -> None:
    alone = evaluate(0, 1)
    assert (alone["pairs"], alone["scales"], alone["a/n"] + alone["b/n"] + alone["ok/n"] + alone["left_out"]) == (
        15,
        2,
        30,
    )
    multiprocessing.set_forkserver_preload(["meddiff.metrics.diversity", "meddiff.metrics.classifier"])
    mp.start_processes(work, args=(world, str(tmp_path)), nprocs=world, start_method="forkserver")
    for rank in range(world):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(alone, rel=1e-9)
