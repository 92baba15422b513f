"""The grounding pass against the published procedure, on one U-Net: time by cause, memory of the maps, agreement.

    OMP_NUM_THREADS=2 python -m benchmarks.grounding [--device cuda] [--latents 32] [--width 16] [--repeats 1]

The U-Net has Stable Diffusion's layout (sixteen cross-attention layers) at a small width, with random weights; it sees
phantoms through the autoencoder that ships. "published" is ``published_grounding.py``: what the published code does,
written anew from facts. Its costs are taken away one after the other, each line on top of the one before, until nothing
but ``meddiff.attribution.grounding_pass.grounding_pass`` is left:

| line | what goes |
|---|---|
| no decodes | two passes of the autoencoder's decoder per sample, which nobody looks at |
| 40 steps | the first 10 of 50 steps, whose maps are not used |
| fused self-attention | explicit (pixels x pixels) matrices: only cross-attention has to be in sight |
| contraction | maps of all tokens, layers and steps, grown to one size and stacked; here: one sum per resolution and word |
| batching | batches of 8: here 64 (image, timestep) pairs |

Each of the first four lines has noise of its own (no line changes a map: tests/attribution/test_published_procedure.py),
so they are four published runs, and their differences are what a seed is worth. Floors: at least 2 times faster on a CPU
at 32 x 32 latents, at least 20 times fewer bytes of maps, and maps no further from the published ones than those are
from each other. The shares of the causes are this network's: at Stable Diffusion's width convolutions cost more beside
the maps, and a decode about 3 forward passes. Times are the best of the repeats, the lines taking turns. Other work on
the machine stretches them unevenly: then the column of processor time (all threads) is the one to compare.
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmarks.published_grounding import Localised, Parts, localise
from benchmarks.small_diffusion import small_unet
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps, paper_timesteps
from meddiff.attribution.recorder import MeanOverLayers
from meddiff.attribution.words import QUERY_WORDS, query_tokens, special_tokens
from meddiff.evaluation.samples import GroundingSample
from meddiff.metrics.functional import contrast_to_noise_ratio
from meddiff.models.autoencoder import FrozenAutoencoder
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.clip_tokenizer import CONTEXT_LENGTH
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.preparation.encode import encode_images
from meddiff.preparation.prepare_phantom import DEFAULT_VAE

BATCH = 8  # of the published code
OURS = 64  # the pass's own default
GIB = 2**30
LADDER = {
    "published": Parts(),
    "no decodes": Parts(decodes=False),
    "40 steps": Parts(decodes=False, first_steps=False),
    "fused self-attention": Parts(decodes=False, first_steps=False, explicit_self_attention=False),
}


def build_network(width: int, latents: int) -> LatentDiffusion:
    """Random weights, with attention that tells words and places apart."""
    unet = small_unet(width, latents)
    tower = build_text_encoder({"width": 128, "heads": 2, "layers": 4, "embedding_std": 0.6})
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                weight.mul_(3)
    return LatentDiffusion(unet, tower, NoiseSchedule(), FrozenAutoencoder(DEFAULT_VAE)).eval()


class Bench:
    """Eight phrases about eight phantoms, the network, and both ways to ground them."""

    def __init__(self, device: str, latents: int, width: int) -> None:
        self.device = device
        self.model = build_network(width, latents)
        self.samples: list[GroundingSample] = []
        images = []
        cohort = PhantomCohort(PhantomOptions(n=4 * BATCH, resolution=8 * latents, normal=0.0))
        for index in range(BATCH):
            sample = cohort[index]
            phrase = next(phrase for phrase in sample.phrases if phrase.boxes)
            boxes = np.array([(box.x, box.y, box.w, box.h) for box in phrase.boxes])
            size = (8 * latents, 8 * latents)
            self.samples.append(GroundingSample(index, sample.key, phrase.label, phrase.text, boxes, size))
            images.append(sample.image)
        moments = torch.from_numpy(encode_images(self.model.vae, images)).float()
        self.latents = moments[:, : moments.shape[1] // 2] * self.model.scaling_factor  # (8, 4, h, w)
        self.model = self.model.to(device)
        self.masks = torch.from_numpy(np.stack([sample.box_mask() for sample in self.samples]))

    def published(self, parts: Parts, seed: int) -> Localised:
        draw = torch.Generator(self.device).manual_seed(seed)
        return localise(
            self.model.unet,
            self.model.vae,
            lambda texts: self.model.encode_texts(texts).states,
            self.latents.to(self.device),
            [sample.phrase for sample in self.samples],
            [QUERY_WORDS[sample.label] for sample in self.samples],
            self.model.noise_schedule.alphas_cumprod,
            lambda t, latents: torch.randn(latents.shape, generator=draw, device=latents.device),
            parts,
        )

    def ours(self, timesteps: Sequence[int], batch_size: int = OURS, reducer: MeanOverLayers | None = None) -> Tensor:
        """Maps (8, h, w) of the query words; the pass also makes those of the end token, as in an evaluation."""
        tokenizer = self.model.text_encoder.tokenizer
        items = [
            GroundingItem(
                sample.key,
                latents,
                sample.phrase,
                torch.stack(
                    [
                        query_tokens(tokenizer, sample.phrase, QUERY_WORDS[sample.label], "paper").weights,
                        special_tokens(tokenizer, sample.phrase)["end"],
                    ]
                ),
            )
            for sample, latents in zip(self.samples, self.latents, strict=True)
        ]
        maps = grounding_pass(self.model, items, timesteps, 0, batch_size, reducer)
        found = dict(mean_over_timesteps(maps, len(timesteps)))
        return torch.stack([found[place][0] for place in range(len(items))])

    def contracted(self, batch_size: int) -> Localised:
        """Our maps at all of the paper's timesteps; their bytes are counted apart."""
        return Localised(self.ours(paper_timesteps(), batch_size), 0)

    def cnr(self, maps: Tensor) -> Tensor:
        """(8,): at the size of the images, on the boxes."""
        full = F.interpolate(maps[:, None], size=self.masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return contrast_to_noise_ratio(full, self.masks)


class CountingMean(MeanOverLayers):
    """Also notes the most bytes alive at once: ``kept``, of maps; ``work``, with the matrices of the layer at work.

    Upper bounds: a replaced sum is counted with its successor, and the maps of a whole batch with those of the last.
    """

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        self.heads = {name: int(part.heads) for name, part in model.unet.named_modules() if name.endswith("attn2")}
        self.kept = self.work = 0

    def _held(self) -> int:
        return sum(sums.nbytes for sums in self._sums.values())

    def add(self, layer: str, maps: Tensor) -> None:
        batch, groups, pixels = maps.shape
        mean = 4 * batch * pixels * CONTEXT_LENGTH  # over heads, all tokens
        kept = self._held() + mean + 2 * 4 * batch * pixels * groups
        self.kept = max(self.kept, kept)
        self.work = max(self.work, kept + 2 * mean * self.heads[layer])  # scores and their softmax
        super().add(layer, maps)

    def take(self, size: tuple[int, int]) -> Tensor:
        held = self._held()
        maps = super().take(size)
        # the sum, one resolution grown, the mean; the batch before, and the sums of its items
        self.kept = max(self.kept, held + 5 * maps.nbytes)
        return maps


@dataclass
class Timed:
    """Seconds of the fastest run of a line, its load, and the result of the first."""

    seconds: float
    processor: float
    result: Localised


def measure(lines: dict[str, Callable[[], Localised]], repeats: int, device: str) -> dict[str, Timed]:
    best: dict[str, Timed] = {}
    order = list(itertools.product(range(repeats), lines.items()))
    for _, (name, work) in tqdm(order, desc="lines", unit="line"):
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        if device != "cpu":
            torch.cuda.synchronize()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        if name not in best:
            best[name] = Timed(wall, processor, result)
        best[name].seconds = min(best[name].seconds, wall)
        best[name].processor = min(best[name].processor, processor)
    return best


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's, of each of (8, h, w) maps."""
    a, b = (maps.double().flatten(1) - maps.double().flatten(1).mean(1, keepdim=True) for maps in (one, other))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def agreement(bench: Bench, pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float, float, float]:
    """Mean and lowest correlation, mean and highest absolute difference of the CNR, over pairs and images."""
    pairs = list(pairs)
    alike = torch.cat([correlation(one, other) for one, other in pairs])
    apart = torch.cat([(bench.cnr(one) - bench.cnr(other)).abs() for one, other in pairs])
    return float(alike.mean()), float(alike.min()), float(apart.mean()), float(apart.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--latents", type=int, default=32, help="side of the latents")
    parser.add_argument("--width", type=int, default=16, help="channels of the U-Net's first level, a multiple of 16")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    bench = Bench(options.device, options.latents, options.width)
    half = torch.autocast("cuda", torch.float16, enabled=options.device != "cpu")  # as published, on a GPU
    with half:
        bench.ours(paper_timesteps(1), BATCH)  # warm up
        report(bench, options.repeats)


def report(bench: Bench, repeats: int) -> None:
    side = bench.latents.shape[-1]
    print(f"{BATCH} phrases, {side} x {side} latents, {bench.device}, {torch.get_num_threads()} threads, "
          f"load {os.getloadavg()[0]:.1f} at the start (1.0 is one busy core of {os.cpu_count()})\n")  # fmt: skip
    lines: dict[str, Callable[[], Localised]] = {
        name: partial(bench.published, parts, seed) for seed, (name, parts) in enumerate(LADDER.items())
    }
    lines["contraction"] = partial(bench.contracted, BATCH)
    lines["batching (= ours)"] = partial(bench.contracted, OURS)
    timed = measure(lines, repeats, bench.device)
    seconds = [one.seconds for one in timed.values()]
    total = seconds[0] - seconds[-1]
    row("", "seconds", "cpu s", "s an image", "saves s", "of the saving", "times faster")
    for place, (name, one) in enumerate(timed.items()):
        saved = seconds[place - 1] - seconds[place] if place else 0.0
        cells = (f"{one.seconds:.1f}", f"{one.processor:.1f}", f"{one.seconds / BATCH:.2f}", f"{saved:.1f}")
        row(name, *cells, f"{100 * saved / total:.0f} %", f"{seconds[0] / one.seconds:.2f}")
    cpu = [one.processor for one in timed.values()]
    print(f"\nratio {seconds[0] / seconds[-1]:.2f}, of processor time {cpu[0] / cpu[-1]:.2f} (floor 2 on a CPU "
          f"at 32 x 32 latents); load {os.getloadavg()[0]:.1f} at the end\n")  # fmt: skip

    counting = CountingMean(bench.model)
    errors = timestep_errors(bench, timed, counting)
    kept = timed["published"].result.kept_bytes
    row("maps at the peak", "published", "ours", "ratio")
    for name, ours in (("kept", counting.kept), ("with the layer at work", counting.work)):
        row(name, f"{kept / GIB:.3f} GiB", f"{ours / GIB:.4f} GiB", f"{kept / ours:.0f} (floor 20)")

    theirs = [timed[name].result.maps for name in LADDER]
    mine = timed["batching (= ours)"].result.maps
    between = agreement(bench, itertools.combinations(theirs, 2))
    against = agreement(bench, [(mine, one) for one in theirs])
    print()
    row("maps and CNR", "corr. mean", "lowest", "CNR diff mean", "highest")
    for name, found in (("published, other noise", between), ("ours against published", against)):
        row(name, *(f"{value:.4f}" for value in found))
    pairs = [agreement(bench, [pair])[2] for pair in itertools.combinations(theirs, 2)]
    deviation = float(torch.cat([bench.cnr(one) for one in theirs]).std())
    print(
        f"\nCNR over images and runs: standard deviation {deviation:.3f}. Within the seed noise (mean difference at most "
        f"that of the two published runs furthest apart, {max(pairs):.4f}): {against[2] <= max(pairs)}\n"
    )
    row("timesteps", "CNR error mean", "highest", "forwards")
    for number, error in errors.items():
        row(number, f"{float(error.mean()):.4f}", f"{float(error.max()):.4f}", number * BATCH)
    print("error: absolute difference from the CNR of the mean map of the four published runs (160 noisings)")


def timestep_errors(bench: Bench, timed: dict[str, Timed], counting: CountingMean) -> dict[int, Tensor]:
    """Number of timesteps -> absolute errors (8,) of the CNR; ``counting`` notes the bytes of maps on the way."""
    truth = bench.cnr(torch.stack([timed[name].result.maps for name in LADDER]).mean(0))
    found = {40: timed["batching (= ours)"].result.maps}
    found |= {number: bench.ours(paper_timesteps(number), reducer=counting) for number in (20, 10, 5)}
    return {number: (bench.cnr(maps) - truth).abs() for number, maps in found.items()}


def row(*cells: object) -> None:
    print(f"{cells[0]!s:<24}" + "".join(f"{cell!s:>16}" for cell in cells[1:]), flush=True)


if __name__ == "__main__":
    main()
