"""Time of a training step over the U-Net's own forward and backward pass, and against the plain loop of diffusers' script.

    OMP_NUM_THREADS=1 python -m benchmarks.step [--switches] [--speed text_cache=64 ema_every=10]
    python -m benchmarks.step --device cuda --size sd2 --batch 16 32 64 128 --speed-file configs/speed/gpu.yaml --grounding

All rows of a table are measured in turns, in one run, on one machine: the same networks, batch size and precision.

| row | what it is |
|---|---|
| U-Net alone | its forward and backward pass on noise, text states given: the floor of everything else |
| ours | whole steps of the training that `lightning fit` runs: shards, captions, tower, optimiser, average, logging, bar |
| plain | the loop of diffusers' text-to-image script (`plain_loop.py`), eager, and on a GPU NCHW and bfloat16 autocast |

Goals: ours at most 1.05 (frozen) and 1.25 (learnable) times the U-Net alone on a CPU at the quickstart's sizes; on an H100 at
least 2 times the plain loop. That ours trains what the plain loop trains, and nothing cheaper, is tested
(tests/benchmarks/test_step.py: the same draws give the same losses and the same weights).

Times are the best of the repeats, each the mean of ``--steps`` steps after a warm-up; on a CPU processor time, which other work
on the machine stretches least (with one thread and nothing beside it, it is time by the wall). Every caption has been seen
before: a cache of texts is measured at its best; without one (ours) every text is encoded every time.
"""

import argparse
import gc
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import yaml

from benchmarks.contenders import SIZES, Ours, Setting, UnetAlone, plain_of
from benchmarks.made_shards import write_shards
from benchmarks.plain_loop import InMemory, clock
from callbacks.throughput import device_peak, trained_flops
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.shards.dataset import LatentShardsDataset

#: Of MS-CXR at the paper's timesteps.
PAIRS = 1162 * 40


def measure(rows: Mapping[str, Callable[[int], float]], steps: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Least seconds of each row, and those of its warm-up; the rows take turns, and the order turns round.

    A row that a GPU's memory does not hold is left out.
    """
    spent: dict[str, list[float]] = {}
    warm_up: dict[str, float] = {}
    for name, run in rows.items():
        begun = time.perf_counter()
        try:
            run(2)  # kernels are chosen, memory is laid out, what is compiled is compiled
        except torch.OutOfMemoryError:
            pass
        else:
            spent[name], warm_up[name] = [], time.perf_counter() - begun
            print(f"{name}: warm after {warm_up[name]:.0f} s", file=sys.stderr, flush=True)
        gc.collect()
    for turn in range(repeats):
        for name in list(spent) if turn % 2 == 0 else reversed(list(spent)):
            spent[name].append(rows[name](steps))
            print(f"{name}: {1e3 * spent[name][-1]:.1f} ms a step", file=sys.stderr, flush=True)
    return {name: (min(seconds), warm_up[name]) for name, seconds in spent.items()}


class Contenders:
    """All rows of the tables of one size and one way to treat the text: networks are made once, for every batch size.

    Args:
        setting: what they share; its batch size is the first.
        variants: name of a row of ours -> its switches.
    """

    def __init__(self, setting: Setting, variants: Mapping[str, Mapping[str, object]]) -> None:
        self.setting = setting
        self.ours = {name: Ours(replace(setting, speed=speed)) for name, speed in variants.items()}
        self.alone = next(reversed(self.ours.values()))  # the network as the last of them lays it out and compiles it
        with setting.device:  # a GPU draws a billion weights at once, a CPU in half a minute
            for one in self.ours.values():
                one.module.configure_model()
                one.module.cpu()  # its training takes it to the device, and brings it back
            self.plain = plain_of(setting)
        self.data = InMemory(LatentShardsDataset(setting.shards, "train"), self.alone.module.model)

    def table(self, batch: int, steps: int, repeats: int, peak: float) -> None:
        """Print the rows for a batch size."""
        setting = replace(self.setting, batch=batch)
        for one in self.ours.values():
            one.setting = replace(one.setting, batch=batch)
        rows: dict[str, Callable[[int], float]] = {name: one.run for name, one in self.ours.items()}
        rows["U-Net alone"] = UnetAlone(self.alone).run
        rows["plain"] = partial(self.plain.run, self.data, batch)
        found = measure(rows, steps, repeats)
        floor, other = found.get("U-Net alone"), found.get("plain")
        flops = 3 * trained_flops(self.alone.module.model) * batch
        print(f"\n{setting.size}, {'frozen' if setting.frozen else 'learnable'}, batch {batch}, {setting.device}, "
              f"{'bf16' if setting.half else 'float32'}, {torch.get_num_threads()} threads")  # fmt: skip
        line("", "ms a step", "over U-Net", "plain / it", "images/s", "MFU %", "warm-up s")
        for name, (seconds, warm_up) in found.items():
            share = f"{100 * flops / seconds / peak:.1f}" if peak else "-"
            over = f"{seconds / floor[0]:.3f}" if floor else "-"
            times = f"{other[0] / seconds:.2f}" if other else "-"
            line(name, f"{1e3 * seconds:.1f}", over, times, f"{batch / seconds:.1f}", share, f"{warm_up:.0f}")
        for name in rows.keys() - found.keys():
            line(name, "out of memory")


def grounding(setting: Setting, pairs: int, peak: float) -> None:
    """Print the time of the batched grounding pass, projected to all phrases of MS-CXR at the paper's timesteps."""
    module = Ours(setting).module
    module.configure_model()
    model = module.model.to(setting.device).eval()
    groups = torch.zeros(1, model.text_encoder.tokenizer.max_length)
    groups[0, 1] = 1.0
    items = [
        GroundingItem(f"k{place}", torch.randn(model.latent_shape), f"Small effusion {place}.", groups)
        for place in range(max(1, pairs // 40))
    ]
    times = list(range(20, 820, 20))
    for seconds in (0.0, 1.0):  # once to warm up
        begun = clock(setting.device)
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.half):
            number = sum(1 for _ in grounding_pass(model, items, times))
        seconds = clock(setting.device) - begun
    rate = number / seconds
    share = f", {100 * trained_flops(model) * rate / peak:.0f} % of the peak" if peak else ""
    print(f"\ngrounding: {rate:.1f} (image, timestep) pairs/s{share}; {PAIRS} pairs (1,162 phrases at 40 timesteps): "
          f"{PAIRS / rate:.0f} s projected")  # fmt: skip


def line(*cells: object) -> None:
    print(f"{cells[0]!s:<28}" + "".join(f"{cell!s:>12}" for cell in cells[1:]), flush=True)


#: Each switch by itself.
SWITCHES: dict[str, dict[str, object]] = {
    "ours, text_cache": {"text_cache": 256},
    "ours, ema_every 10": {"ema_every": 10},
    "ours, channels_last": {"channels_last": True},
    "ours, checkpointing": {"activation_checkpointing": "all"},
}
#: ... and those that only a GPU has, or that take minutes elsewhere.
GPU_SWITCHES: dict[str, dict[str, object]] = {
    "ours, prefetch": {"prefetch": True},
    "ours, compile regions": {"compile": "regions"},
    "ours, + channels_last": {"compile": "regions", "channels_last": True},
}


def switches(words: list[str], file: Path | None) -> dict[str, object]:
    """``name=value`` words over the ``speed`` group of a config file."""
    found: dict[str, object] = {}
    if file is not None:
        found = dict(yaml.safe_load(file.read_text())["model"]["init_args"]["speed"])
    # YAML reads `off` as false, the command does not
    return found | {
        name: value if value == "off" else yaml.safe_load(value) for name, _, value in (w.partition("=") for w in words)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="quickstart")
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--text", choices=["frozen", "learnable"], nargs="+", default=["frozen", "learnable"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--speed",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="switches of a row; may be repeated",
    )
    parser.add_argument("--speed-file", type=Path, help="a config that they add to, such as configs/speed/gpu.yaml")
    parser.add_argument("--switches", action="store_true", help="a row for each switch by itself")
    parser.add_argument(
        "--samples", type=int, default=256, help="images, each with a caption of its own if there are so many"
    )
    parser.add_argument("--grounding", action="store_true", help="the batched grounding pass, projected to MS-CXR")
    parser.add_argument(
        "--peak-tflops", type=float, help="MFU is a share of this; by default the vendor's dense figure"
    )
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    known = device_peak(torch.cuda.get_device_name(device)) if on_gpu else None
    peak = options.peak_tflops * 1e12 if options.peak_tflops else known or 0.0
    rows = options.speed or ([[]] if options.speed_file else [])
    given = {f"ours, {' '.join(words) or 'as given'}": switches(words, options.speed_file) for words in rows}
    switched = SWITCHES | (GPU_SWITCHES if on_gpu else {}) if options.switches else {}
    variants = {"ours": {}, **switched, **given}
    unet = SIZES[options.size][0]
    side = int(unet["sample_size"]) if isinstance(unet, dict) else 16  # type: ignore[call-overload]  # a number here
    with tempfile.TemporaryDirectory() as name:
        write_shards(Path(name), options.samples, (4, side, side))
        for text in options.text:
            first = Setting(options.size, text == "frozen", options.batch[0], device, on_gpu, Path(name))
            contenders = Contenders(first, variants)
            for batch in options.batch:
                contenders.table(batch, options.steps, options.repeats, peak)
            del contenders
            gc.collect()
        if options.grounding:
            grounding(Setting(options.size, True, 64, device, on_gpu, Path(name)), 400 if on_gpu else 40, peak)


if __name__ == "__main__":
    main()
