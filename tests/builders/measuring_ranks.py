"""Measurements in processes of their own that meet by gloo (run by those processes), with a count of work and of waits."""

import json
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from meddiff.attribution.words import QUERY_WORDS
from meddiff.evaluation.fidelity import Fidelity, FidelityOptions
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.priors import grounding_priors
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import grounding_samples
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import QUICK, CountedPasses, make_attentive_model

T = TypeVar("T")
PHRASES, TIMESTEPS, BATCH, IMAGES = 7, 5, 2, 5


@dataclass(frozen=True)
class WatchedRanks(Ranks):
    """Ranks that write down how much ``work`` had been done each time they waited for each other."""

    waits: list[int] = field(default_factory=list)
    work: list[int] = field(default_factory=lambda: [0])

    def gather(self, rows: list[T]) -> list[T]:
        self.waits.append(sum(self.work))
        return super().gather(rows)


def measured(rank: int, world: int, shards: Path, vae: Path, classifier: Path) -> dict[str, dict[str, object]]:
    """By measurement: its figures, and the work of this rank at each of its waits (passes, images drawn, phrases)."""
    model, found = make_attentive_model(8, vae=str(vae)), {}
    split = LatentShardsDataset(shards, "grounding")

    ranks = WatchedRanks(rank, world)
    with CountedPasses(model) as counted:
        hook = model.unet.register_forward_hook(lambda *_: ranks.work.__setitem__(0, counted.samples))
        options = GroundingOptions(samples=PHRASES, timesteps=TIMESTEPS, batch_size=BATCH)
        result = Grounding(options).run(model, split, None, ranks)
        hook.remove()
    found["grounding"] = {"figures": result.figures, "waits": ranks.waits, "work": sum(ranks.work)}

    ranks, sample = WatchedRanks(rank, world), model.sample

    @wraps(sample)
    def counting(prompts: list[str], *arguments: object, **named: object) -> object:
        ranks.work.append(len(prompts))
        return sample(prompts, *arguments, **named)

    model.sample = counting
    quick = FidelityOptions(samples=IMAGES, weights={"domain": str(classifier)}, sampling=QUICK, batch_size=1)
    result = Fidelity(quick).run(model, LatentShardsDataset(shards, "fidelity"), None, ranks)
    found["fidelity"] = {"figures": result.figures, "waits": ranks.waits, "work": sum(ranks.work)}

    ranks = WatchedRanks(rank, world)
    samples, _ = grounding_samples(split, list(QUERY_WORDS), PHRASES)
    priors = grounding_priors(LatentShardsDataset(shards, "train"), samples, list(QUERY_WORDS), 0, ranks)
    figures = {f"{name}/{key}": value for name, row in priors.items() for key, value in row.items()}
    found["priors"] = {"figures": figures, "waits": ranks.waits, "work": len(ranks.share(samples))}
    return found


def work(rank: int, world: int, folder: str, shards: Path, vae: Path, classifier: Path) -> None:
    """One of ``world`` processes; leaves what it found in ``FOLDER/RANK.json``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    Path(folder, f"{rank}.json").write_text(json.dumps(measured(rank, world, shards, vae, classifier)))
    dist.destroy_process_group()
