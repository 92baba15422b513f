"""DF-RISE with batched masks against one mask at a time, on one U-Net in the same run.

    OMP_NUM_THREADS=2 python -m benchmarks.saliency [--device cuda] [--half] [--latents 32] [--width 16] [--masks 64]

The U-Net has Stable Diffusion's layout (sixteen cross-attention layers) at a small width, with random weights; width 320 and
latents 64 are its size. "one at a time" is how the published code goes: each mask one call of the U-Net, with and without
the text in it. "batched" is ``meddiff.attribution.df_rise.df_rise``. The floor is arithmetic: the operations of the U-Net's
evaluations, which no batching takes away (``operations``, counted by torch), and what this machine needs for the U-Net alone
on batches of that size (``U-Net alone``). What batching can win is what calls cost beside their arithmetic, and kernels too
small for the machine: on a GPU at least 10 times is the aim, on a CPU the ratio is what comes out. Times are the best of the
repeats, the lines taking turns. Other work on the machine stretches them unevenly: then the column of processor time (all
threads) is the one to compare.
"""

import argparse
import contextlib
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.small_diffusion import small_unet
from meddiff.attribution.df_rise import FAST, DfRiseOptions, cost, df_rise
from meddiff.attribution.grounding_pass import GroundingItem
from meddiff.attribution.trajectory import Trajectory, renoised
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.text.build import build_text_encoder

PHRASE = "Moderate right pleural effusion."
GUIDANCE = 7.5
AT_ONCE = 2  # of the published code: a mask with and without the text


def build_network(width: int, latents: int) -> LatentDiffusion:
    """Stable Diffusion's layout with random weights, in eval mode on the CPU."""
    unet = small_unet(width, latents)
    return LatentDiffusion(unet, build_text_encoder({"width": 128, "heads": 2, "layers": 4}), NoiseSchedule()).eval()


class Bench:
    """One step of one real-image path, and the ways to its map."""

    def __init__(self, device: str, latents: int, width: int, options: DfRiseOptions, half: bool) -> None:
        self.device, self.options, self.half = device, options, half
        self.model = build_network(width, latents).to(device)
        drawn = np.random.default_rng(0).standard_normal((4, latents, latents), dtype=np.float32)
        item = GroundingItem("bench", torch.from_numpy(drawn), PHRASE, torch.ones(1, 77))
        with self.precision():
            self.path: Trajectory = renoised(self.model, [item], [401], guidance_scale=GUIDANCE)[0]

    def precision(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.half)

    def maps(self, batch_size: int) -> Tensor:
        with self.precision():
            return df_rise(self.model, self.path, replace(self.options, batch_size=batch_size))

    @torch.no_grad()
    def unet_alone(self, rows: int) -> None:
        """As many evaluations, ``rows`` at once, and nothing else."""
        text = self.model.encode_texts([PHRASE]).expand(rows)
        noisy = self.path.noisy.to(self.device).expand(rows, -1, -1, -1)
        for _ in range(-(-self.evaluations // rows)):
            with self.precision():
                self.model.unet(noisy, torch.tensor(401, device=self.device), **text.arguments())

    @property
    def evaluations(self) -> int:
        return cost(self.options, len(self.path), GUIDANCE)

    @torch.no_grad()
    def operations(self) -> int:
        """Floating-point operations of one evaluation, multiplications and additions counted each."""
        text, counter = self.model.encode_texts([PHRASE]), FlopCounterMode(display=False)
        with counter:
            self.model.unet(self.path.noisy.to(self.device), torch.tensor(401, device=self.device), **text.arguments())
        return counter.get_total_flops()


@dataclass
class Timed:
    """Seconds of the fastest run of a line, and its processor time."""

    seconds: float = float("inf")
    processor: float = float("inf")


def measure(lines: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, Timed]:
    """Best of the repeats, after a first run of each that does not count."""
    best = {name: Timed() for name in lines}
    for turn, (name, work) in tqdm(
        list(itertools.product(range(repeats + 1), lines.items())), desc="lines", unit="line"
    ):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        if turn:
            best[name].seconds = min(best[name].seconds, time.perf_counter() - wall)
            best[name].processor = min(best[name].processor, time.process_time() - processor)
    return best


def report(bench: Bench, batch_size: int, repeats: int) -> float:
    """Print the table; how many times faster batched masks are."""
    operations, evaluations = bench.operations(), bench.evaluations
    print(f"{bench.options.masks} masks, one step, {bench.path.noisy.shape[-1]} x {bench.path.noisy.shape[-1]} latents, "
          f"{bench.device}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the start (1.0 is one busy "
          f"core of {os.cpu_count()})\nFloor: {evaluations} evaluations of {operations / 1e9:.2f} GFLOP each, "
          f"{evaluations * operations / 1e12:.3f} TFLOP\n")  # fmt: skip
    lines: dict[str, Callable[[], object]] = {
        "one at a time": lambda: bench.maps(AT_ONCE),
        f"batched ({batch_size})": lambda: bench.maps(batch_size),
        f"U-Net alone ({batch_size})": lambda: bench.unet_alone(batch_size),
    }
    timed = measure(lines, repeats, bench.device)
    print(f"{'':>20} {'seconds':>9} {'cpu s':>9} {'masks/s':>9} {'GFLOP/s':>9}")
    for name, one in timed.items():
        print(f"{name:>20} {one.seconds:>9.2f} {one.processor:>9.2f} {bench.options.masks / one.seconds:>9.1f} "
              f"{evaluations * operations / one.seconds / 1e9:>9.1f}")  # fmt: skip
    single, batched, alone = timed.values()
    apart = float((bench.maps(AT_ONCE) - bench.maps(batch_size)).abs().max())
    print(f"\nbatched over one at a time: {single.seconds / batched.seconds:.2f} times faster "
          f"({single.processor / batched.processor:.2f} by processor time); over the U-Net alone it takes "
          f"{batched.seconds / alone.seconds:.2f} times as long\nmaps differ by {apart:.1e} at most")  # fmt: skip
    return single.seconds / batched.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--half", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--latents", type=int, default=32, help="side of the latents")
    parser.add_argument("--width", type=int, default=16, help="channels of the U-Net's first level, a multiple of 16")
    parser.add_argument("--masks", type=int, default=FAST.masks)
    parser.add_argument("--batch-size", type=int, default=FAST.batch_size, help="rows that the U-Net gets at once")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    options = replace(FAST, masks=given.masks)
    report(Bench(given.device, given.latents, given.width, options, given.half), given.batch_size, given.repeats)


if __name__ == "__main__":
    main()
